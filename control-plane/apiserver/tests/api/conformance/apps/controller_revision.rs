//! test/e2e/apps/controller_revision.go. Revisions of a DaemonSet's template are made as its
//! controller makes them: by the template, owned by the set, with the next number.

use serde_json::{Value, json};

use crate::conformance::objects::{Objects, name};
use crate::harness::Api;

const LABEL: &str = "daemonset-name=e2e-daemon-set";

/// A DaemonSet whose Pods have a label of their own.
fn daemon_set() -> Value {
    let labels = json!({"daemonset-name": "e2e-daemon-set"});
    let pod = json!({"containers": [{"name": "app", "image": "app:v1"}]});
    json!({
        "metadata": {"name": "e2e-daemon-set", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

/// The revision of a set's template.
fn revision(set: &Value, hash: &str, number: i64) -> Value {
    let mut labels = set["spec"]["template"]["metadata"]["labels"].clone();
    labels["controller-revision-hash"] = json!(hash);
    json!({
        "metadata": {
            "name": format!("{}-{hash}", name(set)),
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "DaemonSet", "name": name(set),
                "uid": set["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "data": {"spec": {"template": set["spec"]["template"]}},
        "revision": number,
    })
}

/// Must: a DaemonSet is created.
/// Must: a list of all namespaces by its label has its one revision.
/// Must: a patch gives the revision a label, which is found.
/// Must: another revision of the set is created.
/// Must: a list by the label has the two.
/// Must: the first is deleted.
/// Must: the list has one.
/// Must: an update gives that one a label.
/// Must: the label is found.
/// Must: the set is patched, and has another revision.
/// Must: the list has two.
/// Must: deletecollection by the label of the update deletes the one.
/// Must: the list has the other, whose number is 3.
#[tokio::test]
async fn controllerrevision_should_manage_the_lifecycle_of_a_controllerrevision() {
    let api = Api::new().await;
    let sets = Objects::namespaced(&api, "/apis/apps/v1", "daemonsets");
    let revisions = Objects::namespaced(&api, "/apis/apps/v1", "controllerrevisions");
    let set = sets.create(&daemon_set()).await;
    assert_eq!(
        sets.list_everywhere(LABEL).await,
        std::slice::from_ref(&set)
    );

    let first = revisions.create(&revision(&set, "6b9", 1)).await;
    assert_eq!(
        revisions.list_everywhere(LABEL).await,
        std::slice::from_ref(&first)
    );
    let owner = &first["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], set["metadata"]["uid"]);
    let patched = revisions.label(name(&first), name(&first), "patched").await;
    // What a revision holds is kept as it came.
    assert_eq!(
        patched["data"],
        json!({"spec": {"template": set["spec"]["template"]}})
    );

    let second = revisions.create(&revision(&set, "7c5", 2)).await;
    assert_eq!(revisions.list(LABEL).await.len(), 2);
    revisions.delete(name(&first)).await;
    revisions.gone(name(&first)).await;
    assert_eq!(revisions.list(LABEL).await, std::slice::from_ref(&second));
    revisions
        .relabel(name(&second), name(&second), "updated")
        .await;

    let grace = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
    let set = sets.patch(name(&set), "strategic-merge", &grace).await;
    assert_eq!(set["metadata"]["generation"], 2);
    let third = revisions.create(&revision(&set, "8d4", 3)).await;
    assert_eq!(revisions.list(LABEL).await.len(), 2);

    revisions
        .delete_all(&format!("{}=updated", name(&second)))
        .await;
    assert_eq!(revisions.list(LABEL).await, std::slice::from_ref(&third));
    assert_eq!(revisions.get(name(&third)).await["revision"], 3);
}
