//! Who manages which field after every sort of write.

use axum::body::Body;
use coracle_apiserver::UserInfo;
use http::Request;
use serde_json::json;

use crate::apply::{DEPLOYMENTS, config_map, fields, managers, names};
use crate::harness::{Api, CONFIG_MAPS, PODS, deployment, pod};

#[tokio::test]
async fn every_write_takes_what_it_changes() {
    let api = Api::new().await;
    let created = api.post(PODS, &pod("p")).await.ok(201);
    let path = &format!("{PODS}/p");
    // Without a name or a user agent.
    let mine = fields(&created, "unknown/Update");
    assert_eq!(
        mine["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:image"],
        json!({})
    );
    assert!(mine.get("f:metadata").is_none(), "{mine}");
    let request = Request::patch(path.as_str())
        .header("content-type", "application/strategic-merge-patch+json")
        .header("user-agent", "kubectl/v1.37.0 (linux/amd64)")
        .body(Body::from(
            json!({"metadata": {"labels": {"a": "1"}}}).to_string(),
        ));
    let patched = api.request(request.unwrap()).await.ok(200);
    let labels = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}});
    assert_eq!(fields(&patched, "kubectl/Update"), labels);
    // The status has managers of its own, and cannot take what is not status.
    let mut object = patched.clone();
    object["status"]["phase"] = json!("Running");
    object["spec"]["nodeName"] = json!("n");
    let status = api
        .put(&format!("{path}/status?fieldManager=kubelet"), &object)
        .await
        .ok(200);
    assert_eq!(
        fields(&status, "kubelet/Update/status"),
        json!({"f:status": {"f:phase": {}}})
    );
    // Neither can the main resource take the status.
    let mut object = status.clone();
    object["status"]["phase"] = json!("Failed");
    object["metadata"]["labels"]["a"] = json!("2");
    let updated = api.put(&format!("{path}?fieldManager=y"), &object).await;
    let updated = updated.ok(200);
    assert_eq!(
        fields(&updated, "y/Update"),
        json!({"f:metadata": {"f:labels": {"f:a": {}}}})
    );
    assert_eq!(updated["status"]["phase"], "Running");
    // Who set the label first has lost it, but not the map of labels.
    let map = json!({"f:metadata": {"f:labels": {}}});
    assert_eq!(fields(&updated, "kubectl/Update"), map);
    // A write that changes nothing changes no manager.
    assert_eq!(
        api.put(&format!("{path}?fieldManager=z"), &updated)
            .await
            .ok(200),
        updated
    );
    // A binding is nobody's.
    let bound = api
        .post(
            &format!("{path}/binding"),
            &json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}),
        )
        .await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    let after = api.get(path).await.ok(200);
    assert_eq!(after["spec"]["nodeName"], "n");
    assert_eq!(managers(&after), managers(&updated));
}

#[tokio::test]
async fn scale_has_a_manager_of_its_own() {
    let api = Api::new().await;
    let path = &format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    config["spec"]["replicas"] = json!(1);
    api.apply(path, "fieldManager=x", &config).await.ok(201);
    api.patch(
        &format!("{path}/scale?fieldManager=scaler"),
        "merge",
        &json!({"spec": {"replicas": 2}}),
    )
    .await
    .ok(200);
    let scaled = api.get(path).await.ok(200);
    let replicas = json!({"f:spec": {"f:replicas": {}}});
    assert_eq!(fields(&scaled, "scaler/Update/scale"), replicas);
    let applied = fields(&scaled, "x/Apply");
    assert!(applied.pointer("/f:spec/f:replicas").is_none(), "{applied}");
    let message = api
        .apply(path, "fieldManager=x", &config)
        .await
        .fails(409, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 4}});
    let at = &format!("{path}/scale");
    let message = api
        .apply(at, "fieldManager=hpa", &scale)
        .await
        .fails(409, "Conflict");
    // To who applies a scale all managers are those of a scale.
    let with = "conflict with \"scaler\" with subresource \"scale\" using autoscaling/v1";
    assert!(message.contains(with), "{message}");
    let scale = api.apply(at, "fieldManager=hpa&force=true", &scale).await;
    assert_eq!(scale.ok(200)["spec"]["replicas"], 4);
    let scaled = api.get(path).await.ok(200);
    assert_eq!(fields(&scaled, "hpa/Apply/scale"), replicas);
    assert!(!names(&scaled).contains(&"scaler/Update/scale".to_owned()));
    // Who says nothing of the replicas leaves them to who has them.
    let silent = json!({"apiVersion": "autoscaling/v1", "kind": "Scale"});
    let scale = api.apply(at, "fieldManager=silent", &silent).await;
    assert_eq!(scale.ok(200)["spec"]["replicas"], 4);
    let scaled = api.get(path).await.ok(200);
    assert_eq!(fields(&scaled, "hpa/Apply/scale"), replicas);
    assert!(!names(&scaled).contains(&"silent/Apply/scale".to_owned()));
}

#[tokio::test]
async fn empty_values_are_forgotten() {
    let api = Api::new().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class =
        json!({"metadata": {"name": "a", "labels": {}}, "value": 1, "globalDefault": false});
    let created = api
        .post(&format!("{classes}?fieldManager=x"), &class)
        .await
        .ok(201);
    assert_eq!(created["metadata"].get("labels"), None);
    let owned = fields(&created, "x/Update");
    assert!(owned.get("f:metadata").is_none(), "{owned}");
    assert!(owned.get("f:globalDefault").is_none(), "{owned}");
    // What is applied is owned, but it is not there for whoever gives it a value.
    let path = &format!("{classes}/a");
    let mut config = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "a", "labels": {}}, "value": 1});
    let applied = api.apply(path, "fieldManager=y", &config).await.ok(200);
    let labels = json!({"f:labels": {}});
    assert_eq!(fields(&applied, "y/Apply")["f:metadata"], labels);
    config["metadata"]["labels"] = json!({"a": "b"});
    let message = api
        .apply(path, "fieldManager=z", &config)
        .await
        .fails(409, "Conflict");
    let want = "Apply failed with 1 conflict: conflict with \"y\": .metadata.labels";
    assert_eq!(message, want);
}

/// As in Kubernetes: a configuration is taken at its word, and the object is as Go writes it.
#[tokio::test]
async fn who_applies_an_empty_value_has_it_though_it_is_not_there() {
    let api = Api::new().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "a"}, "value": 0, "globalDefault": false});
    let mut idle = deployment("a");
    idle["spec"]["paused"] = json!(false);
    idle["spec"]["replicas"] = json!(0);
    // What is empty and gone, and what is zero and stays.
    let table = [
        (classes, &class, "/globalDefault", "/value"),
        (DEPLOYMENTS, &idle, "/spec/paused", "/spec/replicas"),
    ];
    for (collection, config, gone, stays) in table {
        let path = &format!("{collection}/a");
        let applied = api.apply(path, "fieldManager=y", config).await.ok(201);
        assert_eq!(applied.pointer(gone), None, "{applied}");
        assert_eq!(applied.pointer(stays), Some(&json!(0)), "{applied}");
        let owned = fields(&applied, "y/Apply");
        for field in [gone, stays] {
            let of = field.replace('/', "/f:");
            assert_eq!(owned.pointer(&of), Some(&json!({})), "{owned}");
        }
        // The same again is no write, and from somebody else it is something new.
        let again = api.apply(path, "fieldManager=y", config).await.ok(200);
        assert_eq!(again, applied);
        let message = api
            .apply(path, "fieldManager=z", config)
            .await
            .fails(409, "Conflict");
        let conflict = format!("conflict with \"y\": {}", gone.replace('/', "."));
        assert!(message.ends_with(&conflict), "{message}");
    }
    // Who replaces the object takes nothing by leaving it out, nor by an empty value.
    let put = format!("{DEPLOYMENTS}/a?fieldManager=w");
    let mut replaced = api.get(&format!("{DEPLOYMENTS}/a")).await.ok(200);
    replaced["spec"]["replicas"] = json!(1);
    let written = api.put(&put, &replaced).await.ok(200);
    assert!(fields(&written, "y/Apply")["f:spec"]["f:paused"].is_object());
    let taken = json!({"f:spec": {"f:replicas": {}}});
    assert_eq!(fields(&written, "w/Update"), taken);
    let mut same = written.clone();
    same["spec"]["paused"] = json!(false);
    same["spec"]["template"]["spec"]["volumes"] = json!([]);
    same["spec"]["template"]["spec"]["containers"][0]["tty"] = json!(false);
    assert_eq!(api.put(&put, &same).await.ok(200), written);
}

#[tokio::test]
async fn a_status_may_come_without_metadata() {
    let api = Api::new().await;
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    let spec = json!({"attacher": "d.example.com", "nodeName": "n1", "source": {"persistentVolumeName": "vol"}});
    let body = json!({"metadata": {"name": "a"}, "spec": spec});
    api.post(attachments, &body).await.ok(201);
    let path = format!("{attachments}/a/status?fieldManager=x");
    let metadata = json!({"labels": {"a": "b"}, "annotations": {"a": "b"}});
    let patch = json!({"metadata": metadata, "status": {"attached": true}});
    let patched = api.patch(&path, "merge", &patch).await.ok(200);
    assert_eq!(patched["status"]["attached"], true);
    assert_eq!(patched["metadata"].get("labels"), None);
    assert_eq!(patched["metadata"].get("annotations"), None);
    let status = json!({"f:status": {"f:attached": {}}});
    assert_eq!(fields(&patched, "x/Update/status"), status);
}

#[tokio::test]
async fn clients_may_write_managed_fields() {
    let api = Api::new().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let config = config_map(json!({"a": "1"}));
    let applied = api.apply(path, "fieldManager=x", &config).await.ok(201);
    // Who does not know of managers does not lose them.
    let mut object = applied.clone();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    assert_eq!(api.put(path, &object).await.ok(200), applied);
    // Nor does who breaks them.
    object["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(api.put(path, &object).await.ok(200), applied);
    let renamed =
        json!([{"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "z"}]);
    let object = api.patch(path, "json", &renamed).await.ok(200);
    assert_eq!(names(&object), ["z/Apply"]);
    // One empty entry forgets all, and nobody is tracked until the next apply.
    let reset = json!({"metadata": {"managedFields": [{}]}});
    let object = api.patch(path, "merge", &reset).await.ok(200);
    assert_eq!(names(&object), [""; 0]);
    let patch = json!({"data": {"b": "1"}});
    let object = api.patch(path, "merge", &patch).await.ok(200);
    assert_eq!(names(&object), [""; 0]);
    let object = api.apply(path, "fieldManager=x", &config).await.ok(200);
    assert_eq!(names(&object), ["x/Apply", "before-first-apply/Update"]);
}

#[tokio::test]
async fn an_event_has_managers_in_both_its_versions() {
    let api = Api::new().await;
    let core = "/api/v1/namespaces/default/events";
    let event = json!({
        "metadata": {"name": "e", "namespace": "default"}, "type": "Normal", "reason": "R",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "eventTime": "2001-01-01T00:00:00.000000Z", "action": "A", "reportingComponent": "c.d/e", "reportingInstance": "i",
    });
    api.post(&format!("{core}?fieldManager=old"), &event)
        .await
        .ok(201);
    let view = "/apis/events.k8s.io/v1/namespaces/default/events/e?fieldManager=new";
    let series = json!({"series": {"count": 2, "lastObservedTime": "2001-01-01T00:00:00.000000Z"}});
    let patched = api.patch(view, "merge", &series).await.ok(200);
    assert_eq!(names(&patched), ["new/Update", "old/Update"]);
    assert!(fields(&patched, "new/Update").get("f:series").is_some());
    assert!(
        fields(&patched, "old/Update")
            .get("f:involvedObject")
            .is_some()
    );
    // Who knows it as one version takes from who knows it as the other.
    let patch = json!({"metadata": {"labels": {"a": "1"}}});
    api.patch(view, "merge", &patch).await.ok(200);
    let patch = json!({"metadata": {"labels": {"a": "2"}}});
    let taken = api
        .patch(&format!("{core}/e?fieldManager=old"), "merge", &patch)
        .await;
    let taken = taken.ok(200);
    assert!(
        fields(&taken, "new/Update")
            .pointer("/f:metadata/f:labels/f:a")
            .is_none()
    );
    assert!(
        fields(&taken, "old/Update")
            .pointer("/f:metadata/f:labels/f:a")
            .is_some()
    );
}

#[tokio::test]
async fn components_manage_by_their_names() {
    let api = Api::new().await;
    let table = [
        (
            "system:kube-controller-manager",
            "kube-controller-manager/Update",
        ),
        ("system:node:n", "kubelet/Update"),
        ("admin", "unknown/Update"),
    ];
    for (user, manager) in table {
        let api = api.user(Some(UserInfo::new(user, &["system:masters"])));
        let name = user.replace(':', "-");
        let created = api.config_map(&name).await;
        assert_eq!(names(&created), [manager], "{user}");
    }
}
