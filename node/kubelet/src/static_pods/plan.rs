//! What is to be done with static Pods and with their mirrors; pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::pod;

/// Namespace and name.
pub(super) type Name = (String, String);

/// A static Pod that has a worker.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Running {
    pub(super) pod: Arc<Pod>,
    /// It was told to end; its status was that.
    pub(super) ending: Option<PodStatus>,
}

/// What is to be done on the node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Start(Arc<Pod>),
    End(Name),
}

/// What brings the Pods that have workers to those that are wanted. A Pod of the same name starts
/// when the one before has ended.
pub(super) fn steps(
    wanted: &BTreeMap<Name, Arc<Pod>>,
    running: &BTreeMap<Name, Running>,
) -> Vec<Step> {
    let is_wanted = |(name, of): &(&Name, &Running)| {
        let same = |pod: &Arc<Pod>| pod::uid(pod) == pod::uid(&of.pod);
        of.ending.is_some() || wanted.get(*name).is_some_and(same)
    };
    let ends = running.iter().filter(|of| !is_wanted(of));
    let ends = ends.map(|(name, _)| Step::End(name.clone()));
    let starts = wanted
        .iter()
        .filter(|(name, _)| !running.contains_key(*name));
    ends.chain(starts.map(|(_, pod)| Step::Start(pod.clone())))
        .collect()
}

/// A mirror as the API has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mirror {
    pub(super) uid: String,
    /// The UID of the static Pod that it shows.
    pub(super) hash: String,
    pub(super) deleted: bool,
    pub(super) status: PodStatus,
}

/// What is to be done in the API.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    Create(Arc<Pod>),
    Remove { name: Name, uid: String },
}

/// What the node has, for its mirrors.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) running: BTreeMap<Name, Running>,
    pub(super) wanted: BTreeMap<Name, Arc<Pod>>,
}

/// What brings the mirrors to the static Pods. While a Pod ends its mirror stays, and so it does
/// where the node stops and will run it again.
pub(super) fn writes(shown: &Shown, mirrors: &BTreeMap<Name, Mirror>) -> Vec<Write> {
    let mut writes = Vec::new();
    for (name, mirror) in mirrors {
        let of = shown.running.get(name);
        let is_shown = match of {
            Some(of) => !mirror.deleted && pod::uid(&of.pod) == mirror.hash,
            None => !mirror.deleted && shown.wanted.contains_key(name),
        };
        if !is_shown {
            writes.push(Write::Remove {
                name: name.clone(),
                uid: mirror.uid.clone(),
            });
        }
    }
    let lacks = shown
        .running
        .iter()
        .filter(|(name, of)| of.ending.is_none() && !mirrors.contains_key(*name));
    writes.extend(lacks.map(|(_, of)| Write::Create(of.pod.clone())));
    writes
}

/// The mirrors that show what runs, by the UID of the static Pod.
pub(super) fn shown_by<'a>(
    shown: &'a Shown,
    mirrors: &'a BTreeMap<Name, Mirror>,
) -> impl Iterator<Item = (&'a str, &'a Mirror)> {
    shown.running.iter().filter_map(move |(name, of)| {
        let mirror = mirrors.get(name)?;
        let uid = pod::uid(&of.pod);
        (!mirror.deleted && mirror.hash == uid).then_some((uid, mirror))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(name: &str) -> Name {
        ("ns".to_owned(), name.to_owned())
    }

    fn pod(of: &str, uid: &str) -> Arc<Pod> {
        let metadata = json!({"name": of, "namespace": "ns", "uid": uid});
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    fn wanted(pods: &[(&str, &str)]) -> BTreeMap<Name, Arc<Pod>> {
        pods.iter()
            .map(|(of, uid)| (name(of), pod(of, uid)))
            .collect()
    }

    fn running(pods: &[(&str, &str, bool)]) -> BTreeMap<Name, Running> {
        let running = |(of, uid, ending): &(&str, &str, bool)| {
            let ending = ending.then(PodStatus::default);
            (
                name(of),
                Running {
                    pod: pod(of, uid),
                    ending,
                },
            )
        };
        pods.iter().map(running).collect()
    }

    #[test]
    fn pods_follow_their_files() {
        let start = |of: &str, uid: &str| Step::Start(pod(of, uid));
        let end = |of: &str| Step::End(name(of));
        for (files, have, expected) in [
            (&[][..], &[][..], vec![]),
            (&[("a", "1")], &[], vec![start("a", "1")]),
            (&[("a", "1")], &[("a", "1", false)], vec![]),
            (&[], &[("a", "1", false)], vec![end("a")]),
            (&[], &[("a", "1", true)], vec![]),
            // Another manifest is another Pod, which waits for the end of the first.
            (&[("a", "2")], &[("a", "1", false)], vec![end("a")]),
            (&[("a", "2")], &[("a", "1", true)], vec![]),
            // So does the same one, where its file was away.
            (&[("a", "1")], &[("a", "1", true)], vec![]),
            (
                &[("a", "1"), ("b", "2")],
                &[("c", "3", false)],
                vec![end("c"), start("a", "1"), start("b", "2")],
            ),
        ] {
            assert_eq!(
                steps(&wanted(files), &running(have)),
                expected,
                "{files:?} {have:?}"
            );
        }
    }

    #[test]
    fn mirrors_follow_pods() {
        let create = |of: &str, uid: &str| Write::Create(pod(of, uid));
        let remove = |of: &str| Write::Remove {
            name: name(of),
            uid: format!("m-{of}"),
        };
        for (files, have, mirrors, expected, reported) in [
            (
                &[("a", "1")][..],
                &[("a", "1", false)][..],
                &[][..],
                vec![create("a", "1")],
                0,
            ),
            (
                &[("a", "1")],
                &[("a", "1", false)],
                &[("a", "1", false)],
                vec![],
                1,
            ),
            // Deleted by somebody, or of an earlier manifest: removed, and then made anew.
            (
                &[("a", "1")],
                &[("a", "1", false)],
                &[("a", "1", true)],
                vec![remove("a")],
                0,
            ),
            (
                &[("a", "2")],
                &[("a", "2", false)],
                &[("a", "1", false)],
                vec![remove("a")],
                0,
            ),
            // While it ends, it is shown.
            (&[], &[("a", "1", true)], &[("a", "1", false)], vec![], 1),
            (&[], &[("a", "1", true)], &[], vec![], 0),
            (&[], &[], &[("a", "1", false)], vec![remove("a")], 0),
            // The node stops.
            (&[("a", "1")], &[], &[("a", "1", false)], vec![], 0),
        ] {
            let shown = Shown {
                running: running(have),
                wanted: wanted(files),
            };
            let mirrors = mirrors
                .iter()
                .map(|(of, hash, deleted): &(&str, &str, bool)| {
                    let mirror = Mirror {
                        uid: format!("m-{of}"),
                        hash: (*hash).to_owned(),
                        deleted: *deleted,
                        status: PodStatus::default(),
                    };
                    (name(of), mirror)
                });
            let mirrors = mirrors.collect();
            assert_eq!(
                writes(&shown, &mirrors),
                expected,
                "{files:?} {have:?} {mirrors:?}"
            );
            assert_eq!(shown_by(&shown, &mirrors).count(), reported);
        }
    }
}
