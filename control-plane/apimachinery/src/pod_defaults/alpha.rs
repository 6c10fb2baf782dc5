//! Fields of features that Kubernetes 1.37 has in alpha, switched off. As there, they are
//! dropped without an error: a manifest that has them means the same without.

use k8s_openapi::api::core::v1::{
    Container, KeyToPath, PodSpec, Volume, VolumeMount, VolumeProjection,
};

/// Drops them from a spec.
pub(super) fn drop_fields(spec: &mut PodSpec) {
    // GenericWorkload, EvictionRequestAPI.
    spec.scheduling_group = None;
    spec.eviction_responders = None;
    for volume in spec.volumes.iter_mut().flatten() {
        drop_from_volume(volume);
    }
    let containers = spec.containers.iter_mut();
    let init_containers = spec.init_containers.iter_mut().flatten();
    let containers = containers.chain(init_containers);
    containers.for_each(drop_from_container);
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        drop_from_mounts(&mut container.volume_mounts);
    }
}

/// H2CContainerProbe, GRPCContainerProbeTLS. A stop signal (ContainerStopSignals) is honoured.
fn drop_from_container(container: &mut Container) {
    drop_from_mounts(&mut container.volume_mounts);
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    for probe in probes.into_iter().flatten() {
        if let Some(get) = &mut probe.http_get {
            get.protocol = None;
        }
        if let Some(grpc) = &mut probe.grpc {
            grpc.mode = None;
        }
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        for hook in hooks.into_iter().flatten() {
            if let Some(get) = &mut hook.http_get {
                get.protocol = None;
            }
        }
    }
}

/// VolumeBindMountOptions.
fn drop_from_mounts(mounts: &mut Option<Vec<VolumeMount>>) {
    for mount in mounts.iter_mut().flatten() {
        mount.bind_mount_options = None;
    }
}

/// EmptyDirVolumeMode, AtomicWriteVolumeUserFields.
fn drop_from_volume(volume: &mut Volume) {
    if let Some(source) = &mut volume.empty_dir {
        source.mode = None;
    }
    if let Some(source) = &mut volume.config_map {
        source.default_user = None;
        drop_users(&mut source.items);
    }
    if let Some(source) = &mut volume.secret {
        source.default_user = None;
        drop_users(&mut source.items);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_user = None;
        source
            .items
            .iter_mut()
            .flatten()
            .for_each(|file| file.user = None);
    }
    if let Some(source) = &mut volume.projected {
        source.default_user = None;
        source
            .sources
            .iter_mut()
            .flatten()
            .for_each(drop_from_projection);
    }
}

fn drop_from_projection(projection: &mut VolumeProjection) {
    if let Some(source) = &mut projection.config_map {
        drop_users(&mut source.items);
    }
    if let Some(source) = &mut projection.secret {
        drop_users(&mut source.items);
    }
    if let Some(source) = &mut projection.downward_api {
        source
            .items
            .iter_mut()
            .flatten()
            .for_each(|file| file.user = None);
    }
    if let Some(source) = &mut projection.service_account_token {
        source.user = None;
    }
    if let Some(source) = &mut projection.cluster_trust_bundle {
        source.user = None;
    }
    if let Some(source) = &mut projection.pod_certificate {
        source.user = None;
    }
}

fn drop_users(items: &mut Option<Vec<KeyToPath>>) {
    items.iter_mut().flatten().for_each(|item| item.user = None);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn probes_speak_http_1() {
        let get = |more: bool| match more {
            true => json!({"port": 80, "protocol": "HTTP2"}),
            false => json!({"port": 80}),
        };
        let spec = |more: bool| {
            let get = json!({"httpGet": get(more)});
            let lifecycle = json!({"postStart": get, "preStop": get});
            let container = json!({
                "name": "c", "startupProbe": get, "livenessProbe": get, "readinessProbe": get,
                "lifecycle": lifecycle,
            });
            json!({"containers": [container], "initContainers": [container]})
        };
        let mut dropped: PodSpec = serde_json::from_value(spec(true)).unwrap();
        drop_fields(&mut dropped);
        assert_eq!(serde_json::to_value(&dropped).unwrap(), spec(false));
    }

    #[test]
    fn fields_are_dropped() {
        let mut spec: PodSpec = serde_json::from_value(json!({
            "schedulingGroup": {"podGroupName": "g"},
            "containers": [
                {"name": "c", "volumeMounts": [{"name": "a", "mountPath": "/a", "bindMountOptions": ["noexec"]}]},
                {
                    "name": "d",
                    "livenessProbe": {"httpGet": {"port": 80, "protocol": "HTTP1"}},
                    "readinessProbe": {"grpc": {"port": 80, "mode": "TLS"}},
                },
            ],
            "volumes": [
                {"name": "a", "emptyDir": {"mode": 511}},
                {"name": "b", "configMap": {"name": "m", "defaultUser": 1, "items": [{"key": "k", "path": "p", "user": 1}]}},
                {"name": "c", "projected": {"defaultUser": 1, "sources": [{"serviceAccountToken": {"path": "t", "user": 1}}]}},
            ],
        }))
        .unwrap();
        drop_fields(&mut spec);
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            json!({
                "containers": [
                    {"name": "c", "volumeMounts": [{"name": "a", "mountPath": "/a"}]},
                    {
                        "name": "d",
                        "livenessProbe": {"httpGet": {"port": 80}},
                        "readinessProbe": {"grpc": {"port": 80}},
                    },
                ],
                "volumes": [
                    {"name": "a", "emptyDir": {}},
                    {"name": "b", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}},
                    {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                ],
            })
        );
    }
}
