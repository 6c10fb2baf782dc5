//! serviceaccounts/token: makes a token for an account, which may be bound to a Pod, a Secret or a
//! Node and ends with it.

use axum::body::Body;
use coracle_apimachinery::field::{Error as FieldError, Path};
use coracle_apimachinery::gvk::{GroupKind, GroupResource};
use coracle_apimachinery::status::Status;
use http::{Response, StatusCode};
use k8s_openapi::Resource;
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::SignedDuration;

use super::encode::{accepted, value, warn};
use super::{Call, decode, newest};
use crate::admission::{Operation, Review};
use crate::auth::tokens::{Bound, Grant, Reference};
use crate::registry::errors::internal;
use crate::registry::meta;
use crate::registry::strategy::ErrorList;
use crate::request::options::{FieldValidation, WriteOptions};
use crate::validation::text;

/// The life of a token for which none is asked.
const DEFAULT_SECONDS: i64 = 3600;
/// The shortest life that may be asked for.
const LEAST_SECONDS: i64 = 600;
/// The longest.
const MOST_SECONDS: i64 = 1 << 32;

/// Annotations of audit events: which token was made, and for which other account.
const ISSUED: &str = "authentication.kubernetes.io/issued-credential-id";
const OTHER_UID: &str = "authentication.k8s.io/token-request-uid-mismatch";

/// The name of the type in the OpenAPI document.
const SCHEMA: &str = "io.k8s.api.authentication.v1.TokenRequest";

/// Makes a token.
pub(super) async fn create(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let Some(tokens) = &call.server.tokens else {
        return Err(Status::unknown_path());
    };
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let (mut request, mut warnings) = read(call, body, options.field_validation).await?;
    let account: ServiceAccount = newest(call, &call.info.namespace, &call.info.name).await?;
    let now = meta::now();
    let meta = &mut request.metadata;
    meta.name = Some(call.info.name.clone());
    meta.namespace = Some(call.info.namespace.clone());
    meta.creation_timestamp = Some(now.clone());
    match (&meta.uid, &account.metadata.uid) {
        (Some(given), Some(uid)) if given != uid => {
            let fault = format!(
                "the UID in the token request ({given}) does not match the UID of the service account ({uid})"
            );
            warnings.push(format!(
                "{fault} but TokenRequestServiceAccountUIDValidation is not enabled. In the future, this will return a conflict error"
            ));
            call.annotate(OTHER_UID, fault);
        }
        _ => meta.uid.clone_from(&account.metadata.uid),
    }
    request.status = None;
    let dry_run = options.dry_run;
    warnings.extend(admit(call, &mut request, tokens.audiences(), dry_run).await?);

    let spec = request.spec.clone().unwrap_or_default();
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    let bound = match &spec.bound_object_ref {
        Some(reference) => Some(bound(call, reference).await?),
        None => None,
    };
    let grant = Grant {
        namespace: call.info.namespace.clone(),
        account: reference(&account.metadata),
        bound,
        audiences: spec.audiences.unwrap_or_default(),
        seconds,
    };
    let issued = tokens
        .issue(grant, now.0.as_second())
        .map_err(|error| internal("sign a token", &error))?;
    let end = now.0.checked_add(SignedDuration::from_secs(seconds));
    request.status = Some(TokenRequestStatus {
        expiration_timestamp: end.ok().map(Time),
        token: Some(issued.token),
    });
    call.annotate(ISSUED, format!("JTI={}", issued.id));
    let mut response = value(&call.parts.headers, StatusCode::CREATED, &request)?;
    warn(response.headers_mut(), &warnings);
    Ok(response)
}

/// The request, with the warnings of field validation.
async fn read(
    call: &Call<'_>,
    body: Body,
    validation: FieldValidation,
) -> Result<(TokenRequest, Vec<String>), Status> {
    let json = decode::json(call, body).await?;
    let cannot_handle = |error: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "TokenRequest in version \"v1\" cannot be handled as a TokenRequest: {error}"
        ))
    };
    let faults = decode::faults(call, SCHEMA, &json, validation);
    if let Some(error) = decode::refusal(&faults, validation) {
        return Err(cannot_handle(&error));
    }
    let request: TokenRequest =
        serde_json::from_slice(&json).map_err(|error| cannot_handle(&error))?;
    let mut errors = ErrorList::default();
    let at = Path::new("metadata");
    for (field, given, wanted, what) in [
        ("name", &request.metadata.name, &call.info.name, "name"),
        (
            "namespace",
            &request.metadata.namespace,
            &call.info.namespace,
            "namespace",
        ),
    ] {
        let given = text(given);
        if !given.is_empty() && given != wanted {
            let detail = format!("must match the service account {what} if specified");
            errors.push(FieldError::invalid(&at.child(field), given, detail));
        }
    }
    if errors.is_empty() {
        Ok((request, faults))
    } else {
        Err(Status::invalid(&kind(), &call.info.name, errors))
    }
}

fn kind() -> GroupKind {
    GroupKind::new(TokenRequest::GROUP, TokenRequest::KIND)
}

/// The request through admission, and defaulted and validated on its way.
async fn admit(
    call: &Call<'_>,
    request: &mut TokenRequest,
    own: &[String],
    dry_run: bool,
) -> Result<Vec<String>, Status> {
    let registry = &call.server.registry;
    let mut review = Review {
        operation: Operation::Create,
        kind: call.kind,
        namespace: &call.info.namespace,
        subresource: &call.info.subresource,
        caller: call.caller(dry_run),
        warnings: Vec::new(),
    };
    registry
        .admit(&mut review, Some(&mut *request), None)
        .await?;
    let spec = request.spec.get_or_insert_default();
    // Its feature is not on.
    spec.attestations = None;
    spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    let audiences = spec.audiences.get_or_insert_default();
    if audiences.is_empty() {
        audiences.extend_from_slice(own);
    }
    let errors = validate(spec);
    if !errors.is_empty() {
        return Err(Status::invalid(&kind(), "", errors));
    }
    registry
        .validate(&mut review, Some(&*request), None)
        .await?;
    Ok(review.warnings)
}

fn validate(spec: &TokenRequestSpec) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec").child("expirationSeconds");
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    if seconds < LEAST_SECONDS {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(&at, seconds, detail));
    }
    if seconds > MOST_SECONDS {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(&at, seconds, detail));
    }
    errors
}

/// The object to which the token is bound, which must be the one that is meant.
async fn bound(call: &Call<'_>, wanted: &BoundObjectReference) -> Result<Bound, Status> {
    let (version, kind) = (text(&wanted.api_version), text(&wanted.kind));
    let name = text(&wanted.name);
    let namespace = call.info.namespace.as_str();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let (bound, uid) = match (group, kind) {
        ("", "Pod") => {
            let pod: Pod = newest(call, namespace, name).await?;
            let spec = pod.spec.unwrap_or_default();
            let account = &call.info.name;
            if spec.service_account_name.as_ref() != Some(account) {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            let pod = reference(&pod.metadata);
            let uid = pod.uid.clone();
            let node = match text(&spec.node_name) {
                "" => None,
                node => Some(node_of(call, node).await?),
            };
            (Bound::Pod { pod, node }, uid)
        }
        ("", "Secret") => {
            let secret: Secret = newest(call, namespace, name).await?;
            let secret = reference(&secret.metadata);
            (Bound::Secret(secret.clone()), secret.uid)
        }
        ("", "Node") => {
            let node: Node = newest(call, "", name).await?;
            let node = reference(&node.metadata);
            (Bound::Node(node.clone()), node.uid)
        }
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    };
    let given = text(&wanted.uid);
    if !given.is_empty() && given != uid {
        let cause = format!(
            "the UID in the bound object reference ({given}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(
            &GroupResource::new(group.to_owned(), kind.to_owned()),
            name,
            cause,
        ));
    }
    Ok(bound)
}

/// The node that a Pod is on; by its name alone where the object is not there.
async fn node_of(call: &Call<'_>, name: &str) -> Result<Reference, Status> {
    let node = call.server.registry.find::<Node>("", name).await?;
    Ok(match node {
        Some(node) => reference(&node.metadata),
        None => Reference {
            name: name.to_owned(),
            uid: String::new(),
        },
    })
}

fn reference(meta: &ObjectMeta) -> Reference {
    Reference {
        name: text(&meta.name).to_owned(),
        uid: text(&meta.uid).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn lives_are_neither_short_nor_endless() {
        let short = "spec.expirationSeconds FieldValueInvalid may not specify a duration less than 10 minutes";
        let long = "spec.expirationSeconds FieldValueInvalid may not specify a duration larger than 2^32 seconds";
        for (seconds, want) in [
            (None, &[][..]),
            (Some(600), &[]),
            (Some(1 << 32), &[]),
            (Some(599), &[short]),
            (Some(-1), &[short]),
            (Some((1 << 32) + 1), &[long]),
        ] {
            let spec = TokenRequestSpec {
                expiration_seconds: seconds,
                ..TokenRequestSpec::default()
            };
            assert_causes(&validate(&spec), want);
        }
    }
}
