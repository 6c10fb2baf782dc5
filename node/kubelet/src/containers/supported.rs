//! What a node does not do for a container: refused by name, and never left out in silence.
//!
//! Deliberately absent: what only says how something is done that is done anyhow
//! (`fsGroupChangePolicy`), and labels of SELinux, which mean nothing where it is not enabled, to
//! other runtimes neither.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, ExecAction, Pod};

use crate::images::Kind;
use crate::pod;

/// Says what of a container of that kind cannot be done here.
pub(crate) fn check(pod: &Pod, container: &Container, kind: Kind) -> Result<(), String> {
    check_all(pod, container)?;
    match kind {
        Kind::Wasm => check_guest(pod, container),
        Kind::Container => Ok(()),
    }
}

fn check_all(pod: &Pod, container: &Container) -> Result<(), String> {
    let refused = |what: String| Err(format!("{what} is not supported on this node"));
    if let Err(port) = pod::host_ports::host_ports(pod) {
        return refused(port);
    }
    if container.volume_devices.iter().flatten().next().is_some() {
        return refused("volumeDevices".to_owned());
    }
    let claims = container.resources.as_ref().and_then(|r| r.claims.as_ref());
    if claims.into_iter().flatten().next().is_some() {
        return refused("resources.claims".to_owned());
    }
    let claims = pod::spec(pod).resource_claims.iter();
    if claims.flatten().next().is_some() {
        return refused("resourceClaims".to_owned());
    }
    Ok(())
}

/// Says whether a guest can have the Pod's parameters of the kernel: with a network namespace that
/// other Pods have too it has none of its own.
pub(crate) fn check_sysctls(pod: &Pod, namespace: Option<&Path>) -> Result<(), String> {
    let context = pod::spec(pod).security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    let asked = sysctls.into_iter().flatten().next();
    match asked.filter(|_| namespace.is_none()) {
        Some(sysctl) => Err(format!(
            "sysctl \"{}\" is not supported for a Pod of WebAssembly alone, which has no namespace \
             of its own",
            sysctl.name
        )),
        None => Ok(()),
    }
}

/// Says whether a container may have users of its Pod's own beside guests: the Pod's volumes are the
/// guests' then, whose IDs are none of the Pod's.
pub(crate) fn check_users(pod: &Pod, beside_guests: bool) -> Result<(), String> {
    match pod::spec(pod).host_users == Some(false) && beside_guests {
        true => Err(
            "hostUsers: false is not supported on this node for a container in a Pod that has \
             WebAssembly containers too, to whose user the Pod's volumes belong"
                .to_owned(),
        ),
        false => Ok(()),
    }
}

/// The name of a command that a container of WebAssembly may have.
const PROGRAM: &str = ".wasm";
const NOT_WASM: &str = "a WebAssembly container runs nothing but WebAssembly: the command is a path that \
                        ends in .wasm in one of its volumes, or such a title of a layer of its image";

/// Whether a container of WebAssembly may have that command. Titles of layers are known to its runtime
/// alone, which runs those as well that end otherwise.
fn is_program(action: Option<&ExecAction>) -> bool {
    let command = action.and_then(|action| action.command.as_ref());
    action.is_none()
        || command
            .and_then(|command| command.first())
            .is_some_and(|name| name.ends_with(PROGRAM))
}

/// A guest has no programs beside it but WebAssembly, and looks names up in the network's way.
fn check_guest(pod: &Pod, container: &Container) -> Result<(), String> {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ];
    for (field, probe) in probes {
        if !is_program(probe.as_ref().and_then(|probe| probe.exec.as_ref())) {
            return Err(format!(
                "{field}: {NOT_WASM}; httpGet, tcpSocket and grpc need none"
            ));
        }
    }
    let hooks = container.lifecycle.as_ref().map(|hooks| {
        [
            ("postStart", &hooks.post_start),
            ("preStop", &hooks.pre_stop),
        ]
    });
    for (field, hook) in hooks.into_iter().flatten() {
        if !is_program(hook.as_ref().and_then(|hook| hook.exec.as_ref())) {
            return Err(format!(
                "lifecycle.{field}: {NOT_WASM}; httpGet and sleep need none"
            ));
        }
    }
    let signal = container.lifecycle.as_ref();
    if signal.is_some_and(|hooks| hooks.stop_signal.is_some()) {
        return Err(
            "lifecycle.stopSignal is not supported for WebAssembly, which has no signals"
                .to_owned(),
        );
    }
    let spec = pod::spec(pod);
    if spec.host_aliases.iter().flatten().next().is_some() {
        return Err(
            "hostAliases are not supported for WebAssembly, which has no hosts file".to_owned(),
        );
    }
    // Options are of a resolver that a guest does not have.
    let own = spec.dns_config.as_ref();
    for (field, list) in [
        ("nameservers", own.and_then(|own| own.nameservers.as_ref())),
        ("searches", own.and_then(|own| own.searches.as_ref())),
    ] {
        if list.is_some_and(|list| !list.is_empty()) {
            return Err(format!(
                "dnsConfig.{field} are not supported for WebAssembly, which is told names by the \
                 node's network"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(spec: Value, kind: Kind) -> Result<(), String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let (container, _) = pod::container(&pod, "c").unwrap();
        check(&pod, &container, kind)
    }

    /// A Pod of a container with these fields.
    fn with(fields: Value) -> Value {
        let mut container = fields;
        container["name"] = "c".into();
        json!({"containers": [container]})
    }

    #[test]
    fn what_is_not_done_is_named() {
        let port = json!({"ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "SCTP"}]});
        for (spec, named) in [
            (with(port), "hostPort 8080 of protocol SCTP"),
            (
                with(json!({"volumeDevices": [{"devicePath": "/dev/x", "name": "x"}]})),
                "volumeDevices",
            ),
            (
                with(json!({"resources": {"claims": [{"name": "gpu"}]}})),
                "resources.claims",
            ),
            (
                json!({"resourceClaims": [{"name": "gpu"}], "containers": [{"name": "c"}]}),
                "resourceClaims",
            ),
        ] {
            for kind in [Kind::Wasm, Kind::Container] {
                let error = checked(spec.clone(), kind).unwrap_err();
                assert!(error.contains(named), "{error}");
            }
        }
    }

    #[test]
    fn users_of_their_own_go_with_containers_alone() {
        let pod = |host_users: bool| -> Pod {
            let spec = json!({"hostUsers": host_users, "containers": []});
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
        };
        for (host_users, beside_guests, fine) in [
            (false, false, true),
            (false, true, false),
            (true, false, true),
            (true, true, true),
        ] {
            let checked = check_users(&pod(host_users), beside_guests);
            assert_eq!(checked.is_ok(), fine, "{host_users} {beside_guests}");
        }
    }

    #[test]
    fn guests_alone_have_no_parameters_of_the_kernel() {
        let own = Path::new("netns/a");
        let sysctls = json!([{"name": "net.ipv4.tcp_syncookies", "value": "0"}]);
        for (sysctls, namespace, fine) in [
            (json!([]), None, true),
            (sysctls.clone(), Some(own), true),
            (sysctls, None, false),
        ] {
            let spec = json!({"securityContext": {"sysctls": sysctls}, "containers": []});
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            assert_eq!(check_sysctls(&pod, namespace).is_ok(), fine, "{spec}");
        }
    }

    #[test]
    fn what_is_done_is_not_refused() {
        let port = json!([{"containerPort": 80, "hostPort": 80}]);
        for spec in [
            with(json!({})),
            with(json!({"ports": port})),
            with(json!({"restartPolicy": "Never"})),
            with(json!({"securityContext": {"procMount": "Unmasked"}})),
            json!({"hostUsers": false, "containers": [{"name": "c"}]}),
            json!({"hostNetwork": true, "containers": [{"name": "c", "ports": port}]}),
            json!({
                "initContainers": [{"name": "c", "restartPolicy": "Always"}],
                "containers": [{"name": "d"}],
            }),
            json!({
                "securityContext": {"supplementalGroupsPolicy": "Strict"},
                "containers": [{"name": "c"}],
            }),
        ] {
            assert_eq!(checked(spec.clone(), Kind::Container), Ok(()), "{spec}");
        }
        let exec = json!({"exec": {"command": ["true"]}});
        for spec in [
            with(json!({"livenessProbe": exec})),
            with(json!({"lifecycle": {"preStop": exec}})),
            with(json!({"lifecycle": {"stopSignal": "SIGUSR1"}})),
            json!({"hostAliases": [{"ip": "1.2.3.4"}], "containers": [{"name": "c"}]}),
            json!({"dnsConfig": {"nameservers": ["192.0.2.1"]}, "containers": [{"name": "c"}]}),
            json!({"dnsConfig": {"searches": ["own.example"]}, "containers": [{"name": "c"}]}),
        ] {
            assert_eq!(checked(spec.clone(), Kind::Container), Ok(()), "{spec}");
            assert!(checked(spec, Kind::Wasm).is_err());
        }
        let exec = json!({"exec": {"command": ["/tools/check.wasm", "x"]}});
        for spec in [
            with(json!({"readinessProbe": exec})),
            with(json!({"lifecycle": {"postStart": exec, "preStop": exec}})),
            json!({
                "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
                "containers": [{"name": "c"}],
            }),
        ] {
            assert_eq!(checked(spec.clone(), Kind::Wasm), Ok(()), "{spec}");
        }
    }
}
