//! Field selectors: which fields each kind can be selected by, and that they select.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Api, PODS, deployment, pod};

/// The fields beside `metadata.name` and `metadata.namespace`, as the Kubernetes API has them.
fn known() -> BTreeMap<&'static str, Vec<&'static str>> {
    let of_events = |of: &str| -> Vec<String> {
        [
            "apiVersion",
            "fieldPath",
            "kind",
            "name",
            "namespace",
            "resourceVersion",
            "uid",
        ]
        .map(|field| format!("{of}.{field}"))
        .to_vec()
    };
    let leak = |fields: Vec<String>| fields.into_iter().map(|f| &*f.leak());
    let mut core: Vec<&'static str> = leak(of_events("involvedObject")).collect();
    core.extend(["reason", "reportingComponent", "source", "type"]);
    let mut events: Vec<&'static str> = leak(of_events("regarding")).collect();
    events.extend(["reason", "reportingController", "type"]);
    [
        (
            "certificatesigningrequests.certificates.k8s.io",
            vec!["spec.signerName"],
        ),
        (
            "clustertrustbundles.certificates.k8s.io",
            vec!["spec.signerName"],
        ),
        ("events.", core),
        ("events.events.k8s.io", events),
        ("jobs.batch", vec!["status.successful"]),
        ("namespaces.", vec!["status.phase"]),
        ("nodes.", vec!["spec.unschedulable"]),
        (
            "pods.",
            vec![
                "spec.hostNetwork",
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "status.nominatedNodeName",
                "status.phase",
                "status.podIP",
            ],
        ),
        (
            "podcertificaterequests.certificates.k8s.io",
            vec!["spec.nodeName", "spec.podName", "spec.signerName"],
        ),
        (
            "resourceslices.resource.k8s.io",
            vec!["spec.driver", "spec.nodeName", "spec.pool.name"],
        ),
        ("replicationcontrollers.", vec!["status.replicas"]),
        ("secrets.", vec!["type"]),
        ("services.", vec!["spec.clusterIP", "spec.type"]),
    ]
    .into()
}

#[tokio::test]
async fn each_kind_is_selected_by_its_fields_and_by_no_others() {
    let api = Api::new().await;
    let known = known();
    let every: Vec<&str> = known.values().flatten().copied().collect();
    for kind in api.server.registry().kinds().all() {
        let descriptor = kind.descriptor();
        if descriptor.computed {
            continue;
        }
        let resource = format!("{}.{}", descriptor.plural, descriptor.group);
        let path = match descriptor.group.as_str() {
            "" => format!("/api/v1/{}", descriptor.plural),
            group => format!("/apis/{group}/{}/{}", descriptor.version, descriptor.plural),
        };
        let fields = known.get(&*resource).cloned().unwrap_or_default();
        for field in every.iter().copied().chain([
            "metadata.uid",
            "spec",
            "metadata.name",
            "metadata.namespace",
        ]) {
            let of_all = field == "metadata.name"
                || (field == "metadata.namespace"
                    && (descriptor.is_namespaced() || fields.is_empty()));
            let answer = api.get(&format!("{path}?fieldSelector={field}%3Dx")).await;
            if fields.contains(&field) || of_all {
                let list = answer.ok(200);
                assert_eq!(list["items"], json!([]), "{resource} by {field}");
            } else {
                let message = answer.fails(400, "BadRequest");
                assert!(message.contains(field), "{resource}: {message}");
                // Who cannot be selected by anything else is told so.
                let only = message.contains("is not a known field selector: only");
                assert_eq!(only, descriptor.fields.is_empty(), "{resource}: {message}");
            }
        }
    }
}

/// The names in a list by a field selector.
async fn selected(api: &Api, collection: &str, selector: &str) -> Vec<String> {
    let selector = selector.replace('=', "%3D").replace(',', "%2C");
    let list = api
        .get(&format!("{collection}?fieldSelector={selector}"))
        .await;
    let items = list.ok(200)["items"].as_array().unwrap().clone();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    items.iter().map(name).collect()
}

#[tokio::test]
async fn fields_select_what_has_the_value() {
    let api = Api::new().await;
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("n1");
    bound["spec"]["restartPolicy"] = json!("Never");
    api.post(PODS, &bound).await.ok(201);
    api.post(PODS, &pod("free")).await.ok(201);
    let status = json!({"status": {"phase": "Running", "podIP": "10.42.0.7"}});
    let path = format!("{PODS}/bound/status");
    api.patch(&path, "merge", &status).await.ok(200);
    let controllers = "/api/v1/namespaces/default/replicationcontrollers";
    let template = deployment("set")["spec"]["template"].clone();
    let controller = json!({"metadata": {"name": "set"}, "spec": {"template": template}});
    api.post(controllers, &controller).await.ok(201);
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "plain"}});
    api.post(secrets, &secret).await.ok(201);
    let node = json!({"metadata": {"name": "n1"}, "spec": {"unschedulable": true}});
    api.post("/api/v1/nodes", &node).await.ok(201);

    let table: [(&str, &str, &[&str]); 16] = [
        (PODS, "spec.nodeName=n1", &["bound"]),
        (PODS, "spec.nodeName=", &["free"]),
        (PODS, "spec.nodeName!=n1", &["free"]),
        (PODS, "spec.nodeName==n1", &["bound"]),
        (
            PODS,
            "status.phase=Running,spec.restartPolicy=Never",
            &["bound"],
        ),
        (PODS, "status.phase=Running,spec.restartPolicy=Always", &[]),
        (PODS, "status.podIP=10.42.0.7", &["bound"]),
        (PODS, "spec.hostNetwork=false", &["bound", "free"]),
        (
            PODS,
            "spec.schedulerName=default-scheduler",
            &["bound", "free"],
        ),
        (
            PODS,
            "metadata.name=free,metadata.namespace=default",
            &["free"],
        ),
        (controllers, "status.replicas=0", &["set"]),
        (secrets, "type=Opaque", &["plain"]),
        ("/api/v1/nodes", "spec.unschedulable=true", &["n1"]),
        ("/api/v1/nodes", "spec.unschedulable=false", &[]),
        ("/api/v1/namespaces", "status.phase=Terminating", &[]),
        (
            "/api/v1/namespaces/default/services",
            "spec.type=ClusterIP",
            &["kubernetes"],
        ),
    ];
    for (collection, selector, want) in table {
        assert_eq!(
            selected(&api, collection, selector).await,
            want,
            "{selector}"
        );
    }
}
