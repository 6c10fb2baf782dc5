//! The parts of a Pod that have subresources of their own: its ephemeral containers, and what its
//! containers request (KEP-1287).
//!
//! A write of a part carries the whole Pod; all else of it is put back as it was.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::registry::meta;
use crate::registry::strategy::Subresource;
use crate::validation::items;

/// Restores what an update of the part may not change.
pub(super) fn restore(part: Subresource, new: &mut Pod, old: &Pod) {
    let (Some(given), Some(stored)) = (new.spec.take(), &old.spec) else {
        new.clone_from(old);
        return;
    };
    new.spec = Some(match part {
        Subresource::EphemeralContainers => PodSpec {
            ephemeral_containers: given.ephemeral_containers,
            ..stored.clone()
        },
        _ => match resized(&given, stored) {
            Some(spec) => spec,
            // Containers came, went or moved: that is told as a fault of what was given.
            None => {
                new.spec = Some(given);
                return;
            }
        },
    });
    new.status.clone_from(&old.status);
    meta::keep_metadata(&mut new.metadata, &old.metadata);
}

/// The stored spec with the resources that were given.
fn resized(given: &PodSpec, stored: &PodSpec) -> Option<PodSpec> {
    let init = with_resources(
        items(&given.init_containers),
        items(&stored.init_containers),
    )?;
    Some(PodSpec {
        containers: with_resources(&given.containers, &stored.containers)?,
        init_containers: stored.init_containers.is_some().then_some(init),
        // Who does not know the field leaves it out, and does not mean to take it away.
        resources: given.resources.clone().or(stored.resources.clone()),
        ..stored.clone()
    })
}

fn with_resources(given: &[Container], stored: &[Container]) -> Option<Vec<Container>> {
    let pairs = given.iter().zip(stored);
    let same = given.len() == stored.len() && pairs.clone().all(|(new, old)| new.name == old.name);
    same.then(|| {
        pairs
            .map(|(new, old)| Container {
                resources: new.resources.clone(),
                resize_policy: new.resize_policy.clone(),
                ..old.clone()
            })
            .collect()
    })
}
