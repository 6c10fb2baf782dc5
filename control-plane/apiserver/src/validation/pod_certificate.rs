//! Requests of nodes for certificates of their Pods, and the answers of signers.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{PodCertificateRequestSpec, PodCertificateRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificates::{check_signature, parse_request, validate_signer_name};
use super::conditions::validate_conditions;
use super::labels::MAX_ANNOTATIONS;
use super::{equality, faults, items, text};

const MAX_UID: usize = 128;
/// Bytes of a request to a signer.
const MAX_REQUEST: usize = 10 * 1024;
/// Bytes of a chain of certificates.
const MAX_CHAIN: usize = 100 * 1024;
const HOUR: i32 = 60 * 60;
/// Seconds for which a certificate is valid at most, of signers of Kubernetes and of others.
const MAX_SECONDS: (i32, i32) = (24 * HOUR, 91 * 24 * HOUR);
/// How far from its limits a certificate is renewed.
const REFRESH: SignedDuration = SignedDuration::from_mins(10);
/// Errors about names in a certificate.
const MAX_BAD_NAMES: usize = 16;
/// Conditions that are an answer.
const ANSWERS: &[&str] = &["Denied", "Failed", "Issued"];
const ED25519: &str = "1.3.101.112";

/// What a node asks for.
pub(crate) fn validate_request(spec: &PodCertificateRequestSpec, errors: &mut ErrorList) {
    let at = Path::new("spec");
    validate_signer_name(&spec.signer_name, &at.child("signerName"), errors);
    let annotations_at = at.child("unverifiedUserAnnotations");
    let mut size = 0;
    for (key, value) in spec.unverified_user_annotations.iter().flatten() {
        validate_prefixed_key(&key.to_lowercase(), &annotations_at, errors);
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.push(Error::too_long(&annotations_at, MAX_ANNOTATIONS));
    }
    for (kind, name, uid) in [
        ("pod", &spec.pod_name, &spec.pod_uid),
        (
            "serviceAccount",
            &spec.service_account_name,
            &spec.service_account_uid,
        ),
        ("node", &spec.node_name, &spec.node_uid),
    ] {
        let name_at = at.child(&format!("{kind}Name"));
        faults(name, names::dns_subdomain(name), &name_at, errors);
        let uid_at = at.child(&format!("{kind}UID"));
        if uid.is_empty() {
            errors.push(Error::invalid(&uid_at, "", "must not be empty"));
        }
        if uid.len() > MAX_UID {
            errors.push(Error::too_long(&uid_at, MAX_UID));
        }
    }
    validate_lifetime(spec, &at.child("maxExpirationSeconds"), errors);
    let stub = &spec.stub_pkc_s10_request.0;
    if stub.is_empty() {
        let detail =
            "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
        errors.push(Error::invalid_without_value(&at, detail));
    } else if stub.len() > MAX_REQUEST {
        errors.push(Error::too_long(&at.child("stubPKCS10Request"), MAX_REQUEST));
    } else if let Err(detail) = check_stub(stub) {
        let at = at.child("stubPKCS10Request");
        errors.push(Error::invalid_without_value(&at, detail));
    }
}

pub(crate) fn validate_prefixed_key(key: &str, at: &Path, errors: &mut ErrorList) {
    if key.is_empty() {
        errors.push(Error::required(at, ""));
        return;
    }
    let wrong = names::qualified_name(key);
    if wrong.is_empty() && !key.contains('/') {
        let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
        errors.push(Error::invalid(at, key, detail));
    }
    faults(key, wrong, at, errors);
}

fn validate_lifetime(spec: &PodCertificateRequestSpec, at: &Path, errors: &mut ErrorList) {
    let Some(seconds) = spec.max_expiration_seconds else {
        errors.push(Error::required(at, "must be set"));
        return;
    };
    let (domain, _) = spec.signer_name.split_once('/').unwrap_or_default();
    let of_kubernetes = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    let max = if of_kubernetes {
        MAX_SECONDS.0
    } else {
        MAX_SECONDS.1
    };
    if !(HOUR..=max).contains(&seconds) {
        let detail = format!("must be in the range [{HOUR}, {max}]");
        errors.push(Error::invalid(at, seconds, detail));
    }
}

/// A request that says nothing but which key is meant, and that who asks has it.
fn check_stub(der: &[u8]) -> Result<(), String> {
    let request = parse_request(der).map_err(|_| "must be a valid PKCS#10 CSR".to_owned())?;
    check_key(&request.certification_request_info.subject_pki)?;
    check_signature(&request).map_err(|_| "invalid signature".to_owned())
}

fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    if key.algorithm.algorithm.to_id_string() == ED25519 {
        return Ok(());
    }
    match key.parsed() {
        // Keys of P521 are of 521 bits, in whole bytes.
        Ok(PublicKey::EC(point)) => match point.key_size() {
            256 | 384 | 528 => Ok(()),
            _ => Err("elliptic public keys must use curve P256, P384, or P521".to_owned()),
        },
        Ok(PublicKey::RSA(key)) => match key.key_size() {
            3072 | 4096 => Ok(()),
            _ => Err("RSA keys must have modulus size 3072 or 4096".to_owned()),
        },
        _ => Err("unknown public key type; supported types are Ed25519, ECDSA, and RSA".to_owned()),
    }
}

/// What a signer answers to a request: once, and for good.
pub(crate) fn validate_answer(
    new: &PodCertificateRequestStatus,
    old: &PodCertificateRequestStatus,
    spec: &PodCertificateRequestSpec,
    errors: &mut ErrorList,
) {
    let at = Path::new("status");
    let conditions = items(&new.conditions);
    validate_kinds(conditions, &at.child("conditions"), errors);
    validate_conditions(conditions, &at.child("conditions"), errors);
    if !errors.is_empty() {
        return;
    }
    let same = equality::semantic(new, old);
    let alone = PodCertificateRequestStatus {
        conditions: new.conditions.clone(),
        ..Default::default()
    };
    let fault = match (answer(items(&old.conditions)), answer(conditions)) {
        (Some(_), _) => (!same).then_some(
            "immutable after PodCertificateRequest is issued, denied, or failed",
        ),
        (None, Some("Issued")) => {
            validate_issued(new, spec, errors);
            None
        }
        (None, Some(_)) => (!equality::semantic(new, &alone)).then_some(
            "non-condition status fields must be empty when denying or failing the PodCertificateRequest",
        ),
        (None, None) => (!same).then_some(
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
        ),
    };
    errors.extend(fault.map(|fault| Error::invalid_without_value(&at, fault)));
}

/// Conditions that are answers, and one of them at most.
fn validate_kinds(conditions: &[Condition], at: &Path, errors: &mut ErrorList) {
    let mut answered = false;
    for (i, condition) in conditions.iter().enumerate() {
        let (at, kind) = (at.index(i), condition.type_.as_str());
        if !ANSWERS.contains(&kind) {
            errors.push(Error::not_supported(&at.child("type"), kind, ANSWERS));
            continue;
        }
        if answered {
            let detail = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(Error::invalid(&at.child("type"), kind, detail));
        }
        answered = true;
        if condition.status != "True" {
            let status = condition.status.as_str();
            errors.push(Error::not_supported(&at.child("status"), status, &["True"]));
        }
    }
}

/// What was answered, if anything was.
fn answer(conditions: &[Condition]) -> Option<&str> {
    let said = |condition: &&Condition| {
        condition.status == "True" && ANSWERS.contains(&condition.type_.as_str())
    };
    let found = conditions.iter().find(said);
    found.map(|condition| condition.type_.as_str())
}

/// A certificate of the key that was asked about, and when it is to be renewed.
fn validate_issued(
    status: &PodCertificateRequestStatus,
    spec: &PodCertificateRequestSpec,
    errors: &mut ErrorList,
) {
    let at = Path::new("status");
    let chain_at = at.child("certificateChain");
    let chain = text(&status.certificate_chain);
    if chain.len() > MAX_CHAIN {
        errors.push(Error::too_long(&chain_at, MAX_CHAIN));
        return;
    }
    let blocks: Result<Vec<Pem>, _> = Pem::iter_from_buffer(chain.as_bytes()).collect();
    let blocks = blocks.unwrap_or_default();
    let fault = match &blocks[..] {
        [] => Some("issued certificate chain must contain at least one certificate"),
        all if all.iter().any(|block| block.label != "CERTIFICATE") => {
            Some("issued certificate chain must consist entirely of CERTIFICATE PEM blocks")
        }
        [leaf, ..] if leaf.parse_x509().is_err() => {
            Some("leaf certificate does not parse as valid X.509")
        }
        [_, others @ ..] => others
            .iter()
            .any(|block| block.parse_x509().is_err())
            .then_some("intermediate certificate does not parse as valid X.509"),
    };
    let leaf = blocks.first().and_then(|block| block.parse_x509().ok());
    let (None, Some(leaf)) = (fault, leaf) else {
        errors.extend(fault.map(|fault| Error::invalid(&chain_at, chain, fault)));
        return;
    };
    validate_names(&leaf, &chain_at, errors);
    let asked = parse_request(&spec.stub_pkc_s10_request.0);
    let asked = asked.map(|request| request.certification_request_info.subject_pki.raw);
    if asked.ok() != Some(leaf.public_key().raw) {
        let detail = "leaf certificate was not issued to the requested public key";
        errors.push(Error::invalid(&chain_at, chain, detail));
    }
    let consistent = "must be present and consistent with the issued certificate";
    let refresh = "must be present and in the range [notbefore+10min, notafter-10min]";
    for (field, time, detail) in [
        ("notBefore", &status.not_before, consistent),
        ("notAfter", &status.not_after, consistent),
        ("beginRefreshAt", &status.begin_refresh_at, refresh),
    ] {
        if time.is_none() {
            errors.push(Error::required(&at.child(field), detail));
        }
    }
    if !errors.is_empty() {
        return;
    }
    let longest = spec.max_expiration_seconds.unwrap_or_default();
    if let Some((field, detail)) = fault_of_times(status, &leaf, longest) {
        errors.push(Error::invalid_without_value(&at.child(field), detail));
    }
}

/// Names that no verifier would read alike.
fn validate_names(leaf: &X509Certificate<'_>, at: &Path, errors: &mut ErrorList) {
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return;
    };
    for name in &names.value.general_names {
        // Each error shows the whole chain.
        if errors.len() >= MAX_BAD_NAMES {
            return;
        }
        match name {
            GeneralName::DNSName(name) => {
                let name = *name;
                let mut refuse = |detail: &str| errors.push(Error::invalid(at, name, detail));
                if name.is_empty() {
                    refuse("leaf certificate should not contain empty DNSName");
                }
                if name.contains("..") {
                    refuse("leaf certificate's DNSName should not contain '..'");
                }
                if name.starts_with('.') || name.ends_with('.') {
                    refuse("leaf certificate's DNSName should not start or end with '.'");
                }
            }
            GeneralName::RFC822Name(address) => {
                let parts = address.rsplit_once('@');
                if parts.is_none_or(|(user, host)| user.is_empty() || host.is_empty()) {
                    let detail = "leaf certificate should not contain invalid EmailAddress";
                    errors.push(Error::invalid(at, *address, detail));
                }
            }
            _ => {}
        }
    }
}

/// The field of which the time is wrong, and how. That the certificate begins now is for who has a
/// clock (`admission/pod_certificate_request`).
fn fault_of_times(
    status: &PodCertificateRequestStatus,
    leaf: &X509Certificate<'_>,
    longest: i32,
) -> Option<(&'static str, String)> {
    let validity = leaf.validity();
    let (begins, ends) = (
        Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    );
    let is =
        |time: &Option<Time>, wanted: Timestamp| time.as_ref().is_some_and(|time| time.0 == wanted);
    let refresh = status.begin_refresh_at.as_ref()?.0;
    let lifetime = ends.duration_since(begins);
    let wrong = |field, detail: &str| Some((field, detail.to_owned()));
    if !is(&status.not_before, begins) {
        let detail = "must be set to the NotBefore time encoded in the leaf certificate";
        wrong("notBefore", detail)
    } else if !is(&status.not_after, ends) {
        let detail = "must be set to the NotAfter time encoded in the leaf certificate";
        wrong("notAfter", detail)
    } else if lifetime < SignedDuration::from_hours(1) {
        let detail = "leaf certificate lifetime must be >= 1 hour";
        wrong("certificateChain", detail)
    } else if lifetime > SignedDuration::from_secs(longest.into()) {
        let detail =
            format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest})");
        Some(("certificateChain", detail))
    } else if refresh.duration_since(begins) < REFRESH {
        let detail = "must be at least 10 minutes after status.notBefore";
        wrong("beginRefreshAt", detail)
    } else if ends.duration_since(refresh) < REFRESH {
        let detail = "must be at least 10 minutes before status.notAfter";
        wrong("beginRefreshAt", detail)
    } else {
        None
    }
}
