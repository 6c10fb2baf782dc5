//! Deletion: at once, with grace, with finalizers; collections and namespaces.

use serde_json::{Value, json};

use crate::grace::running_pod;
use crate::harness::{Api, CONFIG_MAPS, PODS, deployment, pod};

#[tokio::test]
async fn an_object_without_finalizers_goes_at_once() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let status = api.delete(&path).await.ok(200);
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"]["name"], "a");
    assert_eq!(status["details"]["uid"], object["metadata"]["uid"]);
    api.delete(&path).await.fails(404, "NotFound");
}

#[tokio::test]
async fn some_kinds_answer_with_the_object_that_is_gone() {
    let api = Api::new().await;
    let named = json!({"metadata": {"name": "a"}});
    let class = json!({"metadata": {"name": "a"}, "provisioner": "x.io/y"});
    for (collection, object) in [
        (PODS, pod("a")),
        ("/api/v1/namespaces/default/serviceaccounts", named),
        ("/apis/storage.k8s.io/v1/storageclasses", class),
    ] {
        let created = api.post(collection, &object).await.ok(201);
        let path = format!("{collection}/a");
        let deleted = api.delete(&path).await.ok(200);
        assert_eq!(deleted["kind"], created["kind"]);
        assert_eq!(deleted["metadata"]["uid"], created["metadata"]["uid"]);
        api.get(&path).await.fails(404, "NotFound");
    }
}

#[tokio::test]
async fn what_waits_is_shown_as_it_would_be_and_accepted_where_it_was_asked_for() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["x.io/a"]}});
    let created = api.post(CONFIG_MAPS, &body).await.ok(201);
    let path = format!("{CONFIG_MAPS}/a");
    let tried = api.delete(&format!("{path}?dryRun=All")).await.ok(200);
    assert!(tried["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(api.get(&path).await.ok(200), created);
    let cascading = format!("{path}?orphanDependents=false");
    api.delete(&cascading).await.ok(202);
}

#[tokio::test]
async fn who_sends_an_object_to_a_deletion_deletes_nothing() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    for path in [path.as_str(), CONFIG_MAPS] {
        api.delete_with(path, &object)
            .await
            .fails(400, "BadRequest");
    }
    // Old clients take the group of the kind.
    for options in [
        json!({"kind": "DeleteOptions", "apiVersion": "apps/v1"}),
        json!({"kind": null, "apiVersion": null, "gracePeriodSeconds": null}),
    ] {
        api.delete_with(&path, &options).await.ok(200);
        api.config_map("a").await;
    }
}

#[tokio::test]
async fn preconditions() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    for wrong in [json!({"uid": "x"}), json!({"resourceVersion": "1"})] {
        let message = api
            .delete_with(&path, &json!({"preconditions": wrong}))
            .await
            .fails(409, "Conflict");
        assert!(message.contains("Precondition failed"), "{message}");
    }
    for wrong in ["uid=x", "resourceVersion=1"] {
        let path = format!("{path}?{wrong}");
        api.delete(&path).await.fails(409, "Conflict");
    }
    let meta = &object["metadata"];
    let right = json!({"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]});
    let options = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "DeleteOptions", "preconditions": right,
    });
    api.delete_with(&path, &options).await.ok(200);
}

#[tokio::test]
async fn an_object_with_finalizers_waits_for_them() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["x.io/a", "x.io/b"]}});
    api.post(CONFIG_MAPS, &body).await.ok(201);
    let path = format!("{CONFIG_MAPS}/a");
    let deleted = api.delete(&path).await.ok(200);
    assert!(deleted["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(api.delete(&path).await.ok(200), deleted);
    let add = json!({"metadata": {"finalizers": ["x.io/a", "x.io/b", "x.io/c"]}});
    let message = api.patch(&path, "merge", &add).await.fails(422, "Invalid");
    assert!(
        message.contains("no new finalizers can be added"),
        "{message}"
    );
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    api.patch(&path, "merge", &finalizers(json!(["x.io/b"])))
        .await
        .ok(200);
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(watch.line().await, "ADDED a");
    api.patch(&path, "merge", &finalizers(json!(null)))
        .await
        .ok(200);
    assert_eq!(watch.line().await, "DELETED a");
    api.get(&path).await.fails(404, "NotFound");
}

#[tokio::test]
async fn propagation_sets_the_collectors_finalizers() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let path = format!("{deployments}/web");
    let table = [
        (
            json!({"propagationPolicy": "Foreground"}),
            Some("foregroundDeletion"),
        ),
        (json!({"propagationPolicy": "Orphan"}), Some("orphan")),
        (json!({"propagationPolicy": "Background"}), None),
        (json!({"orphanDependents": true}), Some("orphan")),
        (json!({"orphanDependents": false}), None),
        (json!({}), None),
    ];
    for (options, finalizer) in table {
        let query = options.as_object().unwrap().iter();
        let query: Vec<String> = query
            .map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"')))
            .collect();
        for in_query in [false, true] {
            api.post(deployments, &deployment("web")).await.ok(201);
            let deleted = if in_query {
                api.delete(&format!("{path}?{}", query.join("&"))).await
            } else {
                api.delete_with(&path, &options).await
            };
            let deleted = deleted.ok(200);
            if let Some(finalizer) = finalizer {
                assert_eq!(deleted["metadata"]["finalizers"], json!([finalizer]));
                assert_eq!(deleted["metadata"]["generation"], 2);
                assert_eq!(deleted["metadata"]["deletionGracePeriodSeconds"], 0);
                // Changing one's mind.
                api.delete_with(&path, &json!({"propagationPolicy": "Background"}))
                    .await
                    .ok(200);
            }
            api.get(&path).await.fails(404, "NotFound");
        }
    }
}

#[tokio::test]
async fn one_policy_takes_the_place_of_another_and_leaves_other_finalizers() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["x.io/a"]}});
    api.post(CONFIG_MAPS, &body).await.ok(201);
    let path = format!("{CONFIG_MAPS}/a");
    let table = [
        ("Foreground", json!(["x.io/a", "foregroundDeletion"])),
        ("Orphan", json!(["x.io/a", "orphan"])),
        ("Orphan", json!(["x.io/a", "orphan"])),
        ("Background", json!(["x.io/a"])),
    ];
    for (policy, finalizers) in table {
        let options = json!({"propagationPolicy": policy});
        let deleted = api.delete_with(&path, &options).await.ok(200);
        assert_eq!(deleted["metadata"]["finalizers"], finalizers, "{policy}");
    }
}

#[tokio::test]
async fn dependents_of_some_kinds_stay_unless_something_else_is_said() {
    let api = Api::new().await;
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:v1"}]},
    });
    let job = json!({"metadata": {"name": "a"}, "spec": {"template": template}});
    let mut controller = job.clone();
    controller["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    for (collection, body) in [
        ("/apis/batch/v1/namespaces/default/jobs", &job),
        (
            "/api/v1/namespaces/default/replicationcontrollers",
            &controller,
        ),
    ] {
        let path = format!("{collection}/a");
        api.post(collection, body).await.ok(201);
        let deleted = api.delete(&path).await.ok(200);
        assert_eq!(
            deleted["metadata"]["finalizers"],
            json!(["orphan"]),
            "{collection}"
        );
        let foreground = json!({"propagationPolicy": "Foreground"});
        api.delete_with(&path, &foreground).await.ok(200);
        // What was decided stands.
        let again = api.delete(&path).await.ok(200);
        assert_eq!(
            again["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
        let background = json!({"propagationPolicy": "Background"});
        api.delete_with(&path, &background).await.ok(200);
        api.get(&path).await.fails(404, "NotFound");
    }
}

#[tokio::test]
async fn nobody_waits_for_what_an_event_owns() {
    let api = Api::new().await;
    let events = "/api/v1/namespaces/default/events";
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    let event = json!({"metadata": {"name": "e"}, "involvedObject": about, "reason": "R"});
    for collection in [events, "/apis/events.k8s.io/v1/namespaces/default/events"] {
        for policy in ["Foreground", "Orphan"] {
            api.post(events, &event).await.ok(201);
            let path = format!("{collection}/e?propagationPolicy={policy}");
            api.delete(&path).await.ok(200);
            let path = format!("{events}/e");
            api.get(&path).await.fails(404, "NotFound");
        }
    }
}

/// Names in a list.
fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|o| o["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn collections() {
    // The query, the options, what is deleted and what is left.
    let table: [(&str, Value, &[&str], &[&str]); 7] = [
        (
            "labelSelector=name%20in%20(a,b)",
            json!({}),
            &["a", "b"],
            &["c"],
        ),
        (
            "fieldSelector=metadata.name!%3Db",
            json!({}),
            &["a", "c"],
            &["b"],
        ),
        ("labelSelector=name%3Dx", json!({}), &[], &["a", "b", "c"]),
        ("", json!({}), &["a", "b", "c"], &[]),
        ("limit=2", json!({}), &["a", "b"], &["c"]),
        (
            "",
            json!({"dryRun": ["All"]}),
            &["a", "b", "c"],
            &["a", "b", "c"],
        ),
        (
            "",
            json!({"propagationPolicy": "Orphan"}),
            &["a", "b", "c"],
            &["a", "b", "c"],
        ),
    ];
    for (query, options, deleted, left) in table {
        let api = Api::new().await;
        for name in ["a", "b", "c"] {
            api.config_map(name).await;
        }
        let path = format!("{CONFIG_MAPS}?{query}");
        let answer = api.delete_with(&path, &options).await.ok(200);
        assert_eq!(answer["kind"], "ConfigMapList");
        assert_eq!(names(&answer), deleted, "{query} {options}");
        let rest = api.get(CONFIG_MAPS).await.ok(200);
        assert_eq!(names(&rest), left, "{query} {options}");
        let orphaning = options.get("propagationPolicy").is_some();
        for item in rest["items"].as_array().unwrap() {
            let going = item["metadata"].get("deletionTimestamp").is_some();
            assert_eq!(going, orphaning);
        }
    }
}

#[tokio::test]
async fn a_collection_goes_as_far_as_preconditions_let_it() {
    let api = Api::new().await;
    let a = api.config_map("a").await;
    api.config_map("b").await;
    let options = json!({"preconditions": {"uid": a["metadata"]["uid"]}});
    api.delete_with(CONFIG_MAPS, &options)
        .await
        .fails(409, "Conflict");
    assert_eq!(names(&api.get(CONFIG_MAPS).await.ok(200)), ["b"]);
    for wrong in ["labelSelector=a%20b", "fieldSelector=data%3Dx"] {
        let path = format!("{CONFIG_MAPS}?{wrong}");
        api.delete(&path).await.fails(400, "BadRequest");
    }
    let path = format!("{CONFIG_MAPS}?resourceVersionMatch=Exact");
    api.delete(&path).await.fails(422, "Invalid");
    assert_eq!(names(&api.get(CONFIG_MAPS).await.ok(200)), ["b"]);
}

#[tokio::test]
async fn a_collection_of_pods_has_the_grace_that_was_asked_for() {
    let api = Api::new().await;
    running_pod(&api, "p").await;
    running_pod(&api, "q").await;
    let grace = |list: &Value| {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|o| o["metadata"]["deletionGracePeriodSeconds"].clone())
            .collect::<Vec<_>>()
    };
    for (seconds, want) in [(20, 20), (25, 20), (5, 5)] {
        let options = json!({"gracePeriodSeconds": seconds});
        let before = api.get(PODS).await.ok(200);
        let deleted = api.delete_with(PODS, &options).await.ok(200);
        assert_eq!(deleted["items"], before["items"], "as they were");
        let after = api.get(PODS).await.ok(200);
        assert_eq!(grace(&after), [json!(want), json!(want)]);
    }
    let now = json!({"gracePeriodSeconds": 0});
    api.delete_with(PODS, &now).await.ok(200);
    assert!(names(&api.get(PODS).await.ok(200)).is_empty());
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let api = Api::new().await;
    let path = "/api/v1/namespaces/gone";
    let held = json!({"metadata": {"name": "gone", "finalizers": ["example.com/f"]}});
    let created = api.post("/api/v1/namespaces", &held).await.ok(201);
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["status"]["phase"], "Active");
    let body = json!({"metadata": {"name": "a"}});
    api.post(&format!("{path}/configmaps"), &body).await.ok(201);
    let deleted = api.delete(path).await.ok(200);
    assert_eq!(deleted["status"]["phase"], "Terminating");
    let refused = api
        .post(
            &format!("{path}/configmaps"),
            &json!({"metadata": {"name": "b"}}),
        )
        .await;
    let message = refused.fails(403, "Forbidden");
    assert!(
        message.contains("because it is being terminated"),
        "{message}"
    );
    assert_eq!(
        refused.json()["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    // What is there can still be changed and deleted.
    api.delete(&format!("{path}/configmaps/a")).await.ok(200);
    let mut finalized = deleted.clone();
    finalized["spec"]["finalizers"] = json!([]);
    finalized["metadata"]["labels"]["a"] = json!("b");
    finalized["status"]["phase"] = json!("Active");
    let finalize = format!("{path}/finalize");
    let mut waiting = api.put(&finalize, &finalized).await.ok(200);
    assert_eq!(waiting["metadata"]["labels"]["a"], "b");
    assert_eq!(waiting["status"], deleted["status"]);
    assert_eq!(api.get(path).await.ok(200), waiting);
    // Finalizers of both kinds may go by it.
    waiting["metadata"]["finalizers"] = json!([]);
    api.put(&finalize, &waiting).await.ok(200);
    api.get(path).await.fails(404, "NotFound");
    // Who means all namespaces must name them.
    let all = api.delete("/api/v1/namespaces").await;
    all.fails(405, "MethodNotAllowed");
    let message = api
        .delete("/api/v1/namespaces/default")
        .await
        .fails(403, "Forbidden");
    assert!(
        message.contains("this namespace may not be deleted"),
        "{message}"
    );
}
