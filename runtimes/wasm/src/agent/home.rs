//! Which guests belong together: by what their processes share.
//!
//! Guests of a Kubernetes namespace have a user, and their HTTP guests one host, in the node's
//! network namespace for guests. A Pod with a network namespace of its own shares that user only:
//! its processes live in its namespace, and its HTTP guests have a host there.

use std::path::{Path, PathBuf};

use coracle_runtime::{Attachment, Network, PodSandbox, SandboxId};

/// How folders of hosts begin that are Pods' own: no Kubernetes namespace's name does.
const OWN: char = '@';

/// Where guests live.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Home {
    /// The Kubernetes namespace.
    pub(super) namespace: String,
    /// The Pod, if it has a network namespace, with the file of that.
    own: Option<(SandboxId, PathBuf)>,
}

impl Home {
    /// Where the guests of a sandbox live.
    pub(super) fn of(sandbox: &PodSandbox) -> Self {
        let own = match &sandbox.config.namespaces.network {
            Network::Namespace(path) => Some((sandbox.id.clone(), path.clone())),
            Network::Loopback | Network::Host => None,
        };
        Self {
            namespace: sandbox.config.pod.namespace.clone(),
            own,
        }
    }

    /// With all those of a namespace.
    pub(super) fn shared(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            own: None,
        }
    }

    /// The file of the Pod's network namespace.
    pub(super) fn network(&self) -> Option<&Path> {
        let (_, path) = self.own.as_ref()?;
        Some(path)
    }

    /// Whether a sandbox's guests live in a namespace of their Pod's own.
    pub(super) fn is_own_of(sandbox: &PodSandbox) -> bool {
        matches!(sandbox.config.namespaces.network, Network::Namespace(_))
    }

    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    pub(super) fn attachment(&self) -> Attachment {
        match self.own {
            Some(_) => Attachment::Netns,
            None => Attachment::Address,
        }
    }

    /// The name of the host's folder.
    pub(super) fn folder(&self) -> String {
        match &self.own {
            Some((sandbox, _)) => format!("{OWN}{}", sandbox.0),
            None => self.namespace.clone(),
        }
    }

    /// Whose host a folder of that name is of; `sandbox` finds a Pod.
    pub(super) fn of_folder(
        name: &str,
        sandbox: impl FnOnce(&SandboxId) -> Option<PodSandbox>,
    ) -> Option<Self> {
        match name.strip_prefix(OWN) {
            Some(id) => Some(Self::of(&sandbox(&SandboxId(id.to_owned()))?)),
            None => Some(Self::shared(name)),
        }
    }
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.own {
            Some((sandbox, _)) => write!(f, "sandbox {}", sandbox.0),
            None => write!(f, "namespace {}", self.namespace),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use coracle_runtime::{PodSandboxConfig, SandboxState};

    use super::*;

    #[test]
    fn a_folder_says_whose_host_it_is_of() {
        let mut sandbox = PodSandbox {
            id: SandboxId("ab12".into()),
            config: PodSandboxConfig::default(),
            state: SandboxState::Ready,
            created_at: SystemTime::UNIX_EPOCH,
        };
        sandbox.config.pod.namespace = "shop".into();
        let shared = Home::of(&sandbox);
        sandbox.config.namespaces.network = Network::Namespace("/run/netns/a".into());
        let own = Home::of(&sandbox);
        assert_eq!(shared, Home::shared("shop"));
        assert_eq!(own.network(), Some(Path::new("/run/netns/a")));
        assert_eq!(own.attachment(), Attachment::Netns);
        assert!(own.is_own() && Home::is_own_of(&sandbox));
        let find = |id: &SandboxId| (*id == sandbox.id).then(|| sandbox.clone());
        for home in [shared, own] {
            assert_eq!(Home::of_folder(&home.folder(), find), Some(home));
        }
        assert_eq!(Home::of_folder("@gone", find), None);
    }
}
