//! Limits of local ephemeral storage: of a container, of a Pod, of an emptyDir; pure.
//!
//! Source of the rules and texts: "Local ephemeral storage" of the Kubernetes documentation, and
//! the kubelet's eviction manager.

use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{EPHEMERAL_STORAGE, container_limits, pod_limits};
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::disk::PodDisk;
use crate::pod;

fn size_limit(volume: &Volume) -> Option<Quantity> {
    let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
    let limit = Quantity::try_from(limit).ok()?;
    // Zero is none, as the API says.
    (!limit.is_zero()).then_some(limit)
}

/// Whether the Pod has a limit for which it must be measured.
pub(super) fn is_limited(pod: &Pod) -> bool {
    let mut volumes = pod::spec(pod).volumes.iter().flatten();
    let mut containers = pod::containers(pod);
    volumes.any(|volume| size_limit(volume).is_some())
        || containers.any(|(of, _)| container_limits(of).contains_key(EPHEMERAL_STORAGE))
        || pod_limits(pod::spec(pod)).contains_key(EPHEMERAL_STORAGE)
}

/// Which limit the Pod exceeds, in the kubelet's words.
pub(super) fn violation(pod: &Pod, used: &PodDisk) -> Option<String> {
    let exceeds = |bytes: u64, limit: &Quantity| {
        i64::try_from(bytes).is_ok_and(|bytes| bytes > limit.value())
    };
    for volume in pod::spec(pod).volumes.iter().flatten() {
        if let Some(limit) = size_limit(volume)
            && let Some(taken) = used.volumes.get(&volume.name)
            && exceeds(taken.bytes, &limit)
        {
            return Some(format!(
                "Usage of EmptyDir volume \"{}\" exceeds the limit \"{limit}\". ",
                volume.name
            ));
        }
    }
    if let Some(limit) = pod_limits(pod::spec(pod)).get(EPHEMERAL_STORAGE)
        && exceeds(used.total().bytes, limit)
    {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    pod::spec(pod).containers.iter().find_map(|container| {
        let limits = container_limits(container);
        let limit = limits.get(EPHEMERAL_STORAGE)?;
        let taken = used.containers.get(&container.name)?;
        exceeds(taken.bytes, limit).then(|| {
            format!(
                "Container {} exceeded its local ephemeral storage limit \"{limit}\". ",
                container.name
            )
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_runtime::usage::DiskUsage;
    use serde_json::{Value, json};

    use super::*;

    fn mebibytes(count: u64) -> DiskUsage {
        DiskUsage {
            bytes: count << 20,
            inodes: 1,
        }
    }

    fn check(spec: &Value, used: &[(&str, u64)], volumes: &[(&str, u64)]) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let of = |list: &[(&str, u64)]| {
            let list = list.iter();
            list.map(|(name, mi)| ((*name).to_owned(), mebibytes(*mi)))
                .collect()
        };
        let used = PodDisk {
            containers: of(used),
            volumes: of(volumes),
        };
        let violation = violation(&pod, &used);
        assert!(is_limited(&pod) || violation.is_none());
        violation
    }

    #[test]
    fn each_limit_has_its_words() {
        let limit = |limit: &str| json!({"limits": {"ephemeral-storage": limit}});
        let spec = json!({
            "containers": [
                {"name": "a", "resources": limit("10Mi")},
                {"name": "b", "resources": limit("1Gi")},
                {"name": "c"},
            ],
            "volumes": [
                {"name": "small", "emptyDir": {"sizeLimit": "5Mi"}},
                {"name": "large", "emptyDir": {}},
                {"name": "none", "emptyDir": {"sizeLimit": "0"}},
            ],
        });
        assert_eq!(
            check(
                &spec,
                &[("a", 10), ("c", 900)],
                &[("small", 5), ("none", 9)]
            ),
            None
        );
        assert_eq!(
            check(&spec, &[("a", 11)], &[("small", 6)]).as_deref(),
            Some("Usage of EmptyDir volume \"small\" exceeds the limit \"5Mi\". ")
        );
        assert_eq!(
            check(&spec, &[("a", 11)], &[]).as_deref(),
            Some("Container a exceeded its local ephemeral storage limit \"10Mi\". ")
        );
        // What the Pod takes beside its containers counts for the whole.
        assert_eq!(
            check(&spec, &[("b", 24)], &[("large", 1011)]).as_deref(),
            Some(
                "Pod ephemeral local storage usage exceeds the total limit of containers 1034Mi. "
            )
        );
        assert_eq!(
            check(&json!({"containers": [{"name": "c"}]}), &[("c", 9000)], &[]),
            None
        );
        // Volumes of a Pod that was not measured exceed nothing.
        assert_eq!(check(&spec, &[], &[]), None);
    }
}
