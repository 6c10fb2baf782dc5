//! Volumes of a Pod: each has a name and one source of one of the known types.

pub(crate) mod iscsi;
pub(crate) mod mount;
pub(crate) mod path;

mod projected;
pub(crate) mod storage;

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::path::{validate_mode, validate_no_backsteps};
use self::projected::{validate_downward_file, validate_keyed, validate_projected};
use super::resources::parse_quantity;
use super::{faults, items, text};

/// What a path of the host may have to be.
pub(crate) const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Volumes that containers may name, by their names.
pub(crate) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// The volumes of a Pod. `pod` is the Pod's own metadata, none for a template: the claims of
/// ephemeral volumes are named after the Pod. Returns those that containers may name: the valid ones.
pub(crate) fn validate_volumes<'a>(
    volumes: &'a [Volume],
    pod: Option<&ObjectMeta>,
    at: &Path,
    errors: &mut ErrorList,
) -> Volumes<'a> {
    let pod = pod
        .map(|meta| text(&meta.name))
        .filter(|name| !name.is_empty());
    // What a claim of a volume of this name would be called begins with the name of the Pod.
    let ephemeral = volumes.iter().filter(|volume| volume.ephemeral.is_some());
    let ephemeral: BTreeSet<&str> = ephemeral.map(|volume| &*volume.name).collect();
    let is_created = |claim: &str| {
        let volume = pod.and_then(|pod| claim.strip_prefix(pod)?.strip_prefix('-'));
        volume.is_some_and(|volume| ephemeral.contains(volume))
    };
    let mut valid = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = at.index(i);
        let before = errors.len();
        validate_source(volume, pod, &at, errors);
        let name_at = at.child("name");
        if volume.name.is_empty() {
            errors.push(Error::required(&name_at, ""));
        } else {
            faults(
                &volume.name,
                names::dns_label(&volume.name),
                &name_at,
                errors,
            );
        }
        if valid.contains_key(volume.name.as_str()) {
            errors.push(Error::duplicate(&name_at, volume.name.as_str()));
        }
        if errors.len() == before {
            valid.insert(&volume.name, volume);
        }
        if let Some(claim) = &volume.persistent_volume_claim
            && is_created(&claim.claim_name)
        {
            let at = at.child("persistentVolumeClaim").child("claimName");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(Error::invalid(&at, claim.claim_name.as_str(), detail));
        }
    }
    valid
}

/// The one source of a volume; `pod` is the name of its Pod, where that has one already.
fn validate_source(volume: &Volume, pod: Option<&str>, at: &Path, errors: &mut ErrorList) {
    let sources = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        (
            "awsElasticBlockStore",
            volume.aws_elastic_block_store.is_some(),
        ),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        (
            "persistentVolumeClaim",
            volume.persistent_volume_claim.is_some(),
        ),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephFS", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        (
            "photonPersistentDisk",
            volume.photon_persistent_disk.is_some(),
        ),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ];
    let mut set = sources
        .iter()
        .filter(|(_, set)| *set)
        .map(|(field, _)| *field);
    let first = set.next();
    let others: Vec<&str> = set.collect();
    match first {
        None => errors.push(Error::required(at, "must specify a volume type")),
        Some(first) if others.is_empty() => validate_first(first, volume, pod, at, errors),
        Some(first) => validate_first(first, &storage::only(volume, first), pod, at, errors),
    }
    for other in others {
        errors.push(Error::forbidden(
            &at.child(other),
            "may not specify more than 1 volume type",
        ));
    }
}

/// The source that counts, where there are several: the first in Kubernetes' order.
fn validate_first(
    first: &str,
    volume: &Volume,
    pod: Option<&str>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let source_at = at.child(first);
    match first {
        "emptyDir" => {
            if let Some(empty_dir) = &volume.empty_dir {
                validate_empty_dir(empty_dir, &source_at, errors);
            }
        }
        "hostPath" => {
            if let Some(host_path) = &volume.host_path {
                validate_host_path(host_path, &source_at, errors);
            }
        }
        "secret" => {
            if let Some(secret) = &volume.secret {
                let (name, keys) = (text(&secret.secret_name), items(&secret.items));
                validate_keyed(
                    name,
                    "secretName",
                    secret.default_mode,
                    keys,
                    &source_at,
                    errors,
                );
            }
        }
        "configMap" => {
            if let Some(map) = &volume.config_map {
                let keys = items(&map.items);
                validate_keyed(
                    &map.name,
                    "name",
                    map.default_mode,
                    keys,
                    &source_at,
                    errors,
                );
            }
        }
        "downwardAPI" => {
            if let Some(downward) = &volume.downward_api {
                validate_mode(
                    downward.default_mode,
                    &source_at.child("defaultMode"),
                    errors,
                );
                for file in items(&downward.items) {
                    validate_downward_file(file, &source_at, errors);
                }
            }
        }
        "projected" => {
            if let Some(projected) = &volume.projected {
                validate_projected(projected, &source_at, errors);
            }
        }
        "image" => {
            if let Some(image) = &volume.image {
                validate_image(image, &source_at, errors);
            }
        }
        "ephemeral" => {
            if let Some(ephemeral) = &volume.ephemeral {
                storage::validate_ephemeral(ephemeral, &source_at, errors);
            }
            // The claim is named after the Pod and the volume.
            if let Some(pod) = pod.filter(|_| !volume.name.is_empty()) {
                // A name that is longer is wrong by itself, and is not repeated with each volume.
                let end = pod.floor_char_boundary(2 * names::SUBDOMAIN_MAX);
                let claim = format!("{}-{}", &pod[..end], volume.name);
                for fault in names::dns_subdomain(&claim) {
                    let detail = format!("PVC name {claim:?}: {fault}");
                    errors.push(Error::invalid(
                        &at.child("name"),
                        volume.name.as_str(),
                        detail,
                    ));
                }
            }
        }
        _ => storage::validate_storage(volume, at, errors),
    }
}

fn validate_empty_dir(empty_dir: &EmptyDirVolumeSource, at: &Path, errors: &mut ErrorList) {
    if let Some(limit) = &empty_dir.size_limit {
        let at = at.child("sizeLimit");
        if parse_quantity(limit, &at, errors).is_some_and(|limit| limit.is_negative()) {
            errors.push(Error::forbidden(
                &at,
                "SizeLimit field must be a valid resource quantity",
            ));
        }
    }
}

pub(crate) fn validate_host_path(
    host_path: &HostPathVolumeSource,
    at: &Path,
    errors: &mut ErrorList,
) {
    if host_path.path.is_empty() {
        errors.push(Error::required(&at.child("path"), ""));
        return;
    }
    validate_no_backsteps(&host_path.path, &at.child("path"), errors);
    let kind = text(&host_path.type_);
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(Error::not_supported(
            &at.child("type"),
            kind,
            HOST_PATH_TYPES,
        ));
    }
}

fn validate_image(image: &ImageVolumeSource, at: &Path, errors: &mut ErrorList) {
    if text(&image.reference).is_empty() {
        errors.push(Error::required(&at.child("reference"), ""));
    }
    let policy = text(&image.pull_policy);
    super::one_of(
        policy,
        super::pod::container::PULL_POLICIES,
        &at.child("pullPolicy"),
        errors,
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn sources() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"name": "a", "emptyDir": {}}), vec![]),
            (
                json!({"name": "a"}),
                vec!["v[0] FieldValueRequired must specify a volume type"],
            ),
            (
                json!({"name": "A", "emptyDir": {}}),
                vec!["v[0].name FieldValueInvalid a lowercase RFC 1123 label"],
            ),
            (
                json!({"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}),
                vec!["v[0].hostPath FieldValueForbidden may not specify more than 1 volume type"],
            ),
            (
                json!({"name": "a", "hostPath": {"path": "/a/../b"}}),
                vec!["v[0].hostPath.path FieldValueInvalid"],
            ),
            (
                json!({"name": "a", "configMap": {"name": "", "defaultMode": 512, "items": [{"key": "", "path": "/x"}]}}),
                vec![
                    "v[0].configMap.name FieldValueRequired",
                    "v[0].configMap.defaultMode FieldValueInvalid must be a number between 0 and 0777",
                    "v[0].configMap.items[0].key FieldValueRequired",
                    "v[0].configMap.items[0].path FieldValueInvalid must be a relative path",
                ],
            ),
            (
                json!({"name": "a", "secret": {"secretName": "s", "items": [{"key": "k", "path": "..k"}]}}),
                vec!["v[0].secret.items[0].path FieldValueInvalid must not start with '..'"],
            ),
            (
                json!({"name": "a", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}, {"path": "x"}]}}),
                vec![
                    "v[0].downwardAPI.fieldRef.fieldPath FieldValueNotSupported",
                    "v[0].downwardAPI FieldValueRequired one of fieldRef and resourceFieldRef",
                ],
            ),
            (
                json!({"name": "a", "projected": {"sources": [
                    {"configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}},
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 60}},
                    {"configMap": {"name": "m"}, "secret": {"name": "s"}},
                ]}}),
                vec![
                    "v[0].projected FieldValueInvalid conflicting duplicate paths",
                    "v[0].projected.sources[2].serviceAccountToken.expirationSeconds FieldValueInvalid may not",
                    "v[0].projected.sources[3] FieldValueForbidden may not specify more than 1 volume type per source",
                ],
            ),
            (
                json!({"name": "a", "image": {"reference": "", "pullPolicy": "Always"}}),
                vec!["v[0].image.reference FieldValueRequired"],
            ),
            (
                json!({"name": "a", "nfs": {"server": "s", "path": "x"}}),
                vec!["v[0].nfs.path FieldValueInvalid"],
            ),
            (
                json!({"name": "a", "emptyDir": {"sizeLimit": "-1"}}),
                vec!["v[0].emptyDir.sizeLimit FieldValueForbidden"],
            ),
        ];
        for (value, want) in table {
            let mut errors = ErrorList::default();
            let meta = ObjectMeta::default();
            validate_volumes(
                &[serde_json::from_value(value).unwrap()],
                Some(&meta),
                &Path::new("v"),
                &mut errors,
            );
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn names_are_unique_and_claims_are_not_taken() {
        let volumes: Vec<Volume> = serde_json::from_value(json!([
            {"name": "a", "emptyDir": {}},
            {"name": "a", "emptyDir": {}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {
                "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": "1Gi"}}}}}},
            {"name": "p", "persistentVolumeClaim": {"claimName": "web-e"}},
        ]))
        .unwrap();
        let meta = ObjectMeta {
            name: Some("web".to_owned()),
            ..ObjectMeta::default()
        };
        let mut errors = ErrorList::default();
        validate_volumes(&volumes, Some(&meta), &Path::new("v"), &mut errors);
        assert_causes(
            &errors,
            &[
                "v[1].name FieldValueDuplicate",
                "v[3].persistentVolumeClaim.claimName FieldValueInvalid must not reference a PVC",
            ],
        );
    }
}
