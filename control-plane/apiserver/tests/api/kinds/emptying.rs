//! A namespace is emptied of every kind in the way in which its controller does it: by what
//! discovery says, without knowing any kind.

use std::collections::{BTreeMap, BTreeSet};

use kube::Api as Resources;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::discovery::{ApiResource, Scope};
use kube::discovery::Discovery;
use serde_json::{Value, json};

use super::{certificates, template};
use crate::client::client;
use crate::harness::{Api, deployment, pod};

/// An object of each kind that lives in namespaces, by the resource.
fn objects() -> BTreeMap<&'static str, Value> {
    let template = template();
    let selected = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:v1"}]}}});
    let regarding = json!({"kind": "Pod", "namespace": "default", "name": "x"});
    [
        ("configmaps.", json!({})),
        ("endpoints.", json!({})),
        ("events.", json!({ "involvedObject": regarding })),
        ("limitranges.", json!({"spec": {"limits": []}})),
        ("persistentvolumeclaims.", json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})),
        ("pods.", pod("x")),
        ("podtemplates.", json!({ "template": template })),
        ("replicationcontrollers.", json!({"spec": {"template": template}})),
        ("resourcequotas.", json!({})),
        ("secrets.", json!({})),
        ("serviceaccounts.", json!({})),
        ("services.", json!({"spec": {"ports": [{"port": 80}]}})),
        ("controllerrevisions.apps", json!({"data": {"a": 1}, "revision": 1})),
        ("daemonsets.apps", json!({ "spec": selected })),
        ("deployments.apps", deployment("x")),
        ("replicasets.apps", json!({ "spec": selected })),
        ("statefulsets.apps", json!({ "spec": selected })),
        ("horizontalpodautoscalers.autoscaling", json!({"spec": {"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}})),
        ("cronjobs.batch", json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": job}}})),
        ("jobs.batch", json!({ "spec": job })),
        ("podcertificaterequests.certificates.k8s.io", certificates::of_pod()),
        ("leases.coordination.k8s.io", json!({})),
        ("endpointslices.discovery.k8s.io", json!({"addressType": "IPv4", "endpoints": []})),
        ("events.events.k8s.io", json!({"regarding": regarding, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "a.b/c", "reportingInstance": "i", "action": "A", "reason": "R", "type": "Normal"})),
        ("ingresses.networking.k8s.io", json!({"spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}})),
        ("networkpolicies.networking.k8s.io", json!({"spec": {"podSelector": {}}})),
        ("poddisruptionbudgets.policy", json!({"spec": {"minAvailable": 1}})),
        ("resourceclaims.resource.k8s.io", json!({"spec": {"devices": {}}})),
        ("resourceclaimtemplates.resource.k8s.io", json!({"spec": {"spec": {"devices": {}}}})),
        ("rolebindings.rbac.authorization.k8s.io", json!({"roleRef": {"kind": "Role", "name": "r"}})),
        ("roles.rbac.authorization.k8s.io", json!({"rules": []})),
        ("csistoragecapacities.storage.k8s.io", json!({"storageClassName": "gold"})),
    ]
    .into()
}

#[tokio::test]
async fn a_namespace_is_emptied_by_what_discovery_says() {
    let api = Api::new().await;
    let client = client(&api);
    let discovery = Discovery::new(client.clone())
        .run_aggregated()
        .await
        .unwrap();
    let served: Vec<ApiResource> = discovery
        .groups()
        .flat_map(|group| group.resources_by_stability())
        .filter(|(_, capabilities)| {
            let can = |verb: &str| capabilities.operations.iter().any(|known| known == verb);
            capabilities.scope == Scope::Namespaced && can("list") && can("deletecollection")
        })
        .map(|(resource, _)| resource)
        .collect();
    let name = |resource: &ApiResource| format!("{}.{}", resource.plural, resource.group);
    let mut objects = objects();
    let named: BTreeSet<String> = served.iter().map(name).collect();
    let known: BTreeSet<String> = objects.keys().map(|&name| name.to_owned()).collect();
    assert_eq!(named, known);
    assert_eq!(served.len(), known.len(), "each kind is served once");

    let of = |resource: &ApiResource| -> Resources<DynamicObject> {
        Resources::default_namespaced_with(client.clone(), resource)
    };
    for resource in &served {
        let mut body = objects.remove(&name(resource)[..]).unwrap();
        body["metadata"]["name"] = json!(format!("x-{}", resource.group.len()));
        body["apiVersion"] = json!(resource.api_version);
        body["kind"] = json!(resource.kind);
        let object = serde_json::from_value(body).unwrap();
        let created = of(resource).create(&PostParams::default(), &object).await;
        assert!(created.is_ok(), "{}: {created:?}", resource.kind);
    }
    for resource in &served {
        let all = of(resource);
        all.delete_collection(&DeleteParams::background(), &ListParams::default())
            .await
            .unwrap();
        for held in all.list_metadata(&ListParams::default()).await.unwrap() {
            // What is protected waits for its controller, and for nobody else.
            let name = held.metadata.name.unwrap();
            let finalizers = held.metadata.finalizers.unwrap_or_default();
            assert_eq!(finalizers, ["kubernetes.io/pvc-protection"], "{name}");
            let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            all.patch(&name, &PatchParams::default(), &none)
                .await
                .unwrap();
        }
    }
    for resource in &served {
        let left = of(resource)
            .list_metadata(&ListParams::default())
            .await
            .unwrap();
        assert!(
            left.items
                .iter()
                .all(|object| object.metadata.name.as_deref() == Some("kubernetes")),
            "{}: {left:?}",
            resource.kind
        );
    }
}
