//! Volumes whose files come from the API: configMap, secret, downwardAPI, and projections of
//! several sources into one volume.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, PodCertificateProjection,
    ProjectedVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};

use super::path::{validate_local_non_reserved, validate_mode};
use crate::validation::certificates::validate_signer_name;
use crate::validation::labels::validate_label_selector;
use crate::validation::pod::env::{Shown, validate_field_selector, validate_resource_selector};
use crate::validation::pod::validate_id;
use crate::validation::pod_certificate::validate_prefixed_key;
use crate::validation::{items, shown, text};

/// Shortest and longest life of a token.
const MIN_TOKEN_SECONDS: i64 = 10 * 60;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;
/// Shortest and longest life of a certificate: an hour, 91 days.
const MIN_CERTIFICATE_SECONDS: i32 = 3600;
const MAX_CERTIFICATE_SECONDS: i32 = 7_862_400;

const KEY_TYPES: &[&str] = &[
    "RSA3072",
    "RSA4096",
    "ECDSAP256",
    "ECDSAP384",
    "ECDSAP521",
    "ED25519",
];

/// A volume of one ConfigMap or Secret: its name, and the keys that become files.
pub(crate) fn validate_keyed(
    name: &str,
    name_field: &str,
    mode: Option<i32>,
    keys: &[KeyToPath],
    at: &Path,
    errors: &mut ErrorList,
) {
    if name.is_empty() {
        errors.push(Error::required(&at.child(name_field), ""));
    }
    validate_mode(mode, &at.child("defaultMode"), errors);
    for (i, key) in keys.iter().enumerate() {
        validate_key(key, &at.child("items").index(i), errors);
    }
}

fn validate_key(key: &KeyToPath, at: &Path, errors: &mut ErrorList) {
    if key.key.is_empty() {
        errors.push(Error::required(&at.child("key"), ""));
    }
    if key.path.is_empty() {
        errors.push(Error::required(&at.child("path"), ""));
    }
    validate_local_non_reserved(&key.path, &at.child("path"), errors);
    validate_mode(key.mode, &at.child("mode"), errors);
}

/// A file that shows a field of the Pod. `at` is that of the volume, as Kubernetes has it.
pub(crate) fn validate_downward_file(
    file: &DownwardAPIVolumeFile,
    at: &Path,
    errors: &mut ErrorList,
) {
    if file.path.is_empty() {
        errors.push(Error::required(&at.child("path"), ""));
    }
    validate_local_non_reserved(&file.path, &at.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            validate_field_selector(field, Shown::File, &at.child("fieldRef"), errors);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(at, "resource", detail));
            }
        }
        (None, Some(resource)) => {
            validate_resource_selector(
                resource,
                Shown::File,
                &at.child("resourceFieldRef"),
                errors,
            );
        }
        (None, None) => {
            errors.push(Error::required(
                at,
                "one of fieldRef and resourceFieldRef is required",
            ));
        }
    }
    validate_mode(file.mode, &at.child("mode"), errors);
}

/// A volume of several sources, whose files may not collide.
pub(crate) fn validate_projected(
    projected: &ProjectedVolumeSource,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_mode(projected.default_mode, &at.child("defaultMode"), errors);
    let mut paths: BTreeSet<String> = BTreeSet::new();
    for (i, source) in items(&projected.sources).iter().enumerate() {
        let mut claim = |path: &str, value: &str, errors: &mut ErrorList| {
            if path.is_empty() {
                return;
            }
            if paths.contains(path) {
                errors.push(Error::invalid(at, value, "conflicting duplicate paths"));
            } else {
                paths.insert(path.to_owned());
            }
        };
        validate_source(
            source,
            at,
            &at.child("sources").index(i),
            &mut claim,
            errors,
        );
    }
}

fn validate_source(
    source: &VolumeProjection,
    volume_at: &Path,
    at: &Path,
    claim: &mut dyn FnMut(&str, &str, &mut ErrorList),
    errors: &mut ErrorList,
) {
    let mut sources = 0;
    let keyed = [
        (
            "secret",
            source.secret.as_ref().map(|s| (&s.name, &s.items)),
        ),
        (
            "configMap",
            source.config_map.as_ref().map(|c| (&c.name, &c.items)),
        ),
    ];
    for (field, projection) in keyed {
        let Some((name, keys)) = projection else {
            continue;
        };
        sources += 1;
        let at = at.child(field);
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        for (i, key) in items(keys).iter().enumerate() {
            validate_key(key, &at.child("items").index(i), errors);
            claim(&key.path, name, errors);
        }
    }
    if let Some(downward) = &source.downward_api {
        sources += 1;
        for file in items(&downward.items) {
            validate_downward_file(file, &at.child("downwardAPI"), errors);
            claim(&file.path, &file.path, errors);
        }
    }
    if let Some(token) = &source.service_account_token {
        sources += 1;
        validate_token(token, volume_at, &at.child("serviceAccountToken"), errors);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        sources += 1;
        validate_trust_bundle(bundle, &at.child("clusterTrustBundle"), errors);
        claim(&bundle.path, &bundle.path, errors);
    }
    if let Some(certificate) = &source.pod_certificate {
        sources += 1;
        validate_certificate(certificate, &at.child("podCertificate"), errors);
        let files = [
            &certificate.credential_bundle_path,
            &certificate.key_path,
            &certificate.certificate_chain_path,
        ];
        for path in files {
            claim(text(path), text(path), errors);
        }
    }
    if sources > 1 {
        errors.push(Error::forbidden(
            at,
            "may not specify more than 1 volume type per source",
        ));
    }
}

fn validate_token(
    token: &ServiceAccountTokenProjection,
    volume_at: &Path,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_id(token.user, &at.child("user"), errors);
    let seconds = token.expiration_seconds.unwrap_or(0);
    let seconds_at = at.child("expirationSeconds");
    if seconds < MIN_TOKEN_SECONDS {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(Error::invalid(&seconds_at, seconds, detail));
    }
    if seconds > MAX_TOKEN_SECONDS {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(Error::invalid(&seconds_at, seconds, detail));
    }
    // The path of this error lacks the source in Kubernetes, too.
    if token.path.is_empty() {
        errors.push(Error::required(&volume_at.child("path"), ""));
    } else {
        validate_local_non_reserved(&token.path, &volume_at.child("path"), errors);
    }
}

fn validate_trust_bundle(bundle: &ClusterTrustBundleProjection, at: &Path, errors: &mut ErrorList) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(
                at,
                shown(bundle),
                "only one of name and signerName may be used",
            ));
        }
        (Some(name), None) => {
            let name_at = at.child("name");
            if name.is_empty() {
                errors.push(Error::required(&name_at, "must be a valid object name"));
            }
            // A bundle of a signer is named `signer:domain:name`.
            let last = name.rsplit(':').next().unwrap_or_default();
            for fault in names::dns_subdomain(last) {
                let detail = format!("not a valid clustertrustbundlename: {fault}");
                errors.push(Error::invalid(&name_at, name.as_str(), detail));
            }
            if let Some(selector) = &bundle.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(Error::invalid(
                    &at.child("labelSelector"),
                    shown(selector),
                    detail,
                ));
            }
        }
        (None, Some(signer)) => {
            validate_signer_name(signer, &at.child("signerName"), errors);
            if let Some(selector) = &bundle.label_selector {
                validate_label_selector(selector, &at.child("labelSelector"), errors);
            }
        }
        (None, None) => errors.push(Error::required(
            at,
            "either name or signerName must be specified",
        )),
    }
    if bundle.path.is_empty() {
        errors.push(Error::required(&at.child("path"), ""));
    }
    validate_local_non_reserved(&bundle.path, &at.child("path"), errors);
}

fn validate_certificate(certificate: &PodCertificateProjection, at: &Path, errors: &mut ErrorList) {
    validate_signer_name(&certificate.signer_name, &at.child("signerName"), errors);
    for (key, _) in certificate.user_annotations.iter().flatten() {
        let key = key.to_lowercase();
        validate_prefixed_key(&key, &at.child("userAnnotations"), errors);
    }
    validate_id(certificate.user, &at.child("user"), errors);
    if !KEY_TYPES.contains(&certificate.key_type.as_str()) {
        let key = certificate.key_type.as_str();
        errors.push(Error::not_supported(&at.child("keyType"), key, KEY_TYPES));
    }
    if let Some(seconds) = certificate.max_expiration_seconds {
        let at = at.child("maxExpirationSeconds");
        if seconds < MIN_CERTIFICATE_SECONDS {
            let detail =
                format!("if provided, maxExpirationSeconds must be >= {MIN_CERTIFICATE_SECONDS}");
            errors.push(Error::invalid(&at, seconds, detail));
        }
        if seconds > MAX_CERTIFICATE_SECONDS {
            let detail =
                format!("if provided, maxExpirationSeconds must be <= {MAX_CERTIFICATE_SECONDS}");
            errors.push(Error::invalid(&at, seconds, detail));
        }
    }
    let files = [
        ("credentialBundlePath", &certificate.credential_bundle_path),
        ("keyPath", &certificate.key_path),
        ("certificateChainPath", &certificate.certificate_chain_path),
    ];
    if files.iter().all(|(_, path)| text(path).is_empty()) {
        let detail =
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(Error::required(at, detail));
    }
    for (field, path) in files {
        validate_local_non_reserved(text(path), &at.child(field), errors);
    }
}
