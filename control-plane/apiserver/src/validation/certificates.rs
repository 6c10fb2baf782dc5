//! Requests for certificates: what is signed, by whom, for what.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition;
use rustls::crypto::ring::default_provider;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use super::faults;

/// What a key may be used for.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Tag of an object identifier in DER.
const OBJECT_IDENTIFIER: u8 = 6;

/// A request of PKCS #10 (RFC 2986) in PEM, signed by the key that it names.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_request(pem: &[u8]) -> Result<(), String> {
    let block = Pem::iter_from_buffer(pem)
        .next()
        .and_then(Result::ok)
        .filter(|block| block.label == "CERTIFICATE REQUEST")
        .ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    check_signature(&parse_request(&block.contents)?)
}

/// A request of PKCS #10.
///
/// # Errors
/// Why it is none.
pub(crate) fn parse_request(der: &[u8]) -> Result<X509CertificationRequest<'_>, String> {
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("trailing data after the certificate request".to_owned());
    }
    Ok(request)
}

/// Whether the key that a request names has signed it.
///
/// # Errors
/// Why it has not.
pub(crate) fn check_signature(request: &X509CertificationRequest<'_>) -> Result<(), String> {
    let info = &request.certification_request_info;
    let identifier = request.signature_algorithm.algorithm.as_bytes();
    let length = u8::try_from(identifier.len()).unwrap_or(u8::MAX);
    let algorithm = [&[OBJECT_IDENTIFIER, length], identifier].concat();
    let provider = default_provider();
    let mut known = provider
        .signature_verification_algorithms
        .all
        .iter()
        .filter(|known| known.signature_alg_id().as_ref().starts_with(&algorithm))
        .peekable();
    if known.peek().is_none() {
        return Err(
            "cannot verify the signature: the algorithm is not supported, sign with ECDSA, Ed25519 or RSA"
                .to_owned(),
        );
    }
    let verified = known.any(|known| {
        let key = &info.subject_pki.subject_public_key.data;
        known
            .verify_signature(key, info.raw, &request.signature_value.data)
            .is_ok()
    });
    if verified {
        Ok(())
    } else {
        Err("the signature is not one of the request's own key".to_owned())
    }
}

/// A chain of certificates in PEM.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_chain(pem: &[u8]) -> Result<(), String> {
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            return Err(format!(
                "only CERTIFICATE PEM blocks are allowed, found {:?}",
                block.label
            ));
        }
        block.parse_x509().map_err(|error| error.to_string())?;
        blocks += 1;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

/// What the key is to be used for.
pub(crate) fn validate_usages(usages: &[String], at: &Path, errors: &mut ErrorList) {
    if usages.is_empty() {
        errors.push(Error::required(at, ""));
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in usages.iter().enumerate() {
        if !USAGES.contains(&usage.as_str()) {
            errors.push(Error::not_supported(&at.index(i), usage.as_str(), USAGES));
        }
        if !seen.insert(usage) {
            errors.push(Error::duplicate(&at.index(i), usage.as_str()));
        }
    }
}

/// `example.com/signer`: who is to sign.
pub(crate) fn validate_signer_name(signer: &str, at: &Path, errors: &mut ErrorList) {
    if signer.is_empty() {
        errors.push(Error::required(at, ""));
        return;
    }
    let Some((domain, path)) = signer
        .split_once('/')
        .filter(|(_, path)| !path.contains('/'))
    else {
        let detail =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(Error::invalid(at, signer, detail));
        return;
    };
    let mut first_fault = |whole: &str, check: fn(&str) -> Vec<String>| {
        let wrong = whole
            .split('.')
            .map(|label| (label, check(label)))
            .find(|(_, wrong)| !wrong.is_empty());
        if let Some((label, wrong)) = wrong {
            let wrong = wrong
                .into_iter()
                .map(|fault| format!("validating label {label:?}: {fault}"))
                .collect();
            faults(whole, wrong, at, errors);
        }
    };
    first_fault(domain, names::dns_label);
    first_fault(path, names::dns_subdomain);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(at, domain, detail));
    }
    if domain.len() > names::SUBDOMAIN_MAX {
        errors.push(Error::too_long(at, names::SUBDOMAIN_MAX));
    }
    let longest = 2 * names::SUBDOMAIN_MAX + names::LABEL_MAX + 2;
    if signer.len() > longest {
        errors.push(Error::too_long(at, longest));
    }
}

/// The conditions of a request: one of each type, and never both approved and denied.
pub(crate) fn validate_conditions(
    conditions: &[CertificateSigningRequestCondition],
    at: &Path,
    errors: &mut ErrorList,
) {
    let decided = |kind: &str| conditions.iter().any(|condition| condition.type_ == kind);
    if decided("Approved") && decided("Denied") {
        let both = r#"{conditions[{"type": "Approved"}], conditions[{"type": "Denied"}]}"#;
        let detail = r#"must specify at most one of: `conditions[{"type": "Approved"}]`, `conditions[{"type": "Denied"}]`"#;
        errors.push(Error::invalid(at, both, detail));
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let (at, kind) = (at.index(i), condition.type_.as_str());
        if kind.is_empty() {
            errors.push(Error::required(&at.child("type"), ""));
        }
        let states: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        let status = condition.status.as_str();
        super::one_of(status, states, &at.child("status"), errors);
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&at.child("type"), kind));
        }
    }
}

/// Conditions that decide stay; that it is approved or denied is said, and changed, by who may.
pub(crate) fn validate_decisions(
    new: &[CertificateSigningRequestCondition],
    old: &[CertificateSigningRequestCondition],
    may_decide: bool,
    errors: &mut ErrorList,
) {
    let at = Path::new("status").child("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        let of_kind = |all: &[CertificateSigningRequestCondition]| {
            let found = all.iter().filter(|condition| condition.type_ == kind);
            found.cloned().collect::<Vec<_>>()
        };
        let (new, old) = (of_kind(new), of_kind(old));
        let free = may_decide || kind == "Failed";
        let verb = if new.len() < old.len() {
            "remove"
        } else if free || new == old {
            continue;
        } else if new.len() > old.len() {
            "add"
        } else {
            "modify"
        };
        let detail = format!("updates may not {verb} a condition of type {kind:?}");
        errors.push(Error::forbidden(&at, detail));
    }
}

/// The organizations that a request names, which are groups to the API; none where it is none.
pub(crate) fn organizations(pem: &[u8]) -> Vec<String> {
    let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
    let Some(block) = block else {
        return Vec::new();
    };
    let Ok(request) = parse_request(&block.contents) else {
        return Vec::new();
    };
    let subject = &request.certification_request_info.subject;
    let named = subject.iter_organization();
    named
        .filter_map(|name| name.as_str().ok().map(str::to_owned))
        .collect()
}
