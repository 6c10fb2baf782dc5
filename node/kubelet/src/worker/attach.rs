//! When a Pod is joined to the network, and how.
//!
//! A Pod of guests alone shares a network namespace with others; one that has a container gets its
//! own. What a Pod has is said by its images, and so its address may have to wait for them:
//!
//! ```text
//! an earlier agent made sandboxes ──► as it did
//! all images are here             ──► at once
//! some are not                    ──► when the first container's image is: if that is a guest, the
//!                                     others are fetched then, until one is a container; what
//!                                     cannot be had may be one
//! ```
//!
//! A guest does as well in a namespace of its Pod's own, so that the doubt costs a Pod nothing but
//! some memory.

use coracle_runtime::{Attachment, Network};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::run::Worker;
use crate::containers::start::Prepared;
use crate::images::{Claim, Kind, PullPolicy, PullProgress, Use};
use crate::node_context::NodeContext;
use crate::objects;
use crate::pod;

/// By what the images hold; none while one decides of which nothing is known.
fn by_kinds(kinds: impl IntoIterator<Item = Option<Kind>>) -> Option<Attachment> {
    let mut decided = Some(Attachment::Address);
    for kind in kinds {
        match kind {
            Some(Kind::Container) => return Some(Attachment::Netns),
            Some(Kind::Wasm) => {}
            None => decided = None,
        }
    }
    decided
}

fn policy(container: &Container) -> (&str, PullPolicy) {
    let reference = container.image.as_deref().unwrap_or_default();
    let policy = PullPolicy::of(container.image_pull_policy.as_deref(), reference);
    (reference, policy)
}

impl Worker {
    /// How a Pod is attached, if that is known before anything of it is started.
    pub(super) async fn attachment(&self, pod: &Pod, handler: Option<&str>) -> Option<Attachment> {
        let known = self.node.cache.pod(pod::uid(pod));
        if !known.sandboxes.is_empty() {
            let own = known.sandboxes.iter().any(|of| {
                let network = &of.sandbox.config.namespaces.network;
                matches!(network, Network::Namespace(_))
            });
            return Some(match own {
                true => Attachment::Netns,
                false => Attachment::Address,
            });
        }
        by_kinds(self.kinds(pod, handler).await)
    }

    /// What the Pod's images hold, as far as that is known.
    async fn kinds(&self, pod: &Pod, handler: Option<&str>) -> Vec<Option<Kind>> {
        let mut kinds = Vec::new();
        for (container, _) in pod::containers(pod) {
            let (reference, policy) = policy(container);
            kinds.push(match (self.node.router.only(handler), policy) {
                (Some(kind), _) => Some(kind),
                // Another image may have that name by now.
                (None, PullPolicy::Always) => None,
                (None, _) => self.node.images.kind(reference).await,
            });
        }
        kinds
    }

    /// Whether something of the Pod is a guest, as far as that is known: an earlier agent ran it, or
    /// its image is here. Another one is noticed when it is started.
    pub(super) async fn has_guests(&self, pod: &Pod, handler: Option<&str>) -> bool {
        if let Some(kind) = self.node.router.only(handler) {
            return kind == Kind::Wasm;
        }
        let known = self.node.cache.pod(pod::uid(pod));
        let of_guests = self.node.router.route(Kind::Wasm, handler);
        let of_guests = of_guests.map_or("", |runtime| runtime.name());
        known.sandboxes.iter().any(|of| of.runtime == of_guests)
            || self.kinds(pod, handler).await.contains(&Some(Kind::Wasm))
    }
}

/// How a Pod is attached whose first container is about to be made, of an image of that kind; none
/// if it is attached by now. May take long, and may be dropped at any time.
pub(super) async fn late(
    node: &NodeContext,
    pod: &Pod,
    first: (&str, Kind),
    prepared: &Prepared,
) -> Option<Attachment> {
    if !prepared.ips.is_empty() || pod::spec(pod).host_network == Some(true) {
        return None;
    }
    if first.1 == Kind::Container {
        return Some(Attachment::Netns);
    }
    let mut kinds = Vec::new();
    for (container, _) in pod::containers(pod) {
        if container.name == first.0 {
            kinds.push(Some(first.1));
            continue;
        }
        let (reference, policy) = policy(container);
        let here = node.images.kind(reference).await;
        let (None, true) = (here, policy != PullPolicy::Never) else {
            kinds.push(here);
            continue;
        };
        // What goes wrong is told when it is this container's turn.
        let auths = objects::pull_credentials(node, pod, reference, |_| {});
        let claim = Claim::new(Vec::new(), auths);
        let policy = PullPolicy::IfNotPresent;
        let wanted = (reference, Use::Run);
        let obtained = node
            .images
            .obtain(wanted, policy, claim, &PullProgress::default(), || {})
            .await;
        kinds.push(match obtained {
            Ok(_) => node.images.kind(reference).await,
            Err(_) => None,
        });
    }
    Some(by_kinds(kinds).unwrap_or(Attachment::Netns))
}

/// Joins a Pod to the network. Short, and runs to its end once begun.
pub(super) async fn attach(
    node: &NodeContext,
    pod: &Pod,
    wanted: Attachment,
    prepared: &mut Prepared,
) -> Result<(), String> {
    // What cannot be had is said of the container that asks for it.
    let ports = pod::host_ports::host_ports(pod).unwrap_or_default();
    let users = match wanted {
        Attachment::Netns => node.users.give(pod, prepared.readers(pod))?,
        Attachment::Address => None,
    };
    let attached = node
        .network
        .attach(&pod::identity(pod), wanted, &ports, users)
        .await;
    let attached = attached.map_err(|error| error.to_string())?;
    prepared.ips = attached.ips;
    prepared.namespace = attached.namespace;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_container_decides_and_what_is_unknown_leaves_it_open() {
        use Kind::{Container, Wasm};
        for (kinds, decided) in [
            (vec![Some(Wasm), Some(Wasm)], Some(Attachment::Address)),
            (vec![Some(Wasm), Some(Container)], Some(Attachment::Netns)),
            (vec![None, Some(Container)], Some(Attachment::Netns)),
            (vec![Some(Wasm), None], None),
            (vec![], Some(Attachment::Address)),
        ] {
            assert_eq!(by_kinds(kinds.clone()), decided, "{kinds:?}");
        }
    }
}
