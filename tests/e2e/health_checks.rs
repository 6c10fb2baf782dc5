//! Ports at which a load balancer asks a node for endpoints of a Service.

use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, http_get, kubectl_available, sample};

/// Waits until a node says that it has so many endpoints of `web`.
#[track_caller]
fn says(port: &str, status: u16, endpoints: u64) {
    eventually("what the node says", || {
        let said = http_get(&format!("127.0.0.1:{port}"), "/healthz");
        let Ok((code, body)) = &said else {
            return Err(format!("{said:?}"));
        };
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let wanted = json!({
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": endpoints, "serviceProxyHealthy": true,
        });
        let is_said = *code == status && body == wanted;
        is_said.then_some(()).ok_or_else(|| format!("{said:?}"))
    });
}

#[test]
fn a_balancer_hears_whether_a_node_has_endpoints() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let hello = sample("hello-http").join("hello-http.wasm");
    cluster.coracle(&["push", hello.to_str().unwrap(), "hello-http:v1"]);
    let kubectl = cluster.kubectl();
    kubectl.apply(
        &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": "Local",
                "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}],
            },
        })
        .to_string(),
    );
    let port = kubectl.value(&["service", "web"], ".spec.healthCheckNodePort");
    says(&port, 503, 0);
    kubectl.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "one", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "hello-http:v1"}]},
        })
        .to_string(),
    );
    says(&port, 200, 1);
    kubectl.ok(&["delete", "pod", "one", "--timeout=60s"]);
    says(&port, 503, 0);
    kubectl.ok(&["delete", "service", "web"]);
    eventually("the port is closed", || {
        match http_get(&format!("127.0.0.1:{port}"), "/") {
            Err(_) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
