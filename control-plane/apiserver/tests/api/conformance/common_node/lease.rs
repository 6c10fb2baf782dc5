//! test/e2e/common/node/lease.go: Lease.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn spec(holder: &str, seconds: i64, acquired: u32, renewed: u32, transitions: i64) -> Value {
    json!({
        "holderIdentity": holder, "leaseDurationSeconds": seconds,
        "acquireTime": format!("2026-01-01T00:00:{acquired:02}.000000Z"),
        "renewTime": format!("2026-01-01T00:00:{renewed:02}.000000Z"),
        "leaseTransitions": transitions,
    })
}

/// Must: a Lease is created.
/// Must: it is read, with the spec that it was given.
/// Must: it is updated.
/// Must: it is read, with the spec of the update.
/// Must: it is patched.
/// Must: it is read, with the spec of the patch.
/// Must: a second one with labels is created.
/// Must: a list succeeds.
/// Must: the list has both.
/// Must: deletecollection by the labels succeeds.
/// Must: it deletes that one only.
/// Must: a list has the other and nothing else.
/// Must: that one is deleted.
/// Must: a read says that there is none.
#[tokio::test]
async fn lease_lease_api_should_be_available() {
    let api = Api::new().await;
    let leases = Objects::namespaced(&api, "/apis/coordination.k8s.io/v1", "leases");
    let first = spec("holder", 30, 2, 5, 0);
    let created = leases
        .create(&json!({"metadata": {"name": "lease"}, "spec": first}))
        .await;
    let mut read = leases.get("lease").await;
    assert_eq!(read["spec"], first);
    assert_eq!(read, created);

    read["spec"] = spec("holder2", 30, 20, 50, 1);
    let updated = leases.update(&read).await;
    assert_eq!(updated["spec"], read["spec"]);
    let patch = json!({"spec": spec("holder3", 60, 50, 59, 2)});
    let patched = leases.patch("lease", "strategic-merge", &patch).await;
    assert_eq!(patched["spec"], patch["spec"]);

    let labels = json!({"deletecollection": "true"});
    let second = json!({"metadata": {"name": "lease2", "labels": labels}, "spec": first});
    leases.create(&second).await;
    assert_eq!(leases.list("").await.len(), 2);
    leases.delete_all("deletecollection=true").await;
    assert_eq!(leases.list("").await, [patched]);
    leases.delete("lease").await;
    leases.gone("lease").await;
    leases.list_everywhere("").await;
}
