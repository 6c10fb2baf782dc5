//! Volumes whose storage lies outside the Pod: claims, CSI, and the sources of the time before
//! them. Only their structure is looked at: which of them a node can mount is the node's affair.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, CSIVolumeSource, EphemeralVolumeSource, FCVolumeSource,
    FlexVolumeSource, FlockerVolumeSource, NFSVolumeSource, QuobyteVolumeSource, Volume,
};
use serde_json::{Map, Value};

use super::iscsi::validate_iscsi;
use super::path::validate_local_descending;
use crate::validation::claim::validate_claim_spec;
use crate::validation::object_meta::validate_claim_template_meta;
use crate::validation::{faults, items, one_of, shown, text};

/// Errors about places of a registry.
const MAX_BAD_PLACES: usize = 16;
pub(super) const RANGE_255: &str = "must be between 0 and 255, inclusive";

/// A volume with this one of its sources only, as its field is called but for case: where there are
/// several, Kubernetes looks at the first.
pub(crate) fn only(volume: &Volume, source: &str) -> Volume {
    let mut fields = match shown(volume) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.retain(|field, _| field == "name" || field.eq_ignore_ascii_case(source));
    serde_json::from_value(Value::Object(fields)).unwrap_or_default()
}

/// The source of a volume where it is one of storage, and its only one (`only`); `at` is that of
/// the volume.
pub(crate) fn validate_storage(volume: &Volume, at: &Path, errors: &mut ErrorList) {
    for (source, field, value) in required_fields(volume) {
        if value.is_empty() {
            errors.push(Error::required(&at.child(source).child(field), ""));
        }
    }
    if let Some(repository) = &volume.git_repo {
        let at = at.child("gitRepo").child("directory");
        validate_local_descending(text(&repository.directory), &at, errors);
    }
    let partitions = [
        (
            "persistentDisk",
            volume
                .gce_persistent_disk
                .as_ref()
                .and_then(|disk| disk.partition),
        ),
        (
            "awsElasticBlockStore",
            volume
                .aws_elastic_block_store
                .as_ref()
                .and_then(|disk| disk.partition),
        ),
    ];
    for (source, partition) in partitions {
        if let Some(partition) = partition
            && !(0..=255).contains(&partition)
        {
            let detail = "must be between 1 and 255, inclusive";
            errors.push(Error::invalid(
                &at.child(source).child("partition"),
                partition,
                detail,
            ));
        }
    }
    if let Some(nfs) = &volume.nfs {
        validate_nfs(nfs, &at.child("nfs"), errors);
    }
    if let Some(iscsi) = &volume.iscsi {
        let detail = "must be valid format starting with iqn, eui, or naa";
        validate_iscsi(iscsi, detail, &at.child("iscsi"), errors);
    }
    if let Some(fc) = &volume.fc {
        validate_fc(fc, &at.child("fc"), errors);
    }
    if let Some(flocker) = &volume.flocker {
        validate_flocker(flocker, &at.child("flocker"), errors);
    }
    if let Some(flex) = &volume.flex_volume {
        validate_flex(flex, &at.child("flexVolume"), errors);
    }
    if let Some(disk) = &volume.azure_disk {
        validate_azure_disk(disk, &at.child("azureDisk"), errors);
    }
    if let Some(csi) = &volume.csi {
        validate_csi(csi, &at.child("csi"), errors);
    }
    if let Some(quobyte) = &volume.quobyte {
        validate_quobyte(quobyte, &at.child("quobyte"), errors);
    }
    if let Some(storage) = &volume.storageos {
        let at = at.child("storageos");
        for (field, name) in [
            ("volumeName", text(&storage.volume_name)),
            ("volumeNamespace", text(&storage.volume_namespace)),
        ] {
            if !name.is_empty() {
                faults(name, names::dns_label(name), &at.child(field), errors);
            }
        }
    }
    let secrets = [
        (
            "cinder",
            volume
                .cinder
                .as_ref()
                .and_then(|source| source.secret_ref.as_ref()),
        ),
        (
            "storageos",
            volume
                .storageos
                .as_ref()
                .and_then(|source| source.secret_ref.as_ref()),
        ),
    ];
    for (source, secret) in secrets {
        if secret.is_some_and(|secret| secret.name.is_empty()) {
            let at = at.child(source).child("secretRef").child("name");
            errors.push(Error::required(&at, ""));
        }
    }
    let monitors = [
        (
            "cephfs",
            volume.cephfs.as_ref().map(|source| &source.monitors),
        ),
        ("rbd", volume.rbd.as_ref().map(|source| &source.monitors)),
    ];
    for (source, monitors) in monitors {
        if monitors.is_some_and(Vec::is_empty) {
            errors.push(Error::required(&at.child(source).child("monitors"), ""));
        }
    }
}

/// Source, field and value of what may not be empty.
fn required_fields(volume: &Volume) -> Vec<(&'static str, &'static str, &str)> {
    let mut fields: Vec<(&'static str, &'static str, &str)> = Vec::new();
    if let Some(source) = &volume.git_repo {
        fields.push(("gitRepo", "repository", &source.repository));
    }
    if let Some(source) = &volume.gce_persistent_disk {
        fields.push(("persistentDisk", "pdName", &source.pd_name));
    }
    if let Some(source) = &volume.aws_elastic_block_store {
        fields.push(("awsElasticBlockStore", "volumeID", &source.volume_id));
    }
    if let Some(source) = &volume.persistent_volume_claim {
        fields.push(("persistentVolumeClaim", "claimName", &source.claim_name));
    }
    if let Some(source) = &volume.glusterfs {
        fields.push(("glusterfs", "endpoints", &source.endpoints));
        fields.push(("glusterfs", "path", &source.path));
    }
    if let Some(source) = &volume.rbd {
        fields.push(("rbd", "image", &source.image));
    }
    if let Some(source) = &volume.cinder {
        fields.push(("cinder", "volumeID", &source.volume_id));
    }
    if let Some(source) = &volume.quobyte {
        fields.push(("quobyte", "volume", &source.volume));
    }
    if let Some(source) = &volume.azure_file {
        fields.push(("azureFile", "secretName", &source.secret_name));
        fields.push(("azureFile", "shareName", &source.share_name));
    }
    if let Some(source) = &volume.vsphere_volume {
        fields.push(("vsphereVolume", "volumePath", &source.volume_path));
    }
    if let Some(source) = &volume.photon_persistent_disk {
        fields.push(("photonPersistentDisk", "pdID", &source.pd_id));
    }
    if let Some(source) = &volume.portworx_volume {
        fields.push(("portworxVolume", "volumeID", &source.volume_id));
    }
    if let Some(source) = &volume.storageos {
        fields.push(("storageos", "volumeName", text(&source.volume_name)));
    }
    if let Some(source) = &volume.scale_io {
        fields.push(("scaleIO", "gateway", &source.gateway));
        fields.push(("scaleIO", "system", &source.system));
        fields.push(("scaleIO", "volumeName", text(&source.volume_name)));
    }
    fields
}

fn validate_nfs(nfs: &NFSVolumeSource, at: &Path, errors: &mut ErrorList) {
    for (field, value) in [("server", &nfs.server), ("path", &nfs.path)] {
        if value.is_empty() {
            errors.push(Error::required(&at.child(field), ""));
        }
    }
    if !nfs.path.starts_with('/') {
        errors.push(Error::invalid(
            &at.child("path"),
            nfs.path.as_str(),
            "must be an absolute path",
        ));
    }
}

/// The registry of a Quobyte volume is a list of places, by commas.
fn validate_quobyte(quobyte: &QuobyteVolumeSource, at: &Path, errors: &mut ErrorList) {
    let detail = "must be a host:port pair or multiple pairs separated by commas";
    let registry_at = at.child("registry");
    if quobyte.registry.is_empty() {
        errors.push(Error::required(&registry_at, detail));
    } else if text(&quobyte.tenant).len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(Error::required(&at.child("tenant"), detail));
    } else {
        let places = quobyte.registry.split(',');
        let wrong = places.filter(|place| !is_host_and_port(place));
        // The same is said of each, with the whole list.
        for _ in wrong.take(MAX_BAD_PLACES) {
            let registry = quobyte.registry.as_str();
            errors.push(Error::invalid(&registry_at, registry, detail));
        }
    }
}

/// As Go's `net.SplitHostPort` has it: an address of colons is in brackets, either part may be empty.
fn is_host_and_port(place: &str) -> bool {
    let Some((host, port)) = place.rsplit_once(':') else {
        return false;
    };
    let host = match host.strip_prefix('[') {
        Some(inner) => match inner.strip_suffix(']') {
            Some(inner) => inner,
            None => return false,
        },
        None if host.contains(':') => return false,
        None => host,
    };
    ![host, port].iter().any(|part| part.contains(['[', ']']))
}

fn validate_fc(fc: &FCVolumeSource, at: &Path, errors: &mut ErrorList) {
    let targets = items(&fc.target_wwns);
    let targets_at = at.child("targetWWNs");
    match (targets.is_empty(), items(&fc.wwids).is_empty()) {
        (true, true) => {
            let detail = "must specify either targetWWNs or wwids, but not both";
            errors.push(Error::required(&targets_at, detail));
        }
        (false, false) => {
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(Error::invalid(&targets_at, shown(&targets), detail));
        }
        _ => {}
    }
    match fc.lun {
        _ if targets.is_empty() => {}
        None => errors.push(Error::required(
            &at.child("lun"),
            "lun is required if targetWWNs is specified",
        )),
        Some(lun) if !(0..=255).contains(&lun) => {
            errors.push(Error::invalid(&at.child("lun"), lun, RANGE_255));
        }
        Some(_) => {}
    }
}

fn validate_flocker(flocker: &FlockerVolumeSource, at: &Path, errors: &mut ErrorList) {
    let (name, uuid) = (text(&flocker.dataset_name), text(&flocker.dataset_uuid));
    if name.is_empty() && uuid.is_empty() {
        errors.push(Error::required(
            at,
            "one of datasetName and datasetUUID is required",
        ));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(Error::invalid(at, "resource", detail));
    }
    if name.contains('/') {
        errors.push(Error::invalid(
            &at.child("datasetName"),
            name,
            "must not contain '/'",
        ));
    }
}

fn validate_flex(flex: &FlexVolumeSource, at: &Path, errors: &mut ErrorList) {
    if flex.driver.is_empty() {
        errors.push(Error::required(&at.child("driver"), ""));
    }
    for key in flex.options.iter().flatten().map(|(key, _)| key) {
        let domain = key
            .split_once('/')
            .map_or(key.as_str(), |(domain, _)| domain);
        let domain = format!(".{}", domain.to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(
                &at.child("options").key(key),
                key.as_str(),
                detail,
            ));
        }
    }
}

fn validate_azure_disk(disk: &AzureDiskVolumeSource, at: &Path, errors: &mut ErrorList) {
    for (field, value) in [("diskName", &disk.disk_name), ("diskURI", &disk.disk_uri)] {
        if value.is_empty() {
            errors.push(Error::required(&at.child(field), ""));
        }
    }
    if let Some(mode) = &disk.caching_mode {
        one_of(
            mode,
            &["None", "ReadOnly", "ReadWrite"],
            &at.child("cachingMode"),
            errors,
        );
    }
    let Some(kind) = &disk.kind else {
        return;
    };
    one_of(
        kind,
        &["Dedicated", "Managed", "Shared"],
        &at.child("kind"),
        errors,
    );
    let (scheme, example) = if kind == "Managed" {
        let example = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
        ("/subscriptions/", example)
    } else {
        (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        )
    };
    if !disk.disk_uri.starts_with(scheme) {
        errors.push(Error::not_supported(
            &at.child("diskURI"),
            disk.disk_uri.as_str(),
            &[example],
        ));
    }
}

/// The name of a driver of the Container Storage Interface.
pub(crate) fn validate_driver_name(driver: &str, driver_at: &Path, errors: &mut ErrorList) {
    if driver.is_empty() {
        errors.push(Error::required(driver_at, ""));
        return;
    }
    if driver.len() > 63 {
        errors.push(Error::too_long(driver_at, 63));
    }
    let lower = driver.to_lowercase();
    faults(driver, names::dns_subdomain(&lower), driver_at, errors);
}

fn validate_csi(csi: &CSIVolumeSource, at: &Path, errors: &mut ErrorList) {
    validate_driver_name(&csi.driver, &at.child("driver"), errors);
    if let Some(secret) = &csi.node_publish_secret_ref {
        if secret.name.is_empty() {
            let at = at.child("nodePublishSecretRef").child("name");
            errors.push(Error::required(&at, ""));
        } else {
            // Kubernetes leaves the reference out of the path.
            let name = secret.name.as_str();
            faults(name, names::dns_subdomain(name), &at.child("name"), errors);
        }
    }
}

/// The claim that is made for a Pod.
pub(super) fn validate_ephemeral(
    ephemeral: &EphemeralVolumeSource,
    at: &Path,
    errors: &mut ErrorList,
) {
    let at = at.child("volumeClaimTemplate");
    match &ephemeral.volume_claim_template {
        None => errors.push(Error::required(&at, "")),
        Some(template) => {
            if let Some(meta) = &template.metadata {
                validate_claim_template_meta(meta, &at.child("metadata"), errors);
            }
            validate_claim_spec(&template.spec, &at.child("spec"), errors);
        }
    }
}
