//! What a server-side apply costs: its handler alone, and the server all in all.

use std::process::Command;

use axum::body::Body;
use coracle_apiserver::{ApiServer, Config, UserInfo, bootstrap};
use coracle_store::MemoryStore;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::cluster::Cluster;
use crate::footprint::cpu_ticks;
use crate::{Row, go};

const MANAGERS: usize = 5;
const APPLIES: usize = 2000;
/// Applies before those that are measured.
const FIRST: usize = MANAGERS * 20;

pub(crate) fn rows() {
    handler().print();
    let cluster = Cluster::up(&[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(whole(&cluster)).print();
}

/// The manager whose turn it is, and its configuration: a fifth of an object of 4 KB, all of it
/// with other values than the last time.
fn configuration(turn: usize) -> (String, Value) {
    let manager = format!("manager-{}", turn % MANAGERS);
    let data: serde_json::Map<_, _> = (0..8)
        .map(|key| {
            let text = format!("{turn:08}").repeat(12);
            (format!("{manager}-key-{key}"), text.into())
        })
        .collect();
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "applied", "labels": {&manager: "here"}},
        "data": data,
    });
    (manager, config)
}

/// The CPU of the handler: from the request to the bytes of the answer, with everything that the
/// API server does between the two, over a store in memory. Measured in this process, on the one
/// thread that does it.
fn handler() -> Row {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let each = runtime.block_on(async {
        let range = "10.43.0.0/16".parse().expect("a range");
        let server = ApiServer::new(Config::new(MemoryStore::new(), range));
        let made = bootstrap::make(server.registry(), None).await;
        made.expect("what a cluster starts with");
        let user = UserInfo::new("admin", &["system:masters"]);
        let service = server.service().with_identity(user);
        let apply = async |turn: usize| {
            let (manager, config) = configuration(turn);
            let path = "/api/v1/namespaces/default/configmaps/applied";
            let request = Request::patch(format!("{path}?fieldManager={manager}"))
                .header(CONTENT_TYPE, "application/apply-patch+yaml")
                .body(Body::from(config.to_string()))
                .expect("a request");
            let before = clock_gettime(ClockId::ThreadCPUTime);
            let answer = service.clone().oneshot(request).await.expect("an answer");
            assert!(answer.status().is_success(), "{}", answer.status());
            let body = answer.into_body().collect().await.expect("a body");
            let after = clock_gettime(ClockId::ThreadCPUTime);
            assert!(turn < FIRST || body.to_bytes().len() > 4096);
            let nanoseconds = after.tv_nsec - before.tv_nsec;
            (after.tv_sec - before.tv_sec) as f64 * 1e6 + nanoseconds as f64 / 1e3
        };
        for turn in 0..FIRST {
            apply(turn).await;
        }
        let mut spent = 0.0;
        for turn in FIRST..FIRST + APPLIES {
            spent += apply(turn).await;
        }
        spent / APPLIES as f64
    });
    Row::new(
        "server-side apply of a 4 KB object with five managers: CPU of its handler",
        format!("{each:.0} µs"),
        "≤ 150 µs",
    )
    .beside(
        "field manager and codecs of kube-apiserver alone, µs:",
        each,
        upstream(),
    )
}

/// What the same takes Kubernetes' field manager, with the decoding and encoding around it.
fn upstream() -> Option<f64> {
    let folder = tempfile::tempdir().ok()?;
    let program = go::built("field-manager", folder.path())?;
    let arguments = [MANAGERS, APPLIES].map(|number| number.to_string());
    let ran = Command::new(program).args(arguments).output().ok()?;
    String::from_utf8(ran.stdout).ok()?.trim().parse().ok()
}

/// The CPU of the server's process for an apply over HTTPS, all in all: TLS and HTTP/2, the log
/// and its fsync, and the watches of the controllers, which see every write.
async fn whole(cluster: &Cluster) -> Row {
    let maps: Api<ConfigMap> = Api::default_namespaced(super::pods::client(cluster).await);
    let apply = async |turn: usize| {
        let (manager, config) = configuration(turn);
        let parameters = PatchParams::apply(&manager);
        maps.patch("applied", &parameters, &Patch::Apply(config))
            .await
            .expect("applied");
    };
    for turn in 0..FIRST {
        apply(turn).await;
    }
    let before = cpu_ticks(cluster.process.id());
    for turn in FIRST..FIRST + APPLIES {
        apply(turn).await;
    }
    let ticks = cpu_ticks(cluster.process.id()) - before;
    Row::new(
        "the same over HTTPS: CPU of the whole server, with TLS, the log, fsync and the controllers' watches",
        format!("{:.0} µs", ticks as f64 * 1e4 / APPLIES as f64),
        "",
    )
}
