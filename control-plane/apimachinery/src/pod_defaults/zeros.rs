//! Values that mean the same as none: `hostNetwork: false`, `subPath: ""`, `hostPort: 0`.
//!
//! The clients of Kubernetes leave them out when they write, whatever they have read. They are dropped
//! here too: an object would else change whenever such a client writes it back, and what may not change
//! would be refused, what is made of it made anew. Fields in which a zero says something
//! (`automountServiceAccountToken: false`) stay as they are.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvFromSource, EnvVar, EphemeralContainer, Lifecycle, PodSpec, Probe,
    Volume, VolumeMount,
};

/// Drops them from a spec.
pub(super) fn drop_zeros(spec: &mut PodSpec) {
    for field in [
        &mut spec.host_network,
        &mut spec.host_pid,
        &mut spec.host_ipc,
    ] {
        drop_false(field);
    }
    for field in [
        &mut spec.node_name,
        &mut spec.hostname,
        &mut spec.subdomain,
        &mut spec.priority_class_name,
    ] {
        drop_empty(field);
    }
    let containers = spec.containers.iter_mut();
    let init_containers = spec.init_containers.iter_mut().flatten();
    containers.chain(init_containers).for_each(of_container);
    let ephemeral = spec.ephemeral_containers.iter_mut().flatten();
    ephemeral.for_each(of_ephemeral);
    spec.volumes.iter_mut().flatten().for_each(of_volume);
    for toleration in spec.tolerations.iter_mut().flatten() {
        for field in [
            &mut toleration.key,
            &mut toleration.operator,
            &mut toleration.value,
            &mut toleration.effect,
        ] {
            drop_empty(field);
        }
    }
}

/// `false`, where it is the same as nothing.
pub fn drop_false(field: &mut Option<bool>) {
    if *field == Some(false) {
        *field = None;
    }
}

/// An empty text, where it is the same as none.
pub fn drop_empty(field: &mut Option<String>) {
    if field.as_ref().is_some_and(String::is_empty) {
        *field = None;
    }
}

/// Zero, where it is the same as no number.
pub fn drop_zero(field: &mut Option<i32>) {
    if *field == Some(0) {
        *field = None;
    }
}

fn of_container(container: &mut Container) {
    for field in [
        &mut container.stdin,
        &mut container.stdin_once,
        &mut container.tty,
    ] {
        drop_false(field);
    }
    drop_empty(&mut container.image);
    drop_empty(&mut container.working_dir);
    of_ports(container.ports.as_deref_mut().unwrap_or_default());
    of_env(container.env.as_deref_mut().unwrap_or_default());
    of_sources(container.env_from.as_deref_mut().unwrap_or_default());
    of_mounts(container.volume_mounts.as_deref_mut().unwrap_or_default());
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(of_probe);
    container.lifecycle.iter_mut().for_each(of_lifecycle);
}

fn of_ephemeral(container: &mut EphemeralContainer) {
    for field in [
        &mut container.stdin,
        &mut container.stdin_once,
        &mut container.tty,
    ] {
        drop_false(field);
    }
    for field in [
        &mut container.image,
        &mut container.working_dir,
        &mut container.target_container_name,
    ] {
        drop_empty(field);
    }
    of_env(container.env.as_deref_mut().unwrap_or_default());
    of_sources(container.env_from.as_deref_mut().unwrap_or_default());
    of_mounts(container.volume_mounts.as_deref_mut().unwrap_or_default());
}

fn of_ports(ports: &mut [ContainerPort]) {
    for port in ports {
        drop_empty(&mut port.name);
        drop_empty(&mut port.host_ip);
        drop_zero(&mut port.host_port);
    }
}

fn of_env(variables: &mut [EnvVar]) {
    for variable in variables {
        drop_empty(&mut variable.value);
        let source = variable.value_from.as_mut();
        if let Some(resource) = source.and_then(|source| source.resource_field_ref.as_mut()) {
            drop_empty(&mut resource.container_name);
        }
    }
}

fn of_sources(sources: &mut [EnvFromSource]) {
    for source in sources {
        drop_empty(&mut source.prefix);
    }
}

fn of_mounts(mounts: &mut [VolumeMount]) {
    for mount in mounts {
        drop_false(&mut mount.read_only);
        drop_empty(&mut mount.sub_path);
        drop_empty(&mut mount.sub_path_expr);
    }
}

fn of_probe(probe: &mut Probe) {
    drop_zero(&mut probe.initial_delay_seconds);
    if let Some(get) = &mut probe.http_get {
        drop_empty(&mut get.host);
    }
    if let Some(socket) = &mut probe.tcp_socket {
        drop_empty(&mut socket.host);
    }
}

fn of_lifecycle(lifecycle: &mut Lifecycle) {
    let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
    for hook in hooks.into_iter().flatten() {
        if let Some(get) = &mut hook.http_get {
            drop_empty(&mut get.host);
        }
        if let Some(socket) = &mut hook.tcp_socket {
            drop_empty(&mut socket.host);
        }
    }
}

fn of_volume(volume: &mut Volume) {
    if let Some(source) = &mut volume.empty_dir {
        drop_empty(&mut source.medium);
    }
    if let Some(source) = &mut volume.secret {
        drop_empty(&mut source.secret_name);
    }
    if let Some(source) = &mut volume.persistent_volume_claim {
        drop_false(&mut source.read_only);
    }
    if let Some(source) = &mut volume.nfs {
        drop_false(&mut source.read_only);
    }
    if let Some(source) = &mut volume.iscsi {
        for field in [
            &mut source.read_only,
            &mut source.chap_auth_discovery,
            &mut source.chap_auth_session,
        ] {
            drop_false(field);
        }
        drop_empty(&mut source.fs_type);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_says_nothing_is_dropped() {
        let mut spec: PodSpec = serde_json::from_value(json!({
            "hostNetwork": false, "hostPID": false, "nodeName": "", "hostUsers": false,
            "automountServiceAccountToken": false, "priority": 0,
            "tolerations": [{"operator": "Exists", "key": "", "tolerationSeconds": 0}],
            "containers": [{
                "name": "c", "image": "i", "tty": false, "workingDir": "",
                "ports": [{"containerPort": 80, "hostPort": 0, "name": ""}],
                "env": [{"name": "A", "value": ""}],
                "envFrom": [{"prefix": "", "secretRef": {"name": "s", "optional": false}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": false, "subPath": ""}],
                "livenessProbe": {"initialDelaySeconds": 0, "tcpSocket": {"port": 80, "host": ""}},
                "securityContext": {"privileged": false, "runAsUser": 0},
            }],
            "volumes": [
                {"name": "v", "emptyDir": {"medium": ""}},
                {"name": "s", "secret": {"secretName": "s", "optional": false}},
                {"name": "p", "persistentVolumeClaim": {"claimName": "p", "readOnly": false}},
            ],
        }))
        .unwrap();
        drop_zeros(&mut spec);
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            json!({
                "hostUsers": false, "automountServiceAccountToken": false, "priority": 0,
                "tolerations": [{"operator": "Exists", "tolerationSeconds": 0}],
                "containers": [{
                    "name": "c", "image": "i",
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "A"}],
                    "envFrom": [{"secretRef": {"name": "s", "optional": false}}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    "livenessProbe": {"tcpSocket": {"port": 80}},
                    "securityContext": {"privileged": false, "runAsUser": 0},
                }],
                "volumes": [
                    {"name": "v", "emptyDir": {}},
                    {"name": "s", "secret": {"secretName": "s", "optional": false}},
                    {"name": "p", "persistentVolumeClaim": {"claimName": "p"}},
                ],
            })
        );
    }
}
