//! Metrics, by the names, types, labels and buckets that Kubernetes 1.37 gives them.
//!
//! | module | has |
//! |---|---|
//! | [`requests`] | `apiserver_request_*` and their like, and what is in flight |
//! | [`admission`] | `apiserver_admission_step_*` |
//! | [`storage`] | `etcd_request*`, and how much is stored |
//! | [`process`] | `process_*` |
//! | [`slis`] | `kubernetes_healthcheck*`, under a path of their own |
//! | [`exposition`] | the text of all of it, in the form that is asked for |
//!
//! Those of flow control and of the audit log are kept where they are counted. Only names of what
//! is served become labels: a client cannot make new series.
//!
//! Deliberately absent: `workqueue_*` (controllers are no part of this server, they serve nothing
//! of their own), and what upstream measures of caches that do not exist here.

pub(crate) mod admission;
pub(crate) mod exposition;
mod process;
pub(crate) mod requests;
pub(crate) mod slis;
pub(crate) mod storage;

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Metered;

use crate::audit::Audit;
use crate::flow::Flow;
use crate::handlers::encode::response;
use crate::health;
use crate::registry::Registry;
use admission::AdmissionMetrics;
use exposition::Form;
use process::Process;
use requests::Requests;
use storage::StorageMetrics;

/// Bounds of lifetimes, from half an hour to a year.
const LIFETIMES: [f64; 14] = [
    0.0,
    1_800.0,
    3_600.0,
    7_200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// The metrics of one server.
pub(crate) struct Metrics {
    registered: Metered,
    pub(crate) requests: Requests,
    pub(crate) storage: StorageMetrics,
    pub(crate) tls_failures: Counter,
    /// Seconds for which the certificates of clients are still good, with each request.
    pub(crate) certificates: Histogram,
    flow: Arc<Flow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    major: String,
    minor: String,
    git_version: String,
    git_commit: String,
    git_tree_state: String,
    build_date: String,
    go_version: String,
    compiler: String,
    platform: String,
}

impl Metrics {
    pub(crate) fn new(
        flow: Arc<Flow>,
        audit: Option<&Audit>,
        storage: StorageMetrics,
        admission: &AdmissionMetrics,
    ) -> Self {
        let requests = Requests::default();
        let tls_failures = Counter::default();
        let certificates = Histogram::new(LIFETIMES);
        let mut registered = Metered::default();
        let apiserver = registered.sub_registry_with_prefix("apiserver");
        requests.register(apiserver);
        apiserver.register(
            "tls_handshake_errors",
            "Connections that ended in their TLS handshake",
            tls_failures.clone(),
        );
        apiserver.register(
            "client_certificate_expiration_seconds",
            "How long the certificates are still good by which clients are known",
            certificates.clone(),
        );
        admission.register(apiserver);
        flow.metrics().register(apiserver);
        if let Some(audit) = audit {
            audit.metrics.register(apiserver);
        }
        storage.register(&mut registered);
        registered.register_collector(Box::new(Process));
        let version = health::version();
        let build = Family::<Build, Gauge>::default();
        let label = Build {
            major: version.major,
            minor: version.minor,
            git_version: version.git_version,
            git_commit: version.git_commit,
            git_tree_state: version.git_tree_state,
            build_date: version.build_date,
            go_version: version.go_version,
            compiler: version.compiler,
            platform: version.platform,
        };
        build.get_or_create(&label).set(1);
        registered.register("kubernetes_build_info", "What this server is", build);
        Self {
            registered,
            requests,
            storage,
            tls_failures,
            certificates,
            flow,
        }
    }

    /// The metrics as text.
    pub(crate) async fn render(&self, headers: &HeaderMap, registry: &Registry) -> Response<Body> {
        self.storage.count_objects(registry).await;
        self.flow.publish();
        let form = Form::accepted(headers);
        let text = form.encode(&self.registered);
        response(StatusCode::OK, form.media_type(), Body::from(text))
    }
}
