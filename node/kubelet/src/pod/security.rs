//! What a Pod says of isolation, as a runtime takes it. The container's own fields win over the
//! Pod's (SecurityContext and PodSecurityContext in the API reference).

use std::path::Path;

use coracle_runtime::{AppArmor, IdRange, ImageUser, Namespaces, Network, Seccomp, Security};
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use super::app_armor;

/// What the Pod shares with the machine; `network` is the namespace that it was given, `users` its
/// own.
pub(crate) fn namespaces(pod: &Pod, network: Option<&Path>, users: Option<IdRange>) -> Namespaces {
    let spec = super::spec(pod);
    let context = spec.security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    Namespaces {
        network: match (spec.host_network, network) {
            (Some(true), _) => Network::Host,
            (_, Some(path)) => Network::Namespace(path.to_owned()),
            _ => Network::Loopback,
        },
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_processes: spec.share_process_namespace == Some(true),
        users,
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect(),
    }
}

/// As whom a container runs and what it may do; `profiles` is the folder of localhost profiles.
pub(crate) fn security(
    pod: &Pod,
    container: &Container,
    profiles: &Path,
) -> Result<Security, String> {
    let of_pod = super::spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let id = |field: &str, value: Option<i64>| match value.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) => Err(format!("{field} is no id")),
    };
    let groups = of_pod.iter().flat_map(|context| {
        let more = context.supplemental_groups.iter().flatten().copied();
        more.chain(context.fs_group)
    });
    let groups = groups.map(|group| id("a group", Some(group)));
    let groups: Vec<Option<u32>> = groups.collect::<Result<_, _>>()?;
    let group = own
        .and_then(|c| c.run_as_group)
        .or(of_pod.and_then(|c| c.run_as_group));
    let capabilities = own.and_then(|context| context.capabilities.as_ref());
    let list = |of: Option<&Vec<String>>| of.cloned().unwrap_or_default();
    let profile = own.and_then(|context| context.seccomp_profile.as_ref());
    let profile = profile.or(of_pod.and_then(|context| context.seccomp_profile.as_ref()));
    Ok(Security {
        user: id("runAsUser", run_as_user(pod, container))?,
        group: id("runAsGroup", group)?,
        supplemental_groups: groups.into_iter().flatten().collect(),
        strict_groups: strict_groups(pod),
        non_root: non_root(pod, container),
        add_capabilities: list(capabilities.and_then(|c| c.add.as_ref())),
        drop_capabilities: list(capabilities.and_then(|c| c.drop.as_ref())),
        privileged: own.and_then(|context| context.privileged) == Some(true),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        read_only_root: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        unmasked_proc: own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked"),
        seccomp: seccomp(profile, profiles),
        app_armor: app_armor::profile(pod, container),
    })
}

/// Whether the user of its image says if a container may run, see [`check_non_root`].
pub(crate) fn needs_image_user(pod: &Pod, container: &Container) -> bool {
    non_root(pod, container) && run_as_user(pod, container).is_none()
}

/// Refuses a container that is to run as root and as nobody who is; `image` is as whom its image runs,
/// if that was asked for. Behind a name may be root.
pub(crate) fn check_non_root(
    pod: &Pod,
    container: &Container,
    security: &Security,
    image: Option<&ImageUser>,
) -> Result<(), String> {
    if !security.non_root {
        return Ok(());
    }
    let why = match (security.user, image) {
        (Some(0), _) => "container's runAsUser breaks non-root policy".to_owned(),
        (Some(_), _) | (None, None) => return Ok(()),
        (None, Some(ImageUser::Id(0))) => {
            "container has runAsNonRoot and image will run as root".to_owned()
        }
        (None, Some(ImageUser::Id(id))) if i32::try_from(*id).is_ok_and(|id| id > 0) => {
            return Ok(());
        }
        (None, Some(ImageUser::Id(id))) => format!(
            "container has runAsNonRoot and image has an invalid user id ({id}). (Must be 1-({}))",
            i32::MAX
        ),
        (None, Some(ImageUser::Name(name))) => format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user \
             is non-root"
        ),
    };
    Err(format!(
        "{why} (pod: \"{}\", container: {})",
        super::long_name(pod),
        container.name
    ))
}

fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let of_pod = super::spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let own = own.and_then(|context| context.run_as_user);
    own.or(of_pod.and_then(|context| context.run_as_user))
}

fn non_root(pod: &Pod, container: &Container) -> bool {
    let of_pod = super::spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let own = own.and_then(|context| context.run_as_non_root);
    own.or(of_pod.and_then(|context| context.run_as_non_root)) == Some(true)
}

/// Whether a container of the Pod has all rights of root on the machine.
pub(crate) fn has_privileged(pod: &Pod) -> bool {
    let privileged = |container: &Container| {
        let context = container.security_context.as_ref();
        context.and_then(|context| context.privileged) == Some(true)
    };
    super::containers(pod).any(|(container, _)| privileged(container))
}

/// Whether containers have no groups but those that the Pod names.
pub(crate) fn strict_groups(pod: &Pod) -> bool {
    let context = super::spec(pod).security_context.as_ref();
    let policy = context.and_then(|context| context.supplemental_groups_policy.as_deref());
    policy == Some("Strict")
}

/// The group to which the Pod's volumes are given.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let context = super::spec(pod).security_context.as_ref()?;
    context.fs_group?.try_into().ok()
}

/// Capabilities that take nothing from a guest that lacks them: it binds any port as it is, and where
/// there are no processes none is traced. `kubectl debug` asks for the latter whatever it adds.
const IDLE: [&str; 2] = ["NET_BIND_SERVICE", "SYS_PTRACE"];

/// Refuses for a guest what is of the rights of a process on the machine, of which it has none.
pub(crate) fn check_for_guest(security: &Security) -> Result<(), String> {
    if security.privileged {
        return Err(
            "securityContext.privileged is not supported for WebAssembly, which has no rights on the \
             machine that could be widened"
                .into(),
        );
    }
    let mut added = security.add_capabilities.iter().map(String::as_str);
    let beyond = added.find(|name| !IDLE.contains(&name.strip_prefix("CAP_").unwrap_or(name)));
    if let Some(name) = beyond {
        return Err(format!(
            "capabilities.add: {name} is not supported for WebAssembly, which has no rights on the \
             machine that could be widened"
        ));
    }
    if security.unmasked_proc {
        return Err("procMount is not supported for WebAssembly, which has no /proc".into());
    }
    if let Some(AppArmor::Localhost(_)) = security.app_armor {
        return Err(
            "appArmorProfile of type Localhost is not supported for WebAssembly, whose rights are \
             those that the sandbox gives it; use RuntimeDefault"
                .into(),
        );
    }
    match security.seccomp {
        Seccomp::Localhost(_) => Err(
            "seccompProfile of type Localhost is not supported for WebAssembly, which makes no \
             system calls of its own; use RuntimeDefault"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// Containers without a profile get the runtime's, as with `seccompDefault` of the kubelet.
fn seccomp(profile: Option<&SeccompProfile>, profiles: &Path) -> Seccomp {
    match profile.map(|profile| (&*profile.type_, &profile.localhost_profile)) {
        Some(("Unconfined", _)) => Seccomp::Unconfined,
        Some(("Localhost", file)) => {
            Seccomp::Localhost(profiles.join(file.as_ref().map_or(Path::new(""), Path::new)))
        }
        _ => Seccomp::RuntimeDefault,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, own: Value) -> (Namespaces, Result<Security, String>) {
        let mut pod = json!({"spec": spec});
        pod["spec"]["containers"] = json!([{"name": "c", "securityContext": own}]);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container = &super::super::spec(&pod).containers[0];
        let security = security(&pod, container, Path::new("/profiles"));
        (namespaces(&pod, None, None), security)
    }

    #[test]
    fn the_containers_own_context_wins() {
        let of_pod = json!({"securityContext": {
            "runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": true, "fsGroup": 3,
            "supplementalGroups": [4], "supplementalGroupsPolicy": "Strict",
            "seccompProfile": {"type": "Unconfined"},
        }});
        let (_, inherited) = check(of_pod.clone(), Value::Null);
        let inherited = inherited.unwrap();
        assert_eq!((inherited.user, inherited.group), (Some(1), Some(2)));
        assert_eq!(inherited.supplemental_groups, [4, 3]);
        assert!(inherited.strict_groups);
        assert_eq!(inherited.seccomp, Seccomp::Unconfined);
        assert!(inherited.non_root && !inherited.no_new_privileges);
        let (_, own) = check(
            of_pod,
            json!({
                "runAsUser": 9, "runAsNonRoot": false, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": {"add": ["A"], "drop": ["B"]},
                "seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"},
            }),
        );
        let own = own.unwrap();
        assert_eq!(
            (own.user, own.group, own.non_root),
            (Some(9), Some(2), false)
        );
        assert!(own.no_new_privileges && own.read_only_root && !own.privileged);
        let pod = |privileged: bool| {
            let context = json!({"privileged": privileged});
            let containers = json!([{"name": "a"}, {"name": "b", "securityContext": context}]);
            serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()
        };
        assert!(has_privileged(&pod(true)) && !has_privileged(&pod(false)));
        assert_eq!(own.add_capabilities, ["A"]);
        assert_eq!(own.drop_capabilities, ["B"]);
        assert_eq!(own.seccomp, Seccomp::Localhost("/profiles/p.json".into()));
    }

    #[test]
    fn guests_are_given_no_rights_on_the_machine() {
        let refused = |own: Value| {
            let (_, security) = check(json!({}), own);
            check_for_guest(&security.unwrap()).unwrap_err()
        };
        assert!(refused(json!({"privileged": true})).contains("privileged"));
        let profile = json!({"type": "Localhost", "localhostProfile": "p.json"});
        assert!(refused(json!({"seccompProfile": profile})).contains("Localhost"));
        let armored = refused(json!({"appArmorProfile": profile}));
        assert!(armored.contains("appArmorProfile"), "{armored}");
        let added = refused(json!({"capabilities": {"add": ["NET_BIND_SERVICE", "NET_ADMIN"]}}));
        assert!(added.contains("NET_ADMIN"), "{added}");
        assert!(refused(json!({"procMount": "Unmasked"})).contains("procMount"));
        let restricted = json!({
            "runAsUser": 7, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "SYS_PTRACE"]},
        });
        let (_, fine) = check(json!({}), restricted);
        assert_eq!(check_for_guest(&fine.unwrap()), Ok(()));
    }

    #[test]
    fn root_is_none_who_is_not_to_be_root() {
        let id = |id| Some(ImageUser::Id(id));
        let name = || Some(ImageUser::Name("web".to_owned()));
        for (user, non_root, image, refused) in [
            (Some(0), true, id(7), Some("breaks non-root policy")),
            (Some(0), false, None, None),
            (Some(7), true, id(0), None),
            (Some(7), true, name(), None),
            (
                None,
                true,
                id(0),
                Some("and image will run as root (pod: \""),
            ),
            (None, false, id(0), None),
            (None, true, id(7), None),
            (
                None,
                true,
                name(),
                Some("image has non-numeric user (web), cannot verify user is non-root (pod: \""),
            ),
            (None, false, name(), None),
            (None, true, id(-1), Some("invalid user id (-1)")),
            (
                None,
                true,
                id(1 << 31),
                Some("invalid user id (2147483648)"),
            ),
            // Nobody knows of users there.
            (None, true, None, None),
        ] {
            let context = json!({"runAsUser": user, "runAsNonRoot": non_root});
            let (_, security) = check(json!({}), context.clone());
            let container = Container {
                security_context: serde_json::from_value(context).unwrap(),
                ..Container::default()
            };
            let pod = Pod::default();
            let asks = needs_image_user(&pod, &container);
            assert_eq!(asks, non_root && user.is_none());
            let checked = check_non_root(&pod, &container, &security.unwrap(), image.as_ref());
            let said = checked.err().unwrap_or_default();
            assert_eq!(said.is_empty(), refused.is_none(), "{said}");
            assert!(said.contains(refused.unwrap_or_default()), "{said}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_shared() {
        let (namespaces, security) = check(json!({}), Value::Null);
        assert_eq!(namespaces, Namespaces::default());
        assert_eq!(security, Ok(Security::default()));
        let spec = json!({
            "hostNetwork": true, "hostPID": true, "shareProcessNamespace": true,
            "securityContext": {"sysctls": [{"name": "net.a", "value": "1"}], "runAsUser": -1},
        });
        let (namespaces, security) = check(spec, Value::Null);
        assert_eq!(namespaces.network, Network::Host);
        let own = Path::new("/run/netns/a");
        let users = Some(IdRange { first: 1 << 20 });
        let given = super::namespaces(&Pod::default(), Some(own), users);
        assert_eq!(given.network, Network::Namespace(own.to_owned()));
        assert_eq!(given.users, users);
        assert!(namespaces.host_pid && namespaces.users.is_none() && namespaces.share_processes);
        assert_eq!(namespaces.sysctls["net.a"], "1");
        assert_eq!(security, Err("runAsUser is no id".to_owned()));
    }
}
