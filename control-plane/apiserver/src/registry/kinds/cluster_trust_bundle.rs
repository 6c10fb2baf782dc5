//! ClusterTrustBundle: certificates that whoever mounts them trusts, and the signer whose they are.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use x509_parser::pem::Pem;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, NameRule, Strategy};
use crate::validation::certificates::validate_signer_name;
use crate::validation::{faults, immutable, text};

const SIGNER_FIELD: &str = "spec.signerName";
/// Bytes of a bundle.
const MAX_BUNDLE: usize = 1024 * 1024;

pub(super) struct ClusterTrustBundleStrategy;

impl Strategy for ClusterTrustBundleStrategy {
    type Object = ClusterTrustBundle;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ClusterTrustBundle>()
            .names(NameRule::PathSegment)
            .fields(&[SIGNER_FIELD])
    }

    fn validate(&self, object: &ClusterTrustBundle) -> ErrorList {
        let mut errors = ErrorList::default();
        let signer = text(&object.spec.signer_name);
        validate_name(text(&object.metadata.name), signer, &mut errors);
        let at = Path::new("spec");
        if !signer.is_empty() {
            validate_signer_name(signer, &at.child("signerName"), &mut errors);
        }
        validate_bundle(
            &object.spec.trust_bundle,
            &at.child("trustBundle"),
            &mut errors,
        );
        errors
    }

    fn validate_update(&self, new: &ClusterTrustBundle, old: &ClusterTrustBundle) -> ErrorList {
        let mut errors = self.validate(new);
        let at = Path::new("spec").child("signerName");
        immutable(
            &new.spec.signer_name,
            &old.spec.signer_name,
            &at,
            &mut errors,
        );
        errors
    }

    fn selectable_fields(&self, object: &ClusterTrustBundle) -> Vec<(&'static str, String)> {
        vec![(SIGNER_FIELD, text(&object.spec.signer_name).to_owned())]
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("SignerName", "The signer whose certificates these are."),
        ]
    }

    fn row(&self, object: &ClusterTrustBundle, _now: jiff::Timestamp) -> Vec<Cell> {
        let signer = text(&object.spec.signer_name);
        let signer = if signer.is_empty() { "<none>" } else { signer };
        vec![printing::name(&object.metadata), Cell::from(signer)]
    }
}

/// A bundle of a signer has the signer in its name, so that nobody takes it for another's.
fn validate_name(name: &str, signer: &str, errors: &mut ErrorList) {
    let at = Path::new("metadata").child("name");
    let mut rest = name;
    if signer.is_empty() {
        if name.contains(':') {
            let detail = "ClusterTrustBundle without signer name must not have \":\" in its name";
            errors.push(Error::invalid(&at, name, detail));
            return;
        }
    } else {
        let prefix = format!("{}:", signer.replace('/', ":"));
        match name.strip_prefix(&prefix) {
            Some(own) => rest = own,
            None => {
                let detail = format!(
                    "ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
                );
                errors.push(Error::invalid(&at, name, detail));
                return;
            }
        }
    }
    faults(name, names::dns_subdomain(rest), &at, errors);
}

fn validate_bundle(bundle: &str, at: &Path, errors: &mut ErrorList) {
    if bundle.len() > MAX_BUNDLE {
        errors.push(Error::too_long(at, MAX_BUNDLE));
        return;
    }
    let mut refuse = |detail: String| {
        errors.push(Error::invalid(at, "<value omitted>", detail));
    };
    let mut seen = BTreeMap::new();
    for (i, block) in Pem::iter_from_buffer(bundle.as_bytes()).enumerate() {
        let Ok(block) = block else {
            refuse(format!("entry {i} is no PEM block"));
            return;
        };
        if block.label != "CERTIFICATE" {
            refuse(format!("entry {i} has bad block type: {}", block.label));
        } else if block.parse_x509().is_err() {
            refuse(format!("entry {i} does not parse as X.509"));
        }
        if let Some(first) = seen.insert(block.contents, i) {
            refuse(format!("duplicate trust anchor (indices {first} and {i})"));
        }
    }
    if seen.is_empty() {
        refuse("at least one trust anchor must be provided".to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn validation() {
        let key = KeyPair::generate().unwrap();
        let anchor = CertificateParams::default()
            .self_signed(&key)
            .unwrap()
            .pem();
        let key = key.serialize_pem();
        let twice = format!("{anchor}{anchor}");
        let table: [(&str, &str, &str, &[&str]); 6] = [
            ("a", "", &anchor, &[]),
            ("a.b:s:x", "a.b/s", &anchor, &[]),
            (
                "a:b",
                "",
                "",
                &[
                    "metadata.name FieldValueInvalid ClusterTrustBundle without signer name must not",
                    "spec.trustBundle FieldValueInvalid at least one trust anchor must be provided",
                ],
            ),
            (
                "x",
                "a.b/s",
                &twice,
                &[
                    "metadata.name FieldValueInvalid ClusterTrustBundle for signerName a.b/s must be named with prefix a.b:s:",
                    "spec.trustBundle FieldValueInvalid duplicate trust anchor (indices 0 and 1)",
                ],
            ),
            (
                "A",
                "",
                &key,
                &[
                    "metadata.name FieldValueInvalid a lowercase RFC 1123 subdomain",
                    "spec.trustBundle FieldValueInvalid entry 0 has bad block type: PRIVATE KEY",
                ],
            ),
            (
                "b:x",
                "b",
                &anchor,
                &["spec.signerName FieldValueInvalid must be a fully qualified domain"],
            ),
        ];
        let bundle = |name: &str, signer: &str, pem: &str| -> ClusterTrustBundle {
            let spec = json!({"signerName": signer, "trustBundle": pem});
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
        };
        for (name, signer, pem, want) in table {
            let errors = ClusterTrustBundleStrategy.validate(&bundle(name, signer, pem));
            assert_causes(&errors, want);
        }
        let (new, old) = (bundle("a", "", &anchor), bundle("a", "a.b/s", &anchor));
        assert_causes(
            &ClusterTrustBundleStrategy.validate_update(&new, &old),
            &["spec.signerName FieldValueInvalid field is immutable"],
        );
    }
}
