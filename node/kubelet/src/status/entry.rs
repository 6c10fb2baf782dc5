//! What is known of one Pod's status on its way to the API: what that has, and what it is to have.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::patch::{changed_beside, difference, owned_fields};
use crate::pod;

/// How far a status has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The API has it, or there is nothing yet that would have it.
    Settled,
    Queued,
    /// On its way; whether there is another since.
    Sending {
        again: bool,
    },
    /// It could not be sent, and is queued again then.
    Waiting {
        until: Instant,
    },
}

pub(super) struct Entry {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The UID of the object that has the status; none while a static Pod has no mirror.
    pub(super) object: Option<String>,
    pub(super) is_static: bool,
    /// What the API has acknowledged, or was seen to have.
    pub(super) base: Map<String, Value>,
    /// What it had then, which it may put in its own way; nothing if that is not known.
    pub(super) shown: Map<String, Value>,
    /// The object's revision then, as far as it is known.
    pub(super) revision: u64,
    pub(super) wanted: PodStatus,
    pub(super) step: Step,
    /// How long it waits should it fail again; none if it has not failed.
    pub(super) retry: Option<Duration>,
}

/// What is on its way.
pub(super) struct Sent {
    /// The UID of the object that is to have it.
    pub(super) object: String,
    pub(super) patch: Map<String, Value>,
    pub(super) wanted: Map<String, Value>,
    /// What the API had when it was sent, and the revision of that.
    pub(super) had: Map<String, Value>,
    pub(super) revision: u64,
}

impl Entry {
    /// Notes that the API has this; true if it is something else than it was told, which others have
    /// said.
    pub(super) fn see(&mut self, pod: &Pod) -> bool {
        let revision = revision(pod);
        let own = self.object.as_deref() == Some(pod::uid(pod));
        // What has ended stays as it is.
        if !own || revision <= self.revision || pod::is_terminal(pod) {
            return false;
        }
        self.revision = revision;
        let has = owned_fields(pod::status(pod));
        let news = has != self.shown && difference(&has, &self.base).is_some();
        if news {
            self.base = has.clone();
        }
        self.shown = has;
        news
    }

    /// Notes what the API has answered, if it has taken what was sent; true if it has something else by
    /// now, which others have said.
    pub(super) fn learn(&mut self, sent: Sent, answer: Option<&Pod>) -> bool {
        let Some(pod) = answer else {
            // It is not tried again, unless the object was changed since.
            if self.revision == sent.revision {
                self.base = sent.wanted;
                self.shown.clear();
                return false;
            }
            return true;
        };
        let revision = revision(pod);
        if revision < self.revision {
            // Something newer was seen.
            return false;
        }
        let has = owned_fields(pod::status(pod));
        // What has ended stays as it is.
        let others =
            !pod::is_terminal(pod) && changed_beside(&sent.patch, &sent.had, &has, &sent.wanted);
        self.base = match others {
            true => has.clone(),
            false => sent.wanted,
        };
        (self.shown, self.revision) = (has, revision);
        others
    }
}

/// The revision of an object; 0 if it does not tell.
pub(super) fn revision(pod: &Pod) -> u64 {
    let version = pod.metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(revision: &str, phase: &str) -> Pod {
        let metadata = json!({"uid": "u", "resourceVersion": revision});
        let pod = json!({"metadata": metadata, "status": {"phase": phase}});
        serde_json::from_value(pod).unwrap()
    }

    fn fields(phase: &str) -> Map<String, Value> {
        owned_fields(pod::status(&pod("", phase)))
    }

    #[test]
    fn what_is_refused_is_tried_again_where_the_object_has_changed() {
        // What is seen while it is sent, whether it is sent again, and what the API is taken to have.
        for (seen, again, base) in [
            (None, false, "Running"),
            (Some(pod("2", "Unknown")), true, "Unknown"),
            (Some(pod("2", "Pending")), true, "Pending"),
        ] {
            let mut entry = Entry {
                namespace: "ns".to_owned(),
                name: "web".to_owned(),
                object: Some("u".to_owned()),
                is_static: false,
                base: fields("Pending"),
                shown: fields("Pending"),
                revision: 1,
                wanted: PodStatus::default(),
                step: Step::Settled,
                retry: None,
            };
            let sent = Sent {
                object: "u".to_owned(),
                patch: fields("Running"),
                wanted: fields("Running"),
                had: entry.shown.clone(),
                revision: entry.revision,
            };
            if let Some(seen) = &seen {
                entry.see(seen);
            }
            assert_eq!(entry.learn(sent, None), again, "{base}");
            assert_eq!(entry.base, fields(base));
            // Whatever others change, it is worth a try.
            assert!(entry.see(&pod("3", "Succeeding")), "{base}");
        }
    }
}
