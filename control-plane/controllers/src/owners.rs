//! Controller references: which controller an object answers to, and how one is adopted or
//! released.

use coracle_apimachinery::meta;
pub(crate) use coracle_apimachinery::meta::controller_of;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::{Value, json};

/// Whether the object is managed by the owner of this uid.
pub(crate) fn controlled_by(meta: &ObjectMeta, uid: Option<&str>) -> bool {
    uid.is_some() && controller_of(meta).map(|o| o.uid.as_str()) == uid
}

/// A reference that makes `owner` the controller, and lets foreground deletion of the owner
/// wait for the object.
pub(crate) fn controller_reference<K>(owner: &K) -> OwnerReference
where
    K: Resource<DynamicType = ()> + k8s_openapi::Resource,
{
    meta::controller_reference::<K>(owner.meta())
}

/// The strategic patch by which `owner` adopts the object with this uid.
pub(crate) fn adoption<K>(owner: &K, uid: Option<&str>) -> Value
where
    K: Resource<DynamicType = ()> + k8s_openapi::Resource,
{
    json!({"metadata": {"uid": uid, "ownerReferences": [controller_reference(owner)]}})
}

/// The strategic patch by which `owner` lets go of the object with this uid.
pub(crate) fn release<K: Resource<DynamicType = ()>>(owner: &K, uid: Option<&str>) -> Value {
    let owner = json!({"$patch": "delete", "uid": owner.meta().uid});
    json!({"metadata": {"uid": uid, "ownerReferences": [owner]}})
}

/// What to do with an object that a selector may or may not choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is ours and stays so.
    Keep,
    /// Nobody manages it, and it is chosen.
    Adopt,
    /// It is ours, and chosen no more.
    Release,
    /// It is none of our business.
    Ignore,
}

/// Decides over one object for the owner with metadata `owner`.
pub(crate) fn claim(owner: &ObjectMeta, object: &ObjectMeta, chosen: bool) -> Claim {
    let owner_ends = owner.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Ignore,
        Some(_) if chosen => Claim::Keep,
        Some(_) if owner_ends => Claim::Ignore,
        Some(_) => Claim::Release,
        None if chosen && !owner_ends && object.deletion_timestamp.is_none() => Claim::Adopt,
        None => Claim::Ignore,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        let meta = |value: Value| serde_json::from_value::<ObjectMeta>(value).unwrap();
        let owner = meta(json!({"uid": "o"}));
        let ending = meta(json!({"uid": "o", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let of = |uid: &str| {
            meta(
                json!({"ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n",
                "uid": uid, "controller": true}]}),
            )
        };
        let orphan = meta(json!({}));
        let dying = meta(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let table = [
            (&owner, of("o"), true, Claim::Keep),
            (&owner, of("o"), false, Claim::Release),
            (&ending, of("o"), false, Claim::Ignore),
            (&owner, of("x"), true, Claim::Ignore),
            (&owner, orphan.clone(), true, Claim::Adopt),
            (&owner, orphan.clone(), false, Claim::Ignore),
            (&ending, orphan, true, Claim::Ignore),
            (&owner, dying, true, Claim::Ignore),
        ];
        for (n, (owner, object, chosen, expected)) in table.into_iter().enumerate() {
            assert_eq!(claim(owner, &object, chosen), expected, "row {n}");
        }
    }
}
