//! CertificateSigningRequest: a key that wants a certificate. Who asks and when conditions changed
//! is written by admission (`admission/certificate_signing_request`), who approves writes through
//! a subresource of its own, and who signs through the status.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::table::human_duration;
use jiff::SignedDuration;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};

use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, NameRule, Strategy, Subresource,
};
use crate::validation::certificates::{
    check_chain, check_request, validate_conditions, validate_decisions, validate_signer_name,
    validate_usages,
};
use crate::validation::{items, text};

const SIGNER_FIELD: &str = "spec.signerName";
/// What requests of an API that is no more did not say.
const NO_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// Seconds for which a certificate is valid at least.
const SHORTEST: i32 = 600;

pub(super) struct CertificateSigningRequestStrategy;

impl Strategy for CertificateSigningRequestStrategy {
    type Object = CertificateSigningRequest;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<CertificateSigningRequest>()
            .short_names(&["csr"])
            .names(NameRule::PathSegment)
            .subresources(&[Subresource::Status, Subresource::Approval])
            .fields(&[SIGNER_FIELD])
    }

    fn set_defaults(&self, object: &mut CertificateSigningRequest) {
        object.status.get_or_insert_default();
    }

    fn prepare_for_create(&self, object: &mut CertificateSigningRequest) {
        object.status = Some(Default::default());
    }

    fn validate(&self, object: &CertificateSigningRequest) -> ErrorList {
        let mut errors = ErrorList::default();
        let (spec, at) = (&object.spec, Path::new("spec"));
        if let Err(fault) = check_request(&spec.request.0) {
            let shown = crate::validation::shown(&spec.request);
            errors.push(Error::invalid(&at.child("request"), shown, fault));
        }
        validate_usages(items(&spec.usages), &at.child("usages"), &mut errors);
        let signer_at = at.child("signerName");
        if spec.signer_name == NO_SIGNER {
            let detail = "the legacy signerName is not allowed via this API version";
            errors.push(Error::invalid(&signer_at, NO_SIGNER, detail));
        } else {
            validate_signer_name(&spec.signer_name, &signer_at, &mut errors);
        }
        if let Some(seconds) = spec.expiration_seconds.filter(|given| *given < SHORTEST) {
            let at = at.child("expirationSeconds");
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(Error::invalid(&at, seconds, detail));
        }
        validate_status(object, &mut errors);
        errors
    }

    fn prepare_for_update(
        &self,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn validate_update(
        &self,
        new: &CertificateSigningRequest,
        _old: &CertificateSigningRequest,
    ) -> ErrorList {
        self.validate(new)
    }

    fn prepare_for_status_update(
        &self,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        new.spec.clone_from(&old.spec);
        let Some(status) = &mut new.status else {
            return;
        };
        for kind in ["Approved", "Denied"] {
            let was = conditions(old).iter().filter(|c| c.type_ == kind);
            let was: Vec<&CertificateSigningRequestCondition> = was.collect();
            let own = status.conditions.iter_mut().flatten();
            let own: Vec<_> = own.filter(|c| c.type_ == kind).collect();
            // Who signs may write them anew, which says nothing; more or fewer are refused.
            if own.len() == was.len() {
                for (own, was) in own.into_iter().zip(was) {
                    own.clone_from(was);
                }
            }
        }
    }

    fn validate_status_update(
        &self,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_status(new, &mut errors);
        validate_decisions(conditions(new), conditions(old), false, &mut errors);
        let (new, old) = (certificate(new), certificate(old));
        if !old.is_empty() && new != old {
            let at = Path::new("status").child("certificate");
            let detail = "updates may not modify existing certificate content";
            errors.push(Error::forbidden(&at, detail));
        }
        errors
    }

    fn prepare_for_part(
        &self,
        _part: Subresource,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        new.spec.clone_from(&old.spec);
        let given = new.status.take().unwrap_or_default();
        let mut status = old.status.clone().unwrap_or_default();
        status.conditions = given.conditions;
        new.status = Some(status);
    }

    fn validate_part(
        &self,
        _part: Subresource,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_status(new, &mut errors);
        validate_decisions(conditions(new), conditions(old), true, &mut errors);
        errors
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"], &["status", "conditions"]],
            "approval" => &[&["spec"], &["status", "certificate"]],
            "" => &[&["spec"], &["status"]],
            _ => &[],
        }
    }

    fn selectable_fields(&self, object: &CertificateSigningRequest) -> Vec<(&'static str, String)> {
        vec![(SIGNER_FIELD, object.spec.signer_name.clone())]
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::age(),
            Column::text("SignerName", "Who is to sign."),
            Column::text("Requestor", "Who asks."),
            Column::text(
                "RequestedDuration",
                "For how long the certificate is wanted.",
            ),
            Column::text("Condition", "What was decided and done."),
        ]
    }

    fn row(&self, object: &CertificateSigningRequest, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        let duration = spec.expiration_seconds.map_or_else(
            || "<none>".to_owned(),
            |seconds| human_duration(SignedDuration::from_secs(seconds.into())),
        );
        vec![
            printing::name(&object.metadata),
            printing::age(&object.metadata, now),
            Cell::from(spec.signer_name.as_str()),
            Cell::from(text(&spec.username)),
            Cell::from(duration),
            Cell::from(state(object)),
        ]
    }
}

fn validate_status(object: &CertificateSigningRequest, errors: &mut ErrorList) {
    let at = Path::new("status");
    validate_conditions(conditions(object), &at.child("conditions"), errors);
    let chain = certificate(object);
    if !chain.is_empty()
        && let Err(fault) = check_chain(chain)
    {
        let at = at.child("certificate");
        errors.push(Error::invalid(&at, "<certificate data>", fault));
    }
}

fn conditions(object: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    let status = object.status.as_ref();
    status.map(|s| items(&s.conditions)).unwrap_or_default()
}

fn certificate(object: &CertificateSigningRequest) -> &[u8] {
    let status = object.status.as_ref();
    let chain = status.and_then(|status| status.certificate.as_ref());
    chain.map(|bytes| &bytes.0[..]).unwrap_or_default()
}

/// What was decided, and what became of it.
fn state(object: &CertificateSigningRequest) -> String {
    let is = |kind: &str| conditions(object).iter().any(|c| c.type_ == kind);
    let mut state = if is("Denied") {
        "Denied"
    } else if is("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if is("Failed") {
        state += ",Failed";
    }
    if !certificate(object).is_empty() {
        state += ",Issued";
    }
    state
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::ByteString;
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    const STRATEGY: CertificateSigningRequestStrategy = CertificateSigningRequestStrategy;
    const APPROVAL: Subresource = Subresource::Approval;

    fn signed() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        request.pem().unwrap().into_bytes()
    }

    fn request(change: Value) -> CertificateSigningRequest {
        let mut value = json!({"request": ByteString(signed()), "signerName": "example.com/s", "usages": ["client auth"]});
        for (field, member) in change.as_object().unwrap() {
            value[field] = member.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": value})).unwrap()
    }

    #[test]
    fn specs() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"expirationSeconds": 600}), vec![]),
            (
                json!({"request": "eA==", "signerName": "kubernetes.io/legacy-unknown", "usages": [], "expirationSeconds": 599}),
                vec![
                    "spec.request FieldValueInvalid PEM block type must be CERTIFICATE REQUEST",
                    "spec.usages FieldValueRequired",
                    "spec.signerName FieldValueInvalid the legacy signerName is not allowed",
                    "spec.expirationSeconds FieldValueInvalid may not specify a duration less than 600",
                ],
            ),
            (
                json!({"signerName": "", "usages": ["any", "any", "all"]}),
                vec![
                    "spec.usages[1] FieldValueDuplicate",
                    "spec.usages[2] FieldValueNotSupported",
                    "spec.signerName FieldValueRequired",
                ],
            ),
            (
                json!({"signerName": "example"}),
                vec!["spec.signerName FieldValueInvalid must be a fully qualified domain and path"],
            ),
            (
                json!({"signerName": "Example/s_"}),
                vec![
                    "spec.signerName FieldValueInvalid validating label \"Example\": a lowercase",
                    "spec.signerName FieldValueInvalid validating label \"s_\": a lowercase",
                    "spec.signerName FieldValueInvalid should be a domain with at least two segments",
                ],
            ),
        ];
        for (change, want) in table {
            assert_causes(&STRATEGY.validate(&request(change)), &want);
        }
        let mut forged = String::from_utf8(signed()).unwrap();
        let at = forged.rfind("\n-----END").unwrap() - 12;
        let other = if forged.as_bytes()[at] == b'A' {
            "B"
        } else {
            "A"
        };
        forged.replace_range(at..=at, other);
        let forged = request(json!({"request": ByteString(forged.into_bytes())}));
        assert_eq!(STRATEGY.validate(&forged).len(), 1);
    }

    #[test]
    fn decisions_stand() {
        let with = |conditions: Value| {
            let mut object = request(json!({}));
            object.status = serde_json::from_value(json!({ "conditions": conditions })).unwrap();
            object
        };
        let none = with(json!([]));
        let approved = json!({"type": "Approved", "status": "True"});
        let denied = json!({"type": "Denied", "status": "True"});
        let yes = with(json!([approved]));
        assert_causes(&STRATEGY.validate_part(APPROVAL, &yes, &none), &[]);
        assert_causes(
            &STRATEGY.validate_part(APPROVAL, &none, &yes),
            &[
                "status.conditions FieldValueForbidden updates may not remove a condition of type \"Approved\"",
            ],
        );
        assert_causes(
            &STRATEGY.validate_part(APPROVAL, &with(json!([approved, denied])), &none),
            &[
                "status.conditions FieldValueInvalid must specify at most one of: `conditions[{\"type\": \"Approved\"}]`",
            ],
        );
        assert_causes(
            &STRATEGY.validate_status_update(&yes, &none),
            &[
                "status.conditions FieldValueForbidden updates may not add a condition of type \"Approved\"",
            ],
        );
        // Who approves may say again why, and who signs changes nothing by it.
        let mut again = yes.clone();
        let status = again.status.as_mut().unwrap();
        status.conditions.as_mut().unwrap()[0].reason = Some("Again".to_owned());
        assert_causes(&STRATEGY.validate_part(APPROVAL, &again, &yes), &[]);
        STRATEGY.prepare_for_status_update(&mut again, &yes);
        assert_eq!(again.status, yes.status);
        let failed = with(json!([{"type": "Failed", "status": "True"}]));
        assert_causes(&STRATEGY.validate_part(APPROVAL, &failed, &none), &[]);
        assert_causes(&STRATEGY.validate_status_update(&failed, &none), &[]);
        let odd = json!([{"type": "Failed", "status": "False"}, {"type": "", "status": ""}]);
        assert_causes(
            &STRATEGY.validate_status_update(&with(odd), &none),
            &[
                "status.conditions[0].status FieldValueNotSupported",
                "status.conditions[1].type FieldValueRequired",
                "status.conditions[1].status FieldValueRequired",
            ],
        );
        let mut issued = yes.clone();
        issued.status.as_mut().unwrap().certificate = Some(ByteString(signed()));
        assert_causes(
            &STRATEGY.validate_status_update(&issued, &yes),
            &["status.certificate FieldValueInvalid only CERTIFICATE PEM blocks are allowed"],
        );
        assert_causes(
            &STRATEGY.validate_status_update(&yes, &issued),
            &["status.certificate FieldValueForbidden updates may not modify existing certificate"],
        );
        assert_eq!(state(&issued), "Approved,Issued");
        assert_eq!(state(&none), "Pending");
    }
}
