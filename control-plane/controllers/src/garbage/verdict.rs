//! What becomes of an object, given itself and its owners as the API server has them now.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

use super::graph::{FOREGROUND, ORPHAN};

/// How an owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It exists, or nobody can tell.
    Solid,
    /// It does not exist, or another object has its name.
    Absent,
    /// It is being deleted and waits for this object, which blocks it.
    Waiting,
}

/// What is known of the dependents.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dependents {
    pub(super) any: bool,
    /// Some block the object's foreground deletion.
    pub(super) blocking: bool,
    /// Some wait for their own dependents: perhaps a circle.
    pub(super) waiting: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Keep,
    /// Looks at the dependents, for which it waits.
    WaitForDependents,
    /// Removes this finalizer: what it stood for is done.
    Finalize(&'static str),
    /// Has the dependents forget it, then removes the finalizer.
    Orphan,
    /// Forgets these owners, by uid: others remain.
    DropOwners(Vec<String>),
    Delete {
        policy: PropagationPolicy,
        /// Stop blocking the owners first, or a circle would wait for itself.
        unblock: bool,
    },
}

pub(super) fn verdict(
    meta: &ObjectMeta,
    owners: &[(&OwnerReference, Owner)],
    dependents: Dependents,
) -> Verdict {
    let finalizer = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
    if meta.deletion_timestamp.is_some() {
        return match (finalizer(ORPHAN), finalizer(FOREGROUND)) {
            (true, _) => Verdict::Orphan,
            (false, true) if dependents.blocking => Verdict::WaitForDependents,
            (false, true) => Verdict::Finalize(FOREGROUND),
            (false, false) => Verdict::Keep,
        };
    }
    let is = |state: Owner| owners.iter().any(|(_, owner)| *owner == state);
    if owners.is_empty() {
        return Verdict::Keep;
    }
    if is(Owner::Solid) {
        let gone = owners.iter().filter(|(_, owner)| *owner != Owner::Solid);
        let gone: Vec<_> = gone.map(|(owner, _)| owner.uid.clone()).collect();
        return if gone.is_empty() {
            Verdict::Keep
        } else {
            Verdict::DropOwners(gone)
        };
    }
    if is(Owner::Waiting) && dependents.any {
        return Verdict::Delete {
            policy: PropagationPolicy::Foreground,
            unblock: dependents.waiting,
        };
    }
    let policy = if finalizer(ORPHAN) {
        PropagationPolicy::Orphan
    } else if finalizer(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Verdict::Delete {
        policy,
        unblock: false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(deleted: bool, finalizers: &[&str]) -> ObjectMeta {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({"deletionTimestamp": deleted, "finalizers": finalizers}))
            .unwrap()
    }

    fn judged(meta: &ObjectMeta, owners: &[Owner], dependents: Dependents) -> Verdict {
        let references: Vec<_> = (0..owners.len())
            .map(|n| OwnerReference {
                uid: n.to_string(),
                ..OwnerReference::default()
            })
            .collect();
        let owners: Vec<_> = references.iter().zip(owners.iter().copied()).collect();
        verdict(meta, &owners, dependents)
    }

    #[test]
    fn owners_decide() {
        use Owner::{Absent, Solid, Waiting};
        let none = Dependents::default();
        let some = Dependents { any: true, ..none };
        let circle = Dependents {
            any: true,
            waiting: true,
            ..none
        };
        let delete = |policy, unblock| Verdict::Delete { policy, unblock };
        let background = delete(PropagationPolicy::Background, false);
        let table = [
            (vec![], none, Verdict::Keep),
            (vec![Solid], some, Verdict::Keep),
            (vec![Absent], some, background.clone()),
            (vec![Absent, Absent], none, background.clone()),
            (
                vec![Solid, Absent],
                none,
                Verdict::DropOwners(vec!["1".into()]),
            ),
            (
                vec![Waiting, Solid],
                some,
                Verdict::DropOwners(vec!["0".into()]),
            ),
            (vec![Waiting], none, background),
            (
                vec![Waiting],
                some,
                delete(PropagationPolicy::Foreground, false),
            ),
            (
                vec![Waiting, Absent],
                circle,
                delete(PropagationPolicy::Foreground, true),
            ),
        ];
        for (owners, dependents, expected) in table {
            assert_eq!(
                judged(&meta(false, &[]), &owners, dependents),
                expected,
                "{owners:?}"
            );
        }
    }

    #[test]
    fn what_is_being_deleted_waits_or_ends() {
        let none = Dependents::default();
        let blocked = Dependents {
            any: true,
            blocking: true,
            waiting: false,
        };
        let owners = [Owner::Absent];
        let says =
            |finalizers: &[&str], dependents| judged(&meta(true, finalizers), &owners, dependents);
        assert_eq!(says(&[], none), Verdict::Keep);
        assert_eq!(says(&["other"], blocked), Verdict::Keep);
        assert_eq!(says(&[FOREGROUND], blocked), Verdict::WaitForDependents);
        assert_eq!(says(&[FOREGROUND], none), Verdict::Finalize(FOREGROUND));
        assert_eq!(says(&[ORPHAN], blocked), Verdict::Orphan);
    }

    #[test]
    fn its_own_finalizers_choose_how_it_goes() {
        let says = |finalizer: &str| {
            judged(
                &meta(false, &[finalizer]),
                &[Owner::Absent],
                Dependents::default(),
            )
        };
        let delete = |policy| Verdict::Delete {
            policy,
            unblock: false,
        };
        assert_eq!(says(ORPHAN), delete(PropagationPolicy::Orphan));
        assert_eq!(says(FOREGROUND), delete(PropagationPolicy::Foreground));
    }
}
