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
            .conditional_update()
    }

    fn validate(&self, object: &ClusterTrustBundle) -> ErrorList {
        let mut errors = validate_whose(object);
        let at = Path::new("spec").child("trustBundle");
        validate_bundle(&object.spec.trust_bundle, &at, &mut errors);
        errors
    }

    fn validate_update(&self, new: &ClusterTrustBundle, old: &ClusterTrustBundle) -> ErrorList {
        let mut errors = if new.spec.trust_bundle == old.spec.trust_bundle {
            // What was taken once is not read again, perhaps by another parser.
            validate_whose(new)
        } else {
            self.validate(new)
        };
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

/// The name, and the signer where there is one.
fn validate_whose(object: &ClusterTrustBundle) -> ErrorList {
    let mut errors = ErrorList::default();
    let signer = text(&object.spec.signer_name);
    validate_name(text(&object.metadata.name), signer, &mut errors);
    if !signer.is_empty() {
        let at = Path::new("spec").child("signerName");
        validate_signer_name(signer, &at, &mut errors);
    }
    errors
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
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (i, block) in Pem::iter_from_buffer(bundle.as_bytes()).enumerate() {
        let Ok(block) = block else {
            wrong.push(format!("entry {i} is no PEM block"));
            break;
        };
        match anchor_fault(&block) {
            Some(fault) => wrong.push(format!("entry {i} {fault}")),
            None => seen.entry(block.contents).or_default().push(i),
        }
    }
    // Of what is whole alone it is said that it is too little or too much.
    if wrong.is_empty() {
        if seen.is_empty() {
            wrong.push("at least one trust anchor must be provided".to_owned());
        }
        for twice in seen.values().filter(|indices| indices.len() > 1) {
            let indices: Vec<String> = twice.iter().map(usize::to_string).collect();
            let indices = indices.join(" ");
            wrong.push(format!("duplicate trust anchor (indices [{indices}])"));
        }
    }
    let wrong = wrong.into_iter();
    errors.extend(wrong.map(|detail| Error::invalid(at, "<value omitted>", detail)));
}

/// What keeps a block from being the certificate of an authority.
fn anchor_fault(block: &Pem) -> Option<String> {
    if block.label != "CERTIFICATE" {
        return Some(format!("has bad block type: {}", block.label));
    }
    let Ok(certificate) = block.parse_x509() else {
        return Some("does not parse as X.509".to_owned());
    };
    (!certificate.is_ca()).then(|| "does not have the CA bit set".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn validation() {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::default()
            .self_signed(&key)
            .unwrap()
            .pem();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let anchor = authority.self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        let twice = format!("{anchor}{anchor}");
        let table: [(&str, &str, &str, &[&str]); 7] = [
            ("a", "", &anchor, &[]),
            ("a.b:s:x", "a.b/s", &anchor, &[]),
            (
                "a",
                "",
                &leaf,
                &["spec.trustBundle FieldValueInvalid entry 0 does not have the CA bit set"],
            ),
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
                    "spec.trustBundle FieldValueInvalid duplicate trust anchor (indices [0 1])",
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
        let same = bundle("a", "", &leaf);
        let errors = ClusterTrustBundleStrategy.validate_update(&same, &same);
        assert_causes(&errors, &[]);
        let (new, old) = (bundle("a", "", &anchor), bundle("a", "a.b/s", &anchor));
        assert_causes(
            &ClusterTrustBundleStrategy.validate_update(&new, &old),
            &["spec.signerName FieldValueInvalid field is immutable"],
        );
    }
}
