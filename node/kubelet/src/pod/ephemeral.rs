//! Ephemeral containers (`kubectl debug`): they are added to a Pod that is there, and each is
//! started once.
//!
//! [`place`] says whether one can be where it is wanted. A Pod of guests alone shares its network
//! namespace with other Pods, and a container there would have what is theirs; so that one is
//! refused, as is who wants to see the processes of a guest, which has none.

use std::path::Path;

use coracle_runtime::{ContainerId, SandboxState};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

use crate::containers::observed::PodRuntime;
use crate::images::Kind;

/// Those of a Pod.
pub(crate) fn all(pod: &Pod) -> &[EphemeralContainer] {
    let containers = super::spec(pod).ephemeral_containers.as_deref();
    containers.unwrap_or_default()
}

/// The one of that name.
pub(crate) fn named<'a>(pod: &'a Pod, name: &str) -> Option<&'a EphemeralContainer> {
    all(pod).iter().find(|container| container.name == name)
}

/// Whether the API has seen it made. It is not made again, though no runtime knows it any more.
pub(crate) fn was_made(pod: &Pod, name: &str) -> bool {
    let statuses = super::status(pod).ephemeral_container_statuses.iter();
    let mut statuses = statuses.flatten();
    statuses.any(|status| {
        let id = status.container_id.as_deref();
        status.name == name && id.is_some_and(|id| !id.is_empty())
    })
}

/// What it has in common with others. Probes, hooks, ports and resources the API lets it have none.
pub(crate) fn as_container(of: &EphemeralContainer) -> Container {
    Container {
        name: of.name.clone(),
        image: of.image.clone(),
        image_pull_policy: of.image_pull_policy.clone(),
        command: of.command.clone(),
        args: of.args.clone(),
        working_dir: of.working_dir.clone(),
        env: of.env.clone(),
        env_from: of.env_from.clone(),
        volume_mounts: of.volume_mounts.clone(),
        volume_devices: of.volume_devices.clone(),
        security_context: of.security_context.clone(),
        termination_message_path: of.termination_message_path.clone(),
        termination_message_policy: of.termination_message_policy.clone(),
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        tty: of.tty,
        ..Container::default()
    }
}

/// Whose processes one of that kind is to see in the runtime that has it, or why it cannot be in
/// its Pod, which has that network namespace of its own.
pub(crate) fn place(
    pod: &Pod,
    of: &EphemeralContainer,
    (runtime, kind): (&str, Kind),
    known: &PodRuntime,
    namespace: Option<&Path>,
) -> Result<Option<ContainerId>, String> {
    let spec = super::spec(pod);
    let mut sandboxes = known.sandboxes.iter();
    let beside_guests = !sandboxes
        .any(|of| of.runtime == runtime && of.sandbox.state == SandboxState::Ready)
        && namespace.is_none()
        && spec.host_network != Some(true);
    if kind == Kind::Container && beside_guests {
        return Err(format!(
            "ephemeral container \"{}\" cannot run in a Pod of WebAssembly alone, which shares its \
             network namespace with other Pods: use an image of WebAssembly, or debug a copy of the \
             Pod (kubectl debug --copy-to)",
            of.name
        ));
    }
    let target = of.target_container_name.as_deref();
    let Some(target) = target.filter(|target| !target.is_empty()) else {
        return Ok(None);
    };
    let refused = |whose: String| {
        Err(format!(
            "targetContainerName is not supported {whose} WebAssembly, which has no processes: leave \
             it out"
        ))
    };
    if kind == Kind::Wasm {
        return refused("for".to_owned());
    }
    let found = known.latest(target);
    let Some(found) = found.filter(|found| found.running_since().is_some()) else {
        return Err(format!("unable to find target container {target}"));
    };
    if found.runtime != runtime {
        return refused(format!("where \"{target}\" is"));
    }
    let seen = spec.share_process_namespace == Some(true) || spec.host_pid == Some(true);
    Ok((!seen).then(|| found.id().clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use coracle_runtime::{
        ContainerConfig, ContainerState, PodSandbox, PodSandboxConfig, SandboxId,
    };
    use serde_json::{Value, json};

    use super::*;

    /// A Pod in which that runtime has a sandbox with a running container `main`.
    fn known(runtime: &'static str) -> PodRuntime {
        let mut known = PodRuntime::default();
        let created_at = SystemTime::UNIX_EPOCH;
        let sandbox = SandboxId(runtime.to_owned());
        known.put_sandbox(
            runtime,
            PodSandbox {
                id: sandbox.clone(),
                config: PodSandboxConfig::default(),
                state: SandboxState::Ready,
                created_at,
            },
        );
        let config = ContainerConfig {
            name: "main".to_owned(),
            ..ContainerConfig::default()
        };
        known.put_container(
            runtime,
            coracle_runtime::Container {
                id: ContainerId("main-id".to_owned()),
                sandbox,
                pod: Default::default(),
                config,
                state: ContainerState::Running {
                    started_at: created_at,
                },
                user: None,
                created_at,
            },
        );
        known
    }

    #[test]
    fn what_cannot_be_shared_is_refused_by_name() {
        let own = Some(Path::new("netns/x"));
        let oci = ("oci", Kind::Container);
        let wasm = ("wasm", Kind::Wasm);
        let main = ContainerId("main-id".to_owned());
        type Case<'a> = (
            Value,
            Option<&'a str>,
            (&'a str, Kind),
            &'static str,
            Option<&'a Path>,
            Result<Option<&'a ContainerId>, &'a str>,
        );
        let cases: [Case<'_>; 11] = [
            (json!({}), None, oci, "oci", own, Ok(None)),
            (json!({}), None, oci, "oci", None, Ok(None)),
            (json!({}), None, wasm, "wasm", None, Ok(None)),
            (json!({}), None, wasm, "oci", own, Ok(None)),
            (json!({}), None, oci, "wasm", own, Ok(None)),
            (json!({}), None, oci, "wasm", None, Err("--copy-to")),
            (
                json!({"hostNetwork": true}),
                None,
                oci,
                "wasm",
                None,
                Ok(None),
            ),
            (json!({}), Some("main"), oci, "oci", own, Ok(Some(&main))),
            (
                json!({"shareProcessNamespace": true}),
                Some("main"),
                oci,
                "oci",
                own,
                Ok(None),
            ),
            (
                json!({}),
                Some("main"),
                oci,
                "wasm",
                own,
                Err("where \"main\" is WebAssembly"),
            ),
            (
                json!({}),
                Some("main"),
                wasm,
                "wasm",
                None,
                Err("targetContainerName is not supported for WebAssembly"),
            ),
        ];
        for (mut spec, target, of, runs, namespace, expected) in cases {
            spec["containers"] = json!([]);
            spec["ephemeralContainers"] = json!([{"name": "e", "targetContainerName": target}]);
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            let placed = place(&pod, &all(&pod)[0], of, &known(runs), namespace);
            match (&placed, expected) {
                (Ok(placed), Ok(expected)) => assert_eq!(placed.as_ref(), expected, "{pod:?}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                _ => panic!("{placed:?} instead of {expected:?} for {pod:?}"),
            }
        }
        let pod = json!({
            "metadata": {},
            "spec": {"containers": [], "ephemeralContainers": [
                {"name": "e", "targetContainerName": "gone"},
            ]},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let placed = place(&pod, &all(&pod)[0], oci, &known("oci"), None);
        assert_eq!(placed.unwrap_err(), "unable to find target container gone");
    }
}
