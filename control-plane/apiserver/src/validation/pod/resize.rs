//! What may change when a Pod's resources are changed while it runs: how much CPU and memory its
//! containers have, and no more (KEP-1287).

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::resources::qos;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, ResourceRequirements};

use super::annotations::MIRROR;
use super::container::is_sidecar;
use crate::validation::equality::semantic;
use crate::validation::items;

/// How Kubernetes writes the path of what is wrong with a Pod as a whole.
const OF_POD: &str = "[]";

/// What can be resized.
const MUTABLE: [&str; 2] = ["cpu", "memory"];

/// What an update of the resources may not change, of a Pod that is otherwise as it was.
pub(crate) fn validate_resize(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return;
    };
    let refused = if is_mirror(old) {
        Some("static pods cannot be resized")
    } else if old_spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        Some("windows pods cannot be resized")
    } else {
        None
    };
    if let Some(detail) = refused {
        *errors = Error::forbidden(&Path::new(OF_POD), detail).into();
        return;
    }
    let at = Path::new("spec");
    let class = qos(spec).as_str();
    if class != qos(old_spec).as_str() {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(Error::invalid(&at, class, detail));
    }
    if !is_supported(old) {
        let detail = "Pod running on node without support for resize";
        errors.push(Error::forbidden(&at, detail));
    }
    let before = errors.len();
    validate_order(
        "containers",
        &spec.containers,
        &old_spec.containers,
        &at,
        errors,
    );
    let (init, old_init) = (
        items(&spec.init_containers),
        items(&old_spec.init_containers),
    );
    validate_order("initContainers", init, old_init, &at, errors);
    if errors.len() > before {
        return;
    }
    let pod_at = at.child("resources");
    validate_kept(
        &spec.resources,
        &old_spec.resources,
        "pod-level resource",
        &pod_at,
        errors,
    );
    for (list, new, old) in [
        ("initContainers", init, old_init),
        ("containers", &spec.containers[..], &old_spec.containers[..]),
    ] {
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let at = at.child(list).index(i).child("resources");
            validate_kept(&new.resources, &old.resources, "resource", &at, errors);
        }
    }
    let pod_resources = mask(spec.resources.clone(), &old_spec.resources);
    if !semantic(&pod_resources, &old_spec.resources) {
        let detail = "only cpu and memory resources are mutable at pod-level";
        errors.push(Error::forbidden(&at, detail));
    }
    let mut pairs = spec.containers.iter().zip(&old_spec.containers);
    if pairs.any(|(new, old)| changes_more(new, old)) {
        let detail = "only cpu and memory resources are mutable";
        errors.push(Error::forbidden(&at, detail));
    }
    for (i, (new, old)) in init.iter().zip(old_init).enumerate() {
        let at = at.child("initContainers").index(i);
        if changes_more(new, old) {
            let detail = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.push(Error::forbidden(&at, detail));
        }
        validate_restarts(new, old, &at, errors);
    }
}

/// Whether the Pod is a copy of what a node runs by itself.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// A node that can resize says of running containers what they have. Where none runs nobody
/// knows yet.
fn is_supported(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut statuses = status
        .into_iter()
        .flat_map(|status| items(&status.container_statuses));
    let running = statuses.find(|status| {
        status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    });
    running.is_none_or(|status| status.resources.is_some())
}

fn validate_order(
    list: &str,
    new: &[Container],
    old: &[Container],
    at: &Path,
    errors: &mut ErrorList,
) {
    let at = at.child(list);
    if new.len() != old.len() {
        let detail = format!("{list} may not be added or removed on resize");
        errors.push(Error::forbidden(&at, detail));
        return;
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        if new.name != old.name {
            let detail = format!("{list} may not be renamed or reordered on resize");
            errors.push(Error::forbidden(&at.index(i).child("name"), detail));
        }
    }
}

/// What was requested or limited is so after it, to whatever amount.
fn validate_kept(
    new: &Option<ResourceRequirements>,
    old: &Option<ResourceRequirements>,
    what: &str,
    at: &Path,
    errors: &mut ErrorList,
) {
    let (new, old) = (
        new.clone().unwrap_or_default(),
        old.clone().unwrap_or_default(),
    );
    for (field, new, old) in [
        ("requests", new.requests, old.requests),
        ("limits", new.limits, old.limits),
    ] {
        let new = new.unwrap_or_default();
        if !old.iter().flatten().all(|(name, _)| new.contains_key(name)) {
            let detail = format!("{what} {field} cannot be removed");
            errors.push(Error::forbidden(&at.child(field), detail));
        }
    }
}

/// An init container that has had its turn is not started again for its resources.
fn validate_restarts(new: &Container, old: &Container, at: &Path, errors: &mut ErrorList) {
    let mut policies = items(&new.resize_policy).iter();
    let restarts = policies.any(|policy| policy.restart_policy == "RestartContainer");
    if restarts && !is_sidecar(new) && !semantic(new, old) {
        let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        errors.push(Error::forbidden(at, detail));
    }
}

/// Whether more changes of a container than how much CPU and memory it has.
fn changes_more(new: &Container, old: &Container) -> bool {
    let mut masked = new.clone();
    masked.resources = mask(masked.resources.take(), &old.resources);
    !semantic(&masked, old)
}

fn mask(
    new: Option<ResourceRequirements>,
    old: &Option<ResourceRequirements>,
) -> Option<ResourceRequirements> {
    let mut masked = new.unwrap_or_default();
    // That nothing is asked for can be said in two ways.
    let said = old.is_some();
    let old = old.clone().unwrap_or_default();
    for (new, old) in [
        (&mut masked.requests, old.requests),
        (&mut masked.limits, old.limits),
    ] {
        let mut amounts = new.take().unwrap_or_default();
        for name in MUTABLE {
            amounts.remove(name);
            if let Some(amount) = old.as_ref().and_then(|old| old.get(name)) {
                amounts.insert(name.to_owned(), amount.clone());
            }
        }
        *new = (!amounts.is_empty()).then_some(amounts);
    }
    (said || masked != ResourceRequirements::default()).then_some(masked)
}

/// What an update of the ephemeral containers may not change: those that are there.
pub(crate) fn validate_ephemeral_update(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    if is_mirror(old) {
        let detail = "static pods do not support ephemeral containers";
        *errors = Error::forbidden(&Path::new(OF_POD), detail).into();
        return;
    }
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return;
    };
    let at = Path::new("spec").child("ephemeralContainers");
    // Of several of one name the first counts, and the last that is collected stays.
    let new = items(&spec.ephemeral_containers).iter().rev();
    let new: BTreeMap<&str, &EphemeralContainer> = new.map(|new| (&*new.name, new)).collect();
    for old in items(&old_spec.ephemeral_containers) {
        let how = match new.get(&*old.name) {
            None => "removed",
            Some(new) if !semantic(*new, old) => "changed",
            Some(_) => continue,
        };
        let detail = format!(
            "existing ephemeral containers {:?} may not be {how}\n",
            old.name
        );
        errors.push(Error::forbidden(&at, detail));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn containers_beside_the_resized_one() {
        let pod = |resized: Value, beside: Value| -> Pod {
            let image = |name: &str, resources: Value| json!({"name": name, "image": "i", "resources": resources});
            let containers = json!([image("a", resized), image("b", beside)]);
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}}))
                .unwrap()
        };
        let (one, two) = (
            json!({"requests": {"cpu": "1"}}),
            json!({"requests": {"cpu": "2"}}),
        );
        let disk = json!({"requests": {"ephemeral-storage": "1Gi"}});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (json!(null), vec![]),
            (
                disk,
                vec!["spec FieldValueForbidden only cpu and memory resources are mutable"],
            ),
        ];
        for (beside, want) in table {
            let mut errors = ErrorList::default();
            let old = pod(one.clone(), json!({}));
            validate_resize(&pod(two.clone(), beside), &old, &mut errors);
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn nothing_else_of_an_init_container() {
        let pod = |policies: Value| -> Pod {
            let sidecar = json!({"name": "s", "image": "i", "restartPolicy": "Always", "resizePolicy": policies});
            serde_json::from_value(json!({"metadata": {}, "spec": {
                "containers": [{"name": "a", "image": "i"}], "initContainers": [sidecar],
            }}))
            .unwrap()
        };
        let policy = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
        let mut errors = ErrorList::default();
        validate_resize(&pod(policy), &pod(json!([])), &mut errors);
        assert_causes(
            &errors,
            &["spec.initContainers[0] FieldValueForbidden only cpu and memory resources for init"],
        );
    }
}
