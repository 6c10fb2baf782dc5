//! Health checks, the log's verbosity, and what every answer says.

use std::sync::{Arc, Mutex};

use coracle_apiserver::UserInfo;
use coracle_store::MemoryStore;
use http::Method;

use super::Running;
use crate::harness::{Api, CONFIG_MAPS};

#[tokio::test]
async fn checks_have_the_names_that_tools_know() {
    let api = Api::new().await;
    let nobody = api.user(None);
    assert_eq!(nobody.get("/livez").await.text, "ok");
    // Not ready until the server's chores have begun.
    let ready = nobody.get("/readyz").await;
    assert_eq!(ready.code, 500);
    let lines: Vec<&str> = ready.text.lines().collect();
    for line in [
        "[+]ping ok",
        "[+]etcd ok",
        "[-]informer-sync failed: reason withheld",
        "[-]poststarthook/bootstrap-controller failed: reason withheld",
        "[-]poststarthook/priority-and-fairness-config-consumer failed: reason withheld",
        "[+]shutdown ok",
        "readyz check failed",
    ] {
        assert!(lines.contains(&line), "{line} in {}", ready.text);
    }
    let part = nobody
        .get("/readyz/poststarthook/bootstrap-controller")
        .await;
    assert_eq!(part.code, 500);
    assert_eq!(nobody.get("/readyz/etcd").await.text, "ok");
    assert_eq!(nobody.get("/readyz/none").await.code, 404);

    let running = Running::start(api).await;
    let nobody = running.api.user(None);
    let ready = nobody
        .get("/readyz?verbose&exclude=etcd&exclude=nonsense")
        .await;
    assert_eq!(ready.code, 200, "{}", ready.text);
    for line in [
        "[+]etcd excluded: ok",
        "[+]informer-sync ok",
        "warn: some health checks cannot be excluded: no matches for \"nonsense\"",
        "readyz check passed",
    ] {
        assert!(ready.text.lines().any(|l| l == line), "{}", ready.text);
    }
    assert_eq!(nobody.get("/healthz").await.text, "ok");
    running.api.server.announce_shutdown();
    let ready = nobody.get("/readyz").await;
    assert!(ready.text.contains("[-]shutdown failed"), "{}", ready.text);
    // How they went is counted, of what was not excluded.
    assert_eq!(nobody.get("/metrics/slis").await.code, 401);
    let slis = running.api.get("/metrics/slis").await.text;
    for line in [
        "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1",
        "kubernetes_healthcheck{name=\"shutdown\",type=\"readyz\"} 0",
        "kubernetes_healthchecks_total{name=\"shutdown\",type=\"readyz\",status=\"success\"} 2",
        "kubernetes_healthchecks_total{name=\"shutdown\",type=\"readyz\",status=\"error\"} 1",
        "kubernetes_healthchecks_total{name=\"etcd\",type=\"readyz\",status=\"success\"} 3",
    ] {
        assert!(slis.lines().any(|l| l == line), "{line} in {slis}");
    }
    assert_eq!(nobody.get("/livez").await.text, "ok");
    assert_eq!(nobody.get("/healthz").await.text, "ok");
    running.stop().await;
}

#[tokio::test]
async fn administrators_set_how_much_is_logged() {
    let set = Arc::new(Mutex::new(String::new()));
    let seen = set.clone();
    let api = Api::over(MemoryStore::new(), |config| {
        config.verbosity = Some(Arc::new(move |wanted| {
            wanted.parse::<u8>().map_err(|error| error.to_string())?;
            wanted.clone_into(&mut seen.lock().unwrap());
            Ok(())
        }));
    });
    let api = api.await;
    let put = async |api: &Api, value: &'static str| {
        api.raw(Method::PUT, "/debug/flags/v", "text/plain", value)
            .await
    };
    let answer = put(&api, "4").await;
    assert_eq!(
        (answer.code, answer.text.as_str()),
        (200, "successfully set klog.logging.verbosity to 4")
    );
    assert_eq!(*set.lock().unwrap(), "4");
    assert_eq!(put(&api, "loud").await.code, 400);
    assert_eq!(api.get("/debug/flags/v").await.code, 406);
    let jane = api.user(Some(UserInfo::new("jane", &[])));
    put(&jane, "5").await.fails(403, "Forbidden");
    assert_eq!(*set.lock().unwrap(), "4");
    for path in ["/debug/pprof/heap", "/debug/nothing", "/logs", "/logs/x"] {
        api.get(path).await.fails(404, "NotFound");
        jane.get(path).await.fails(403, "Forbidden");
        api.user(None).get(path).await.fails(401, "Unauthorized");
    }
}

#[tokio::test]
async fn answers_about_kinds_that_are_out_of_use_say_so_once() {
    let api = Api::new().await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let body = serde_json::json!({"metadata": {"name": "e"}});
    let made = api.post(endpoints, &body).await;
    let watch = http::Request::get(format!("{endpoints}?watch=1")).body(axum::body::Body::empty());
    let answers = [
        made.headers,
        api.get(endpoints).await.headers,
        api.get(&format!("{endpoints}/none")).await.headers,
        api.send(watch.unwrap()).await.headers().clone(),
    ];
    for headers in answers {
        let warnings: Vec<_> = headers.get_all("warning").iter().collect();
        let want =
            "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
        assert_eq!(warnings, [want]);
    }
    assert!(!api.get(CONFIG_MAPS).await.headers.contains_key("warning"));
    let metrics = api.get("/metrics").await.text;
    let want = "apiserver_requested_deprecated_apis{group=\"\",version=\"v1\",resource=\"endpoints\",subresource=\"\",removed_release=\"\"} 1";
    assert!(metrics.contains(want), "{metrics}");
}

#[tokio::test]
async fn every_answer_has_an_id_and_is_not_to_be_kept() {
    let api = Api::new().await;
    let mut ids = Vec::new();
    for (who, path) in [
        (api.clone(), CONFIG_MAPS),
        (api.clone(), "/api/v1/namespaces/default/configmaps/none"),
        (api.clone(), "/nothing"),
        (api.clone(), "/apis"),
        (api.clone(), "/metrics"),
        (api.clone(), "/openapi/v3"),
        (api.user(None), "/livez"),
        (api.user(None), CONFIG_MAPS),
    ] {
        let headers = who.get(path).await.headers;
        assert_eq!(headers["cache-control"], "no-cache, private", "{path}");
        ids.push(headers["audit-id"].to_str().unwrap().to_owned());
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
}
