//! The defaults of Pods and of templates of Pods, as the Kubernetes API reference has them.
//!
//! They are here because two read manifests of Pods: the API server, and a kubelet whose static
//! Pods run before there is an API server. Both read JSON without the empty values that say nothing
//! ([`crate::protobuf::Kind::without_omitted`]).

mod alpha;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EphemeralContainer, HTTPGetAction, PersistentVolumeClaimSpec,
    Pod, PodIP, PodSpec, PodStatus, PodTemplateSpec, Probe, ResourceFieldSelector,
    ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{canonicalize, canonicalize_quantity};
use crate::resources::{self, CPU, HUGE_PAGES, MEMORY};

/// Mode of files in volumes that the API fills.
const FILE_MODE: i32 = 0o644;

/// Sets the defaults of a Pod: those of its spec, and those that a template has not.
pub fn set_pod_defaults(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    set_spec_defaults(spec);
    spec.enable_service_links.get_or_insert(true);
    let on_host = spec.host_network == Some(true);
    let containers = spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        request_what_is_limited(container.resources.get_or_insert_default());
        for port in container.ports.iter_mut().flatten().filter(|_| on_host) {
            if port.host_port.unwrap_or(0) == 0 {
                port.host_port = Some(port.container_port);
            }
        }
    }
    request_for_the_whole(spec);
    let grace = &mut spec.termination_grace_period_seconds;
    if grace.is_some_and(|seconds| seconds < 0) {
        *grace = Some(1);
    }
    set_status_defaults(pod.status.get_or_insert_default());
}

/// The phase, and of the two fields for addresses whichever is given sets the other.
fn set_status_defaults(status: &mut PodStatus) {
    default(&mut status.phase, "Pending");
    let first = status.pod_ips.iter().flatten().next();
    let first = first.map(|address| address.ip.clone());
    let ip = text(&status.pod_ip).to_owned();
    if ip.is_empty() {
        status.pod_ip = first;
    } else if first.as_ref() != Some(&ip) {
        // An older client knows the one alone.
        status.pod_ips = Some(vec![PodIP { ip }]);
    }
}

/// What is asked for a Pod as a whole, where part of that is said: as much as its containers ask
/// for, and of what none asks for as much as is limited. Huge pages are limited as the containers'
/// are (KEP-2837).
fn request_for_the_whole(spec: &mut PodSpec) {
    let Some(mut whole) = spec.resources.take() else {
        return;
    };
    let overhead = spec.overhead.take();
    let requests = whole.requests.get_or_insert_default();
    let limits = whole.limits.get_or_insert_default();
    if !limits.is_empty() || !requests.is_empty() {
        for (name, limit) in resources::pod_limits(spec) {
            if name.starts_with(HUGE_PAGES) && !requests.contains_key(&name) {
                limits.entry(name).or_insert_with(|| limit.into());
            }
        }
    }
    if !limits.is_empty() {
        for (name, request) in resources::pod_requests(spec) {
            if [CPU, MEMORY].contains(&name.as_str()) {
                requests.entry(name).or_insert_with(|| request.into());
            }
        }
        for (name, limit) in limits.iter() {
            if [CPU, MEMORY].contains(&name.as_str()) || name.starts_with(HUGE_PAGES) {
                let request = requests.entry(name.clone());
                request.or_insert_with(|| limit.clone());
            }
        }
    }
    whole.requests = whole.requests.filter(|requests| !requests.is_empty());
    whole.limits = whole.limits.filter(|limits| !limits.is_empty());
    spec.resources = Some(whole);
    spec.overhead = overhead;
}

/// Sets the defaults of a template.
pub fn set_template_defaults(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    set_spec_defaults(template.spec.get_or_insert_default());
}

fn set_spec_defaults(spec: &mut PodSpec) {
    alpha::drop_fields(spec);
    default(&mut spec.dns_policy, "ClusterFirst");
    default(&mut spec.restart_policy, "Always");
    default(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    // The older name of the field is kept in step.
    if text(&spec.service_account_name).is_empty() {
        spec.service_account_name = spec.service_account.take().filter(|name| !name.is_empty());
    }
    spec.service_account.clone_from(&spec.service_account_name);
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        set_container_defaults(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        set_ephemeral_defaults(container);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        set_volume_defaults(volume);
    }
    canonicalize(&mut spec.overhead);
    if let Some(resources) = &mut spec.resources {
        canonicalize(&mut resources.limits);
        canonicalize(&mut resources.requests);
    }
}

fn set_container_defaults(container: &mut Container) {
    default(
        &mut container.image_pull_policy,
        pull_policy(text(&container.image)),
    );
    default(
        &mut container.termination_message_path,
        "/dev/termination-log",
    );
    default(&mut container.termination_message_policy, "File");
    set_env_defaults(container.env.as_deref_mut().unwrap_or_default());
    set_port_defaults(container.ports.as_deref_mut().unwrap_or_default());
    let resources = container.resources.get_or_insert_default();
    canonicalize(&mut resources.limits);
    canonicalize(&mut resources.requests);
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(set_probe_defaults);
    if let Some(lifecycle) = &mut container.lifecycle {
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop]
            .into_iter()
            .flatten()
        {
            hook.http_get.iter_mut().for_each(set_http_get_defaults);
        }
    }
}

fn set_ephemeral_defaults(container: &mut EphemeralContainer) {
    default(
        &mut container.image_pull_policy,
        pull_policy(text(&container.image)),
    );
    default(
        &mut container.termination_message_path,
        "/dev/termination-log",
    );
    default(&mut container.termination_message_policy, "File");
    set_env_defaults(container.env.as_deref_mut().unwrap_or_default());
    set_port_defaults(container.ports.as_deref_mut().unwrap_or_default());
    container.resources.get_or_insert_default();
}

/// `Always` for what is tagged `latest` or not at all, since it may have changed; a digest never
/// does.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or_default();
    let base = last.split(':').next().unwrap_or_default();
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    match last.split_once(':') {
        // What names no image has no tag.
        _ if base.is_empty() || !base.chars().all(named) => "IfNotPresent",
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn set_port_defaults(ports: &mut [ContainerPort]) {
    for port in ports {
        default(&mut port.protocol, "TCP");
    }
}

fn set_env_defaults(variables: &mut [EnvVar]) {
    for source in variables
        .iter_mut()
        .filter_map(|variable| variable.value_from.as_mut())
    {
        if let Some(field) = &mut source.field_ref {
            default(&mut field.api_version, "v1");
        }
        source
            .resource_field_ref
            .iter_mut()
            .for_each(set_divisor_default);
    }
}

fn set_divisor_default(selector: &mut ResourceFieldSelector) {
    canonicalize_quantity(
        selector
            .divisor
            .get_or_insert_with(|| Quantity("0".to_owned())),
    );
}

fn set_probe_defaults(probe: &mut Probe) {
    default_number(&mut probe.timeout_seconds, 1);
    default_number(&mut probe.period_seconds, 10);
    default_number(&mut probe.success_threshold, 1);
    default_number(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(set_http_get_defaults);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn set_http_get_defaults(get: &mut HTTPGetAction) {
    default(&mut get.path, "/");
    default(&mut get.scheme, "HTTP");
}

/// What is limited and not requested is requested as it is limited.
fn request_what_is_limited(resources: &mut ResourceRequirements) {
    let limits = resources.limits.clone().unwrap_or_default();
    for (name, limit) in limits {
        resources
            .requests
            .get_or_insert_default()
            .entry(name)
            .or_insert(limit);
    }
}

fn set_volume_defaults(volume: &mut Volume) {
    if *volume
        == (Volume {
            name: volume.name.clone(),
            ..Volume::default()
        })
    {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(limit) = volume
        .empty_dir
        .as_mut()
        .and_then(|source| source.size_limit.as_mut())
    {
        canonicalize_quantity(limit);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        for file in source.items.iter_mut().flatten() {
            if let Some(field) = &mut file.field_ref {
                default(&mut field.api_version, "v1");
            }
            file.resource_field_ref
                .iter_mut()
                .for_each(set_divisor_default);
        }
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        for projection in source.sources.iter_mut().flatten() {
            if let Some(token) = &mut projection.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            let files = projection
                .downward_api
                .iter_mut()
                .filter_map(|source| source.items.as_mut())
                .flatten();
            for file in files {
                if let Some(field) = &mut file.field_ref {
                    default(&mut field.api_version, "v1");
                }
                file.resource_field_ref
                    .iter_mut()
                    .for_each(set_divisor_default);
            }
        }
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(text(&source.reference));
        default(&mut source.pull_policy, policy);
    }
    if let Some(template) = volume
        .ephemeral
        .as_mut()
        .and_then(|source| source.volume_claim_template.as_mut())
    {
        set_claim_spec_defaults(&mut template.spec);
    }
    set_storage_defaults(volume);
}

/// Sets the defaults of a claim.
pub fn set_claim_spec_defaults(spec: &mut PersistentVolumeClaimSpec) {
    default(&mut spec.volume_mode, "Filesystem");
    if let Some(resources) = &mut spec.resources {
        canonicalize(&mut resources.limits);
        canonicalize(&mut resources.requests);
    }
}

/// Defaults of sources that no node of ours mounts: an object reads back as Kubernetes has it.
pub fn set_storage_defaults(volume: &mut Volume) {
    if let Some(source) = &mut volume.iscsi {
        default(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.rbd {
        default(&mut source.pool, "rbd");
        default(&mut source.user, "admin");
        default(&mut source.keyring, "/etc/ceph/keyring");
    }
    if let Some(source) = &mut volume.azure_disk {
        default(&mut source.caching_mode, "ReadWrite");
        default(&mut source.kind, "Shared");
        default(&mut source.fs_type, "ext4");
        source.read_only.get_or_insert(false);
    }
    if let Some(source) = &mut volume.scale_io {
        default(&mut source.storage_mode, "ThinProvisioned");
        default(&mut source.fs_type, "xfs");
    }
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

fn default(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.to_owned());
    }
}

/// Zero means not given, as in Kubernetes.
fn default_number(field: &mut Option<i32>, value: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(value);
    }
}

#[cfg(test)]
mod tests;
