//! Profiles of AppArmor that a Pod asks for, and whether the machine has them.
//!
//! As the kubelet, a node refuses a Pod that asks for a profile where none can be enforced, and one
//! whose own profile is not loaded; which the runtime's own is, the runtime knows.

use std::collections::BTreeSet;
use std::io;

use coracle_runtime::AppArmor;
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};

use crate::status::Verdict;

/// What a container asks for: its own profile, or else the Pod's.
pub(crate) fn profile(pod: &Pod, container: &Container) -> Option<AppArmor> {
    let own = container.security_context.as_ref();
    let own = own.and_then(|context| context.app_armor_profile.as_ref());
    own.or(of_pod(pod)).and_then(read)
}

fn of_pod(pod: &Pod) -> Option<&AppArmorProfile> {
    let context = super::spec(pod).security_context.as_ref()?;
    context.app_armor_profile.as_ref()
}

fn read(profile: &AppArmorProfile) -> Option<AppArmor> {
    match &*profile.type_ {
        "RuntimeDefault" => Some(AppArmor::RuntimeDefault),
        "Unconfined" => Some(AppArmor::Unconfined),
        // A name that is missing is that of no profile.
        "Localhost" => {
            let name = profile.localhost_profile.clone();
            Some(AppArmor::Localhost(name.unwrap_or_default()))
        }
        _ => None,
    }
}

/// Refuses a Pod, which has not begun to run yet, whose profiles cannot be enforced here. `loaded`
/// tells which the machine has, see [`coracle_runtime::apparmor`].
pub(crate) fn admit(
    pod: &Pod,
    loaded: impl FnOnce() -> io::Result<Option<BTreeSet<String>>>,
) -> Result<(), Verdict> {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let asked = super::containers(pod).filter_map(|(of, _)| profile(pod, of));
    let asked: Vec<AppArmor> = asked.collect();
    // That of the Pod counts also where all containers have their own.
    let of_pod = of_pod(pod).and_then(read);
    let mut all = asked.iter().chain(&of_pod);
    let required = all.any(|of| *of != AppArmor::Unconfined);
    if !required || phase.is_some_and(|phase| phase != "Pending") {
        return Ok(());
    }
    enforceable(&asked, loaded()).map_err(|cause| Verdict {
        reason: "AppArmor".to_owned(),
        message: format!("Pod was rejected: Cannot enforce AppArmor: {cause}"),
        disrupted: false,
    })
}

/// Whether containers can have what they ask for.
fn enforceable(
    asked: &[AppArmor],
    loaded: io::Result<Option<BTreeSet<String>>>,
) -> Result<(), String> {
    let loaded = loaded.map_err(|error| format!("could not read loaded profiles: {error}"))?;
    let loaded = loaded.ok_or("AppArmor is not enabled on the host")?;
    let missing = asked.iter().find_map(|of| match of {
        AppArmor::Localhost(name) if !loaded.contains(name) => Some(name),
        _ => None,
    });
    match missing {
        Some(name) => Err(format!("profile {name:?} is not loaded")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn context(profile: &Value) -> Value {
        json!({"appArmorProfile": profile})
    }

    fn pod(of_pod: &Value, own: &Value) -> Pod {
        let init = json!({"name": "i"});
        let container = json!({"name": "c", "securityContext": context(own)});
        serde_json::from_value(json!({"spec": {
            "securityContext": context(of_pod),
            "initContainers": [init], "containers": [container],
        }}))
        .unwrap()
    }

    #[test]
    fn the_containers_own_profile_wins() {
        let own = json!({"type": "Localhost", "localhostProfile": "own"});
        let localhost = Some(AppArmor::Localhost("own".into()));
        let default = json!({"type": "RuntimeDefault"});
        for (of_pod, of_container, expected) in [
            (&Value::Null, &Value::Null, None),
            (&default, &Value::Null, Some(AppArmor::RuntimeDefault)),
            (&default, &own, localhost.clone()),
            (&own, &Value::Null, localhost),
            (
                &own,
                &json!({"type": "Unconfined"}),
                Some(AppArmor::Unconfined),
            ),
        ] {
            let pod = pod(of_pod, of_container);
            let container = &super::super::spec(&pod).containers[0];
            assert_eq!(profile(&pod, container), expected, "{pod:?}");
        }
    }

    #[test]
    fn pods_whose_profiles_cannot_be_enforced_are_refused() {
        let own = json!({"type": "Localhost", "localhostProfile": "own"});
        let default = json!({"type": "RuntimeDefault"});
        let unconfined = json!({"type": "Unconfined"});
        let none = Value::Null;
        let host = "AppArmor is not enabled on the host";
        let missing = "profile \"own\" is not loaded";
        for (of_pod, of_container, loaded, refused) in [
            (&none, &none, None, None),
            (&none, &unconfined, None, None),
            (&none, &default, None, Some(host)),
            (&none, &own, None, Some(host)),
            // The init container has it.
            (&default, &unconfined, None, Some(host)),
            (&none, &default, Some("other"), None),
            (&none, &own, Some("other"), Some(missing)),
            (&own, &none, Some("other"), Some(missing)),
            (&own, &none, Some("own"), None),
        ] {
            let mut pod = pod(of_pod, of_container);
            let machine = || -> io::Result<Option<BTreeSet<String>>> {
                Ok(loaded.map(|name: &str| [name.to_owned()].into()))
            };
            let found = admit(&pod, machine).err();
            let found = found.map(|verdict| (verdict.reason, verdict.message));
            let expected = refused.map(|why| {
                let message = format!("Pod was rejected: Cannot enforce AppArmor: {why}");
                ("AppArmor".to_owned(), message)
            });
            assert_eq!(found, expected, "{pod:?}");
            // One that runs is never refused.
            pod.status = serde_json::from_value(json!({"phase": "Running"})).unwrap();
            assert!(admit(&pod, machine).is_ok());
        }
        // All containers have their own.
        let mut all = pod(&own, &unconfined);
        let spec = all.spec.as_mut().unwrap();
        spec.init_containers = None;
        let machine = || Ok(Some(BTreeSet::new()));
        assert!(admit(&all, machine).is_ok());
        assert!(admit(&all, || Ok(None)).is_err());
        let broken = || Err(io::Error::other("no right to"));
        let verdict = admit(&pod(&none, &default), broken).unwrap_err();
        assert!(verdict.message.ends_with("profiles: no right to"));
    }
}
