//! Webhooks, policies and their bindings, as the API keeps them. Nobody asks them yet.

use serde_json::{Value, json};

use super::{SELECTOR, Subject, TABLE, lifecycle, version};
use crate::harness::Api;

const GROUP: &str = "admissionregistration.k8s.io";
const GROUP_VERSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// The group, its version and these resources are in all documents of discovery.
async fn assert_discovered(api: &Api, resources: &[&str]) {
    let groups = api.get("/apis").await.ok(200);
    let groups = groups["groups"].as_array().unwrap().clone();
    let of_all = groups.iter().find(|group| group["name"] == GROUP).unwrap();
    let alone = api.get(&format!("/apis/{GROUP}")).await.ok(200);
    for group in [of_all, &alone] {
        assert_eq!(group["name"], GROUP);
        let versions = group["versions"].as_array().unwrap().iter();
        let mut versions = versions.map(|version| &version["groupVersion"]);
        assert!(versions.any(|version| *version == format!("{GROUP}/v1")));
    }
    let served = api.get(GROUP_VERSION).await.ok(200);
    assert_eq!(served["groupVersion"], format!("{GROUP}/v1"));
    let served = served["resources"].as_array().unwrap().clone();
    for resource in resources {
        let found = served.iter().find(|known| known["name"] == *resource);
        let found = found.unwrap_or_else(|| panic!("{resource} is discovered"));
        if !resource.contains('/') {
            assert_eq!(found["categories"], json!(["api-extensions"]));
        }
    }
}

fn rule() -> Value {
    json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]})
}

fn subject(plural: &'static str, spec: Value) -> Subject<'static> {
    Subject {
        group_version: GROUP_VERSION,
        plural,
        namespaced: false,
        body: json!({"metadata": {"name": "e2e.example.com"}, "spec": spec}),
        status: None,
    }
}

/// Three objects with generated names: one is patched and updated in a field of its spec, watched,
/// and deleted, and then the others all at once.
async fn assert_operations(api: &Api, subject: &Subject<'_>, patched: &Value, updated: &Value) {
    let collection = subject.collection();
    let mut body = subject.named("unused");
    body["metadata"]["name"] = Value::Null;
    body["metadata"]["generateName"] = json!("e2e-example-");
    let mut names = Vec::new();
    for _ in 0..3 {
        let created = api.post(&collection, &body).await.ok(201);
        assert_eq!(created["metadata"]["generation"], 1);
        names.push(created["metadata"]["name"].as_str().unwrap().to_owned());
    }
    let path = format!("{collection}/{}", names[0]);
    let read = api.get(&path).await.ok(200);
    let selected = format!("{collection}?{SELECTOR}");
    let list = api.get(&selected).await.ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    let since = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = api
        .watch(&format!("{selected}&watch=true&resourceVersion={since}"))
        .await;

    let patch = json!({"metadata": {"annotations": {"patched": "true"}}, "spec": patched});
    let first = api.patch(&path, "merge", &patch).await.ok(200);
    assert_eq!(first["metadata"]["annotations"]["patched"], "true");
    assert_eq!(first["metadata"]["generation"], 2);
    assert!(version(&first) > version(&read));
    assert_holds(&first["spec"], patched);
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "MODIFIED");
    assert_eq!(event["object"], first);
    let mut change = first.clone();
    change["metadata"]["annotations"]["updated"] = json!("true");
    for (field, value) in updated.as_object().unwrap() {
        change["spec"][field] = value.clone();
    }
    let second = api.put(&path, &change).await.ok(200);
    assert_eq!(second["metadata"]["annotations"]["updated"], "true");
    assert_eq!(second["metadata"]["generation"], 3);
    assert_holds(&second["spec"], updated);

    api.delete(&path).await.ok(200);
    api.get(&path).await.fails(404, "NotFound");
    let left = api.get(&selected).await.ok(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 2);
    api.delete(&selected).await.ok(200);
    assert_eq!(api.get(&selected).await.ok(200)["items"], json!([]));
}

fn assert_holds(spec: &Value, fields: &Value) {
    for (field, value) in fields.as_object().unwrap() {
        assert_eq!(&spec[field], value);
    }
}

/// Must: the group is in the document of all groups.
/// Must: its version v1 is in the documents of all groups and of the group.
/// Must: both kinds of webhook configurations are in the document of the version.
#[tokio::test]
async fn admissionwebhook_should_include_webhook_resources_in_discovery_documents() {
    let api = Api::new().await;
    let resources = [
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ];
    assert_discovered(&api, &resources).await;
}

fn webhooks(conditions: &Value) -> Value {
    json!({"metadata": {"name": "test"}, "webhooks": [{
        "name": "hook.example.com", "rules": [rule()], "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
        "clientConfig": {"service": {"namespace": "default", "name": "hook", "path": "/always-deny", "port": 8443}, "caBundle": "YQ=="},
        "matchConditions": conditions,
    }]})
}

/// What is created and updated with conditions is read with them.
async fn assert_conditions_are_kept(plural: &str) {
    let api = Api::new().await;
    let collection = format!("{GROUP_VERSION}/{plural}");
    let path = format!("{collection}/test");
    let first =
        json!({"name": "expression-1", "expression": "object.metadata.namespace == 'production'"});
    let second =
        json!({"name": "expression-2", "expression": "object.metadata.namespace == 'staging'"});
    api.post(&collection, &webhooks(&json!([first])))
        .await
        .ok(201);
    let mut read = api.get(&path).await.ok(200);
    assert_eq!(read["webhooks"][0]["matchConditions"], json!([first]));
    read["webhooks"][0]["matchConditions"] = json!([first, second]);
    api.put(&path, &read).await.ok(200);
    let read = api.get(&path).await.ok(200);
    assert_eq!(
        read["webhooks"][0]["matchConditions"],
        json!([first, second])
    );
    assert_eq!(read["metadata"]["generation"], 2);
}

/// Must: the conditions of a configuration are stored as they were created.
/// Must: after an update the configuration that is read has the new conditions.
#[tokio::test]
async fn admissionwebhook_should_be_able_to_create_and_update_mutating_webhook_configurations_with_match_conditions()
 {
    assert_conditions_are_kept("mutatingwebhookconfigurations").await;
}

/// Must: the conditions of a configuration are stored as they were created.
/// Must: after an update the configuration that is read has the new conditions.
#[tokio::test]
async fn admissionwebhook_should_be_able_to_create_and_update_validating_webhook_configurations_with_match_conditions()
 {
    assert_conditions_are_kept("validatingwebhookconfigurations").await;
}

async fn assert_wrong_conditions_are_refused(plural: &str) {
    let api = Api::new().await;
    let collection = format!("{GROUP_VERSION}/{plural}");
    let wrong = json!([{"name": "invalid-expression-1", "expression": "... [] bad expression"}]);
    let message = api
        .post(&collection, &webhooks(&wrong))
        .await
        .fails(422, "Invalid");
    assert!(message.contains("compilation failed"), "{message}");
    assert!(
        message.contains("webhooks[0].matchConditions[0].expression"),
        "{message}"
    );
}

/// Must: a configuration with an expression that is none is refused as one that does not compile.
#[tokio::test]
async fn admissionwebhook_should_reject_mutating_webhook_configurations_with_invalid_match_conditions()
 {
    assert_wrong_conditions_are_refused("mutatingwebhookconfigurations").await;
}

/// Must: a configuration with an expression that is none is refused as one that does not compile.
#[tokio::test]
async fn admissionwebhook_should_reject_validating_webhook_configurations_with_invalid_match_conditions()
 {
    assert_wrong_conditions_are_refused("validatingwebhookconfigurations").await;
}

#[tokio::test]
async fn webhook_configurations_have_all_verbs() {
    let api = Api::new().await;
    for plural in [
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ] {
        let subject = Subject {
            group_version: GROUP_VERSION,
            plural,
            namespaced: false,
            body: webhooks(&json!([])),
            status: None,
        };
        lifecycle(&api, &subject).await;
        subject.create(&api, "shown").await;
        let path = format!("{GROUP_VERSION}/{plural}/shown");
        let table = api.get_as(&path, TABLE).await.ok(200);
        assert_eq!(table["rows"][0]["cells"][1], 1);
    }
}

fn validating_policy() -> Subject<'static> {
    let spec = json!({
        "validations": [{"expression": "object.spec.replicas <= 100"}], "matchConstraints": {"resourceRules": [rule()]},
    });
    let condition = json!({"type": "PatchStatusFailed", "status": "False", "reason": "e2e", "message": "Set by a test", "lastTransitionTime": "2024-01-01T00:00:00Z"});
    Subject {
        status: Some(json!({ "conditions": [condition] })),
        ..subject("validatingadmissionpolicies", spec)
    }
}

/// Must: the group is in the document of all groups.
/// Must: its version v1 is in the document of the group.
/// Must: the kind and its status are in the document of the version.
/// Must: objects are created, read, listed, watched, updated, patched, deleted one by one and all
/// at once.
#[tokio::test]
async fn validatingadmissionpolicy_should_support_validatingadmissionpolicy_api_operations() {
    let api = Api::new().await;
    let resources = [
        "validatingadmissionpolicies",
        "validatingadmissionpolicies/status",
    ];
    assert_discovered(&api, &resources).await;
    let subject = validating_policy();
    let (ignore, fail) = (
        json!({"failurePolicy": "Ignore"}),
        json!({"failurePolicy": "Fail"}),
    );
    assert_operations(&api, &subject, &ignore, &fail).await;
    lifecycle(&api, &subject).await;
}

/// Must: the group is in the document of all groups.
/// Must: its version v1 is in the document of the group.
/// Must: the kind is in the document of the version.
/// Must: objects are created, read, listed, watched, updated, patched, deleted one by one and all
/// at once.
#[tokio::test]
async fn validatingadmissionpolicy_should_support_validatingadmissionpolicybinding_api_operations()
{
    let api = Api::new().await;
    assert_discovered(&api, &["validatingadmissionpolicybindings"]).await;
    let spec =
        json!({"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]});
    let subject = subject("validatingadmissionpolicybindings", spec);
    let warn = json!({"validationActions": ["Warn"]});
    let audit = json!({"validationActions": ["Audit", "Deny"]});
    assert_operations(&api, &subject, &warn, &audit).await;
    lifecycle(&api, &subject).await;
}

/// Must: the group is in the document of all groups.
/// Must: its version v1 is in the document of the group.
/// Must: the kind is in the document of the version.
/// Must: objects are created, read, listed, watched, updated, patched, deleted one by one and all
/// at once.
#[tokio::test]
async fn mutatingadmissionpolicy_should_support_mutatingadmissionpolicy_api_operations() {
    let api = Api::new().await;
    assert_discovered(&api, &["mutatingadmissionpolicies"]).await;
    let expression = "Object{metadata: Object.metadata{annotations: {'my-foo-annotation': 'myAnnotationValue'}}}";
    let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    let spec = json!({"reinvocationPolicy": "Never", "mutations": [mutation], "matchConstraints": {"resourceRules": [rule()]}});
    let subject = subject("mutatingadmissionpolicies", spec);
    let (ignore, fail) = (
        json!({"failurePolicy": "Ignore"}),
        json!({"failurePolicy": "Fail"}),
    );
    assert_operations(&api, &subject, &ignore, &fail).await;
    lifecycle(&api, &subject).await;
}

/// Must: the group is in the document of all groups.
/// Must: its version v1 is in the document of the group.
/// Must: the kind is in the document of the version.
/// Must: objects are created, read, listed, watched, updated, patched, deleted one by one and all
/// at once.
#[tokio::test]
async fn mutatingadmissionpolicy_should_support_mutatingadmissionpolicybinding_api_operations() {
    let api = Api::new().await;
    assert_discovered(&api, &["mutatingadmissionpolicybindings"]).await;
    let subject = subject(
        "mutatingadmissionpolicybindings",
        json!({"policyName": "p.example.com"}),
    );
    let first = json!({"policyName": "q.example.com"});
    let second = json!({"policyName": "r.example.com"});
    assert_operations(&api, &subject, &first, &second).await;
    lifecycle(&api, &subject).await;
}
