//! Where the data of a volume lies: the one source that counts, and what is asked of it beyond what
//! is asked of a Pod's.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, LocalVolumeSource, PersistentVolumeSpec, SecretReference,
};

use super::{Described, SOURCES, as_pod_volume, sources};
use crate::validation::volume::iscsi::validate_iscsi;
use crate::validation::volume::path::validate_no_backsteps;
use crate::validation::volume::storage::{only, validate_driver_name, validate_storage};
use crate::validation::volume::validate_host_path;
use crate::validation::{faults, text};

/// The name of a volume and the portal that it is reached by become one name on the node.
const MAX_PORTAL: usize = 64;

pub(super) fn validate_source(
    spec: &PersistentVolumeSpec,
    described: Described<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let given = sources(spec);
    let mut found = SOURCES
        .iter()
        .copied()
        .filter(|field| given.contains_key(*field));
    match found.next() {
        None => errors.push(Error::required(at, "must specify a volume type")),
        Some(first) => validate_first(first, spec, described, at, errors),
    }
    for other in found {
        let field = match other {
            // Kubernetes looks at it beside whatever else there is.
            "flexVolume" => {
                validate_first(other, spec, described, at, errors);
                continue;
            }
            "cephfs" => "cephFS",
            other => other,
        };
        let detail = "may not specify more than 1 volume type";
        errors.push(Error::forbidden(&at.child(field), detail));
    }
    if let Some(host) = &spec.host_path {
        let is_root = host.path.starts_with('/')
            && host
                .path
                .split('/')
                .all(|part| part.is_empty() || part == ".");
        if is_root && text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
            let at = at.child("persistentVolumeReclaimPolicy");
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            errors.push(Error::forbidden(&at, detail));
        }
    }
}

/// The source that counts, where there are several: the first in Kubernetes' order.
fn validate_first(
    source: &str,
    spec: &PersistentVolumeSpec,
    described: Described<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let source_at = at.child(source);
    match source {
        "hostPath" => {
            if let Some(host) = &spec.host_path {
                validate_host_path(host, &source_at, errors);
            }
        }
        "local" => {
            if let Some(local) = &spec.local {
                validate_local(local, &source_at, errors);
            }
            if spec.node_affinity.is_none() {
                let at = at.child("nodeAffinity");
                errors.push(Error::required(&at, "Local volume requires node affinity"));
            }
        }
        "csi" => {
            if let Some(csi) = &spec.csi {
                validate_csi(csi, &source_at, errors);
            }
        }
        "iscsi" => validate_portal(spec, described, &source_at, errors),
        _ => {
            if let Some(volume) = as_pod_volume(spec) {
                validate_storage(&only(&volume, source), at, errors);
            }
            validate_namespaces(source, spec, &source_at, errors);
        }
    }
}

fn validate_local(local: &LocalVolumeSource, at: &Path, errors: &mut ErrorList) {
    let at = at.child("path");
    if local.path.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        validate_no_backsteps(&local.path, &at, errors);
    }
}

fn validate_csi(csi: &CSIPersistentVolumeSource, at: &Path, errors: &mut ErrorList) {
    validate_driver_name(&csi.driver, &at.child("driver"), errors);
    if csi.volume_handle.is_empty() {
        errors.push(Error::required(&at.child("volumeHandle"), ""));
    }
    let secrets = [
        (
            "controllerPublishSecretRef",
            &csi.controller_publish_secret_ref,
        ),
        (
            "controllerExpandSecretRef",
            &csi.controller_expand_secret_ref,
        ),
        ("nodePublishSecretRef", &csi.node_publish_secret_ref),
        ("nodeExpandSecretRef", &csi.node_expand_secret_ref),
    ];
    for (field, secret) in secrets {
        if let Some(secret) = secret {
            validate_secret(secret, &at.child(field), errors);
        }
    }
}

fn validate_secret(secret: &SecretReference, at: &Path, errors: &mut ErrorList) {
    let fields = [("name", &secret.name), ("namespace", &secret.namespace)];
    for (field, value) in fields {
        let (value, at) = (text(value), at.child(field));
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if field == "namespace" {
            faults(value, names::dns_label(value), &at, errors);
        } else {
            faults(value, names::dns_subdomain(value), &at, errors);
        }
    }
}

fn validate_portal(
    spec: &PersistentVolumeSpec,
    described: Described<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let volume = as_pod_volume(spec);
    let (Some(iscsi), Some(own)) = (volume.and_then(|volume| volume.iscsi), &spec.iscsi) else {
        return;
    };
    let name = match described {
        Described::Itself(name) => name,
        Described::Inline => "",
    };
    if iscsi.initiator_name.is_some() && name.len() + 1 + iscsi.target_portal.len() > MAX_PORTAL {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        let portal = iscsi.target_portal.as_str();
        errors.push(Error::invalid(&at.child("targetportal"), portal, detail));
    }
    validate_iscsi(&iscsi, "must be valid format", at, errors);
    if let Some(secret) = &own.secret_ref
        && text(&secret.name).is_empty()
    {
        errors.push(Error::required(&at.child("secretRef").child("name"), ""));
    }
}

/// A volume is of no namespace: where its source names an object of one, it says which one.
fn validate_namespaces(
    source: &str,
    spec: &PersistentVolumeSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let secret_at = at.child("secretRef").child("namespace");
    match source {
        "cinder" => {
            let secret = spec.cinder.as_ref().and_then(|own| own.secret_ref.as_ref());
            if secret.is_some_and(|secret| text(&secret.namespace).is_empty()) {
                errors.push(Error::required(&secret_at, ""));
            }
        }
        "storageos" => {
            let own = spec.storageos.as_ref();
            let secret = own.and_then(|own| own.secret_ref.as_ref());
            if secret.is_some_and(|secret| text(&secret.namespace).is_empty()) {
                errors.push(Error::required(&secret_at, ""));
            }
        }
        "azureFile" => {
            let own = spec.azure_file.as_ref();
            let namespace = own.and_then(|own| own.secret_namespace.as_deref());
            if namespace == Some("") {
                errors.push(Error::required(&at.child("secretNamespace"), ""));
            }
        }
        "glusterfs" => {
            let own = spec.glusterfs.as_ref();
            let at = at.child("endpointsNamespace");
            match own.and_then(|own| own.endpoints_namespace.as_deref()) {
                None => {}
                Some("") => {
                    let detail =
                        "if the endpointnamespace is set, it must be a valid namespace name";
                    errors.push(Error::invalid(&at, "", detail));
                }
                Some(namespace) => faults(namespace, names::dns_label(namespace), &at, errors),
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn only_the_first_of_several_sources_counts_and_namespaces_are_named() {
        let long = "p".repeat(63);
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({}),
                vec!["spec FieldValueRequired must specify a volume type"],
            ),
            (
                json!({"nfs": {"server": "s", "path": "/p"}, "cephfs": {"monitors": []}}),
                vec!["spec.cephFS FieldValueForbidden may not specify more than 1 volume type"],
            ),
            (
                json!({"nfs": {"server": "s", "path": "/p"}, "flexVolume": {"driver": ""}}),
                vec!["spec.flexVolume.driver FieldValueRequired"],
            ),
            (
                json!({"hostPath": {"path": "", "type": "Bad"}, "csi": {"driver": "", "volumeHandle": ""}}),
                vec![
                    "spec.hostPath.path FieldValueRequired",
                    "spec.csi FieldValueForbidden may not specify more than 1 volume type",
                ],
            ),
            (
                json!({"cephfs": {"monitors": []}}),
                vec!["spec.cephfs.monitors FieldValueRequired"],
            ),
            (
                json!({"cinder": {"volumeID": "v", "secretRef": {}}}),
                vec![
                    "spec.cinder.secretRef.name FieldValueRequired",
                    "spec.cinder.secretRef.namespace FieldValueRequired",
                ],
            ),
            (
                json!({"storageos": {"volumeName": "V", "volumeNamespace": "N", "secretRef": {"name": "s"}}}),
                vec![
                    "spec.storageos.volumeName FieldValueInvalid a lowercase RFC 1123 label",
                    "spec.storageos.volumeNamespace FieldValueInvalid a lowercase RFC 1123 label",
                    "spec.storageos.secretRef.namespace FieldValueRequired",
                ],
            ),
            (
                json!({"azureFile": {"secretName": "s", "shareName": "s", "secretNamespace": ""}}),
                vec!["spec.azureFile.secretNamespace FieldValueRequired"],
            ),
            (
                json!({"glusterfs": {"endpoints": "e", "path": "p", "endpointsNamespace": "A"}}),
                vec!["spec.glusterfs.endpointsNamespace FieldValueInvalid a lowercase RFC 1123"],
            ),
            (
                json!({"iscsi": {"targetPortal": long, "iqn": "iqn.x", "lun": 0, "initiatorName": "x", "secretRef": {}}}),
                vec![
                    "spec.iscsi.targetportal FieldValueInvalid Total length",
                    "spec.iscsi.iqn FieldValueInvalid must be valid format",
                    "spec.iscsi.initiatorname FieldValueInvalid must be valid format",
                    "spec.iscsi.secretRef.name FieldValueRequired",
                ],
            ),
        ];
        for (value, want) in table {
            let spec: PersistentVolumeSpec = serde_json::from_value(value).unwrap();
            let mut errors = ErrorList::default();
            let described = Described::Itself("v");
            validate_source(&spec, described, &Path::new("spec"), &mut errors);
            assert_causes(&errors, &want);
        }
    }
}
