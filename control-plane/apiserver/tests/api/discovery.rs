//! Discovery and version.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::harness::Api;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn both_forms_of_discovery_agree() {
    let api = Api::new().await;
    let mut legacy: Vec<String> = Vec::new();
    let mut paths = vec!["/api/v1".to_owned()];
    for group in api.get("/apis").await.ok(200)["groups"].as_array().unwrap() {
        let versions = group["versions"].as_array().unwrap();
        assert_eq!(group["preferredVersion"], versions[0]);
        for version in versions {
            paths.push(format!(
                "/apis/{}",
                version["groupVersion"].as_str().unwrap()
            ));
        }
        let alone = api
            .get(&format!("/apis/{}", group["name"].as_str().unwrap()))
            .await
            .ok(200);
        assert_eq!(alone["versions"], group["versions"]);
    }
    for path in &paths {
        let list = api.get(path).await.ok(200);
        assert_eq!(list["kind"], "APIResourceList");
        for resource in list["resources"].as_array().unwrap() {
            legacy.push(format!(
                "{path} {} {}",
                resource["name"].as_str().unwrap(),
                resource["verbs"]
            ));
        }
    }
    let mut aggregated: Vec<String> = Vec::new();
    for (path, prefix) in [("/api", "/api"), ("/apis", "/apis")] {
        let answer = api.get_as(path, AGGREGATED).await;
        assert_eq!(
            answer.headers["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        for group in answer.ok(200)["items"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                let name = group["metadata"]["name"].as_str();
                let gv = match name {
                    Some(name) => {
                        format!("{prefix}/{name}/{}", version["version"].as_str().unwrap())
                    }
                    None => format!("{prefix}/{}", version["version"].as_str().unwrap()),
                };
                for resource in version["resources"].as_array().unwrap() {
                    let plural = resource["resource"].as_str().unwrap();
                    aggregated.push(format!("{gv} {plural} {}", resource["verbs"]));
                    for sub in resource["subresources"].as_array().into_iter().flatten() {
                        aggregated.push(format!(
                            "{gv} {plural}/{} {}",
                            sub["subresource"].as_str().unwrap(),
                            sub["verbs"]
                        ));
                    }
                }
            }
        }
    }
    legacy.sort();
    aggregated.sort();
    assert_eq!(legacy, aggregated);
    for expected in [
        "/api/v1 pods/log [\"get\"]",
        "/api/v1 nodes/proxy [\"create\",\"delete\",\"get\",\"patch\",\"update\"]",
        "/apis/apps/v1 deployments/scale [\"get\",\"patch\",\"update\"]",
    ] {
        assert!(legacy.iter().any(|line| line == expected), "{expected}");
    }
}

/// The group, or else the resource, of each of a list.
fn listed<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
    let items = list.as_array().unwrap().iter();
    items
        .map(|item| item.pointer(name).map_or("", |name| name.as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn groups_are_listed_by_their_priorities() {
    let api = Api::new().await;
    let want = [
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "discovery.k8s.io",
        "resource.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "storagemigration.k8s.io",
        "metrics.k8s.io",
    ];
    let legacy = api.get("/apis").await.ok(200);
    assert_eq!(listed(&legacy["groups"], "/name"), want);
    let aggregated = api.get_as("/apis", AGGREGATED).await.ok(200);
    assert_eq!(listed(&aggregated["items"], "/metadata/name"), want);
}

#[tokio::test]
async fn kinds_of_another_version_are_named_with_it_and_no_others() {
    let api = Api::new().await;
    let core = api.get_as("/api", AGGREGATED).await.ok(200);
    let resources = core["items"][0]["versions"][0]["resources"]
        .as_array()
        .unwrap();
    let pods = resources
        .iter()
        .find(|known| known["resource"] == "pods")
        .unwrap();
    let own = json!({"group": "", "version": "", "kind": "Pod"});
    assert_eq!(pods["responseKind"], own);
    let parts = [
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
        "resize",
        "status",
    ];
    assert_eq!(listed(&pods["subresources"], "/subresource"), parts);
    let kinds = [
        (
            1_usize,
            json!({"group": "", "version": "", "kind": "Binding"}),
        ),
        (
            3,
            json!({"group": "policy", "version": "v1", "kind": "Eviction"}),
        ),
        (9, own),
    ];
    for (index, kind) in kinds {
        assert_eq!(pods["subresources"][index]["responseKind"], kind);
    }
    let legacy = api.get("/api/v1").await.ok(200);
    let legacy = legacy["resources"].as_array().unwrap();
    for (name, group, version) in [
        ("pods", json!(null), json!(null)),
        ("pods/exec", json!(null), json!(null)),
        ("pods/eviction", json!("policy"), json!("v1")),
        (
            "serviceaccounts/token",
            json!("authentication.k8s.io"),
            json!("v1"),
        ),
    ] {
        let resource = legacy.iter().find(|known| known["name"] == name).unwrap();
        assert_eq!(
            (&resource["group"], &resource["version"]),
            (&group, &version),
            "{name}"
        );
    }
}

#[tokio::test]
async fn stored_versions_have_the_hashes_of_kubernetes() {
    let api = Api::new().await;
    for (group_version, name, hash) in [
        ("/api/v1", "pods", json!("xPOwRZ+Yhw8=")),
        ("/api/v1", "events", json!("r2yiGXH7wu8=")),
        ("/apis/events.k8s.io/v1", "events", json!("r2yiGXH7wu8=")),
        ("/apis/apps/v1", "deployments", json!("8aSe+NMegvE=")),
        (
            "/apis/autoscaling/v1",
            "horizontalpodautoscalers",
            json!("qwQve8ut294="),
        ),
        (
            "/apis/autoscaling/v2",
            "horizontalpodautoscalers",
            json!("qwQve8ut294="),
        ),
        ("/api/v1", "pods/status", json!(null)),
        ("/api/v1", "componentstatuses", json!(null)),
        (
            "/apis/authentication.k8s.io/v1",
            "tokenreviews",
            json!(null),
        ),
    ] {
        let list = api.get(group_version).await.ok(200);
        let resources = list["resources"].as_array().unwrap();
        let resource = resources
            .iter()
            .find(|known| known["name"] == name)
            .unwrap();
        assert_eq!(
            resource["storageVersionHash"], hash,
            "{group_version} {name}"
        );
    }
}

#[tokio::test]
async fn discovery_is_not_sent_twice() {
    let api = Api::new().await;
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (path, accept) in [
        ("/api", AGGREGATED),
        ("/apis", AGGREGATED),
        ("/api", "application/json"),
        ("/apis", "application/json"),
        ("/apis", protobuf),
        ("/apis/apps", "application/json"),
        ("/api/v1", "application/json"),
        ("/apis/apps/v1", protobuf),
    ] {
        let get = async |etag: Option<&str>| {
            let mut request = Request::get(path).header("accept", accept);
            if let Some(etag) = etag {
                request = request.header("if-none-match", etag);
            }
            api.send(request.body(Body::empty()).unwrap()).await
        };
        let first = get(None).await;
        assert_eq!(first.status(), 200, "{path} {accept}");
        let etag = first.headers()["etag"].to_str().unwrap();
        let again = get(Some(etag)).await;
        assert_eq!(again.status(), 304, "{path} {accept}");
        assert_eq!(again.headers()["etag"], etag);
        assert_eq!(get(Some("\"other\"")).await.status(), 200);
    }
}

#[tokio::test]
async fn the_version_is_that_of_the_api() {
    let api = Api::new().await;
    let version = api.get("/version").await.ok(200);
    assert!(
        version["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.37.")
    );
}
