//! Status: what the API answers where it does not answer with an object.
//!
//! This is the only place where Status objects are made, so that reason, code, message and
//! details agree, with each other and with what kubectl and client libraries match on. A Status
//! is shown to callers: internal causes are logged where they arise and do not come here.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    Status as ApiStatus, StatusCause as ApiCause, StatusDetails as ApiDetails,
};
use serde::{Deserialize, Serialize};

use crate::field::{self, ErrorList};
use crate::gvk::{GroupKind, GroupResource};

/// The message of a conflict of resource versions, which clients look for.
pub const OBJECT_MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// A Kubernetes Status. As an error it displays its message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(Box<ApiStatus>);

impl Status {
    /// 404: there is no such object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, "NotFound", format!("{resource} {name:?} not found")).of(resource, name)
    }

    /// 404: there is no such path on this server.
    pub fn unknown_path() -> Self {
        Self::failure(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
        .details(|_| {})
    }

    /// 409: an object of this name is there.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(
            409,
            "AlreadyExists",
            format!("{resource} {name:?} already exists"),
        )
        .of(resource, name)
    }

    /// 409: every name made from `generateName` was taken.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str) -> Self {
        let message = format!(
            "{resource} {name:?} already exists, the server was not able to generate a unique name for the object"
        );
        Self::failure(409, "AlreadyExists", message)
            .retry_after(1)
            .of(resource, name)
    }

    /// 409: a precondition does not hold; `cause` as a rule is [`OBJECT_MODIFIED`].
    pub fn conflict(resource: &GroupResource, name: &str, cause: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {cause}");
        Self::failure(409, "Conflict", message).of(resource, name)
    }

    /// 422: the object breaks the rules of its kind. Each error becomes a cause, what was found
    /// twice one.
    pub fn invalid(kind: &GroupKind, name: &str, errors: impl Into<ErrorList>) -> Self {
        let errors = errors.into();
        let message = match &errors[..] {
            [] => format!("{kind} {name:?} is invalid"),
            errors => format!("{kind} {name:?} is invalid: {}", field::aggregate(errors)),
        };
        let mut causes: Vec<ApiCause> = Vec::new();
        let mut seen = BTreeSet::new();
        for error in &errors {
            if seen.insert(error.to_string()) {
                causes.push(ApiCause {
                    reason: Some(error.kind.reason().into()),
                    message: Some(error.body()),
                    field: non_empty(error.field.as_str()),
                });
            }
        }
        Self::failure(422, "Invalid", message).details(|details| {
            details.group = non_empty(&kind.group);
            details.kind = non_empty(&kind.kind);
            details.name = non_empty(name);
            details.causes = Some(causes);
        })
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl fmt::Display) -> Self {
        Self::failure(400, "BadRequest", message.to_string())
    }

    /// 401: nobody knows who asks.
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 403: the caller, or an admission rule, may not do this to the object.
    pub fn forbidden(resource: &GroupResource, name: &str, cause: impl fmt::Display) -> Self {
        let message = if resource.resource.is_empty() {
            format!("forbidden: {cause}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {cause}")
        } else {
            format!("{resource} {name:?} is forbidden: {cause}")
        };
        Self::failure(403, "Forbidden", message).of(resource, name)
    }

    /// 405: the resource does not know the verb.
    pub fn method_not_supported(resource: &GroupResource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind \"{resource}\"");
        Self::failure(405, "MethodNotAllowed", message).of(resource, "")
    }

    /// 406: no media type that the caller accepts is one that is served.
    pub fn not_acceptable(served: &[&str]) -> Self {
        Self::no_such_form(format!(
            "only the following media types are accepted: {}",
            served.join(", ")
        ))
    }

    /// 406: what is served has no such form as the caller accepts.
    pub fn no_such_form(message: impl fmt::Display) -> Self {
        Self::failure(406, "NotAcceptable", message.to_string())
    }

    /// 410: what was asked for is gone for good.
    pub fn gone(message: impl fmt::Display) -> Self {
        Self::failure(410, "Gone", message.to_string())
    }

    /// 410: the revision, or the continue token, is no longer retained.
    pub fn expired(message: impl fmt::Display) -> Self {
        Self::failure(410, "Expired", message.to_string())
    }

    /// 413: the body is too large.
    pub fn request_entity_too_large(detail: impl fmt::Display) -> Self {
        Self::failure(
            413,
            "RequestEntityTooLarge",
            format!("Request entity is too large: {detail}"),
        )
    }

    /// 415: the body is of a type that is not read here.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 415: the body is compressed, which is not read.
    pub fn unsupported_content_encoding(coding: &str) -> Self {
        let message = format!(
            "the body of the request has the content encoding {coding:?}, which is not read - send it as it is"
        );
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 429: try again after so many seconds (0: whenever you like).
    pub fn too_many_requests(message: impl fmt::Display, retry_after_seconds: i32) -> Self {
        Self::failure(429, "TooManyRequests", message.to_string()).retry_after(retry_after_seconds)
    }

    /// 500: something broke that is no fault of the caller. `message` is shown to the caller.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::failure(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
        .with_cause("", &message.to_string(), "")
    }

    /// 500: the server could not do it in time, and trying again is right.
    pub fn server_timeout(
        resource: &GroupResource,
        operation: &str,
        retry_after_seconds: i32,
    ) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self::failure(500, "ServerTimeout", message)
            .of(resource, operation)
            .retry_after(retry_after_seconds)
    }

    /// 503: the server cannot serve now.
    pub fn service_unavailable(message: impl fmt::Display) -> Self {
        Self::failure(503, "ServiceUnavailable", message.to_string())
    }

    /// 504: the request took longer than it may.
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: i32) -> Self {
        Self::failure(504, "Timeout", format!("Timeout: {message}"))
            .retry_after(retry_after_seconds)
    }

    /// 507: there is no room for another write. (Kubernetes has no such reason; clients treat an
    /// unknown one as a plain failure.)
    pub fn insufficient_storage(message: impl fmt::Display) -> Self {
        Self::failure(507, "InsufficientStorage", message.to_string())
    }

    /// Any other failure.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(ApiStatus {
            code: Some(i32::from(code)),
            message: Some(message.into()),
            reason: non_empty(reason),
            status: Some("Failure".to_owned()),
            ..ApiStatus::default()
        }))
    }

    /// 200: it is done, and there is no object to show: the answer to a delete.
    pub fn success(resource: &GroupResource, name: &str, uid: Option<&str>) -> Self {
        let status = ApiStatus {
            status: Some("Success".to_owned()),
            ..ApiStatus::default()
        };
        Self(Box::new(status))
            .of(resource, name)
            .details(|details| details.uid = uid.map(str::to_owned))
    }

    /// Adds a cause; empty parts are left out.
    #[must_use]
    pub fn with_cause(self, reason: &str, message: &str, field: &str) -> Self {
        let cause = ApiCause {
            reason: non_empty(reason),
            message: non_empty(message),
            field: non_empty(field),
        };
        self.details(|details| details.causes.get_or_insert_default().push(cause))
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0
            .code
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or(200)
    }

    /// The machine-readable reason; empty for a success.
    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or_default()
    }

    /// After how many seconds to try again, for the `Retry-After` header.
    pub fn retry_after_seconds(&self) -> Option<i32> {
        self.0.details.as_ref()?.retry_after_seconds
    }

    /// Whether the request failed.
    pub fn is_failure(&self) -> bool {
        self.0.status.as_deref() == Some("Failure")
    }

    /// The API type.
    pub fn api(&self) -> &ApiStatus {
        &self.0
    }

    /// The API type, by value.
    pub fn into_api(self) -> ApiStatus {
        *self.0
    }

    /// As JSON bytes, which is how a Status leaves the server.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and numbers only: this does not fail, but an empty body beats a panic.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn of(self, resource: &GroupResource, name: &str) -> Self {
        self.details(|details| {
            details.group = non_empty(&resource.group);
            details.kind = non_empty(&resource.resource);
            details.name = non_empty(name);
        })
    }

    fn retry_after(self, seconds: i32) -> Self {
        self.details(|details| details.retry_after_seconds = (seconds > 0).then_some(seconds))
    }

    fn details(mut self, change: impl FnOnce(&mut ApiDetails)) -> Self {
        change(self.0.details.get_or_insert_default());
        self
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Status {}

impl From<ApiStatus> for Status {
    fn from(status: ApiStatus) -> Self {
        Self(Box::new(status))
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn codes_reasons_and_messages() {
        let (pods, deployments) = (
            GroupResource::new("", "pods"),
            GroupResource::new("apps", "deployments"),
        );
        let none = GroupResource::new("", "");
        let table = [
            (
                Status::not_found(&pods, "a"),
                404,
                "NotFound",
                r#"pods "a" not found"#,
            ),
            (
                Status::already_exists(&deployments, "a"),
                409,
                "AlreadyExists",
                r#"deployments.apps "a" already exists"#,
            ),
            (
                Status::conflict(&pods, "a", OBJECT_MODIFIED),
                409,
                "Conflict",
                r#"Operation cannot be fulfilled on pods "a": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (
                Status::forbidden(&pods, "a", "no"),
                403,
                "Forbidden",
                r#"pods "a" is forbidden: no"#,
            ),
            (
                Status::forbidden(&pods, "", "no"),
                403,
                "Forbidden",
                "pods is forbidden: no",
            ),
            (
                Status::forbidden(&none, "", "no"),
                403,
                "Forbidden",
                "forbidden: no",
            ),
            (
                Status::method_not_supported(&pods, "patch"),
                405,
                "MethodNotAllowed",
                r#"patch is not supported on resources of kind "pods""#,
            ),
            (
                Status::internal("x"),
                500,
                "InternalError",
                "Internal error occurred: x",
            ),
            (Status::timeout("x", 0), 504, "Timeout", "Timeout: x"),
            (Status::unauthorized(), 401, "Unauthorized", "Unauthorized"),
        ];
        for (status, code, reason, message) in table {
            assert_eq!(
                (status.code(), status.reason(), status.to_string().as_str()),
                (code, reason, message)
            );
            assert!(status.is_failure());
        }
        assert_eq!(
            Status::too_many_requests("x", 3).retry_after_seconds(),
            Some(3)
        );
        assert_eq!(Status::success(&pods, "a", Some("u")).code(), 200);
    }

    #[test]
    fn invalid_carries_its_causes() {
        let at = Path::new("spec").child("replicas");
        let kind = GroupKind::new("apps", "Deployment");
        let status = Status::invalid(
            &kind,
            "web",
            vec![Error::invalid(&at, -1, "must be positive"); 2],
        );
        assert_eq!(
            serde_json::to_value(&status).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 422,
                "reason": "Invalid",
                "message": "Deployment.apps \"web\" is invalid: spec.replicas: Invalid value: -1: must be positive",
                "details": {"group": "apps", "kind": "Deployment", "name": "web", "causes": [
                    {"reason": "FieldValueInvalid", "field": "spec.replicas", "message": "Invalid value: -1: must be positive"},
                ]},
            })
        );
        let again: Status = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(again, status);
    }

    #[test]
    fn invalid_says_how_much_it_leaves_out() {
        let at = Path::new("spec").child("ports");
        let kind = GroupKind::new("", "Service");
        let errors: Vec<Error> = (0..200_000)
            .map(|i| Error::required(&at.index(i), ""))
            .collect();
        let status = Status::invalid(&kind, "web", errors);
        assert!(status.to_json().len() < 512 * 1024);
        let causes = status.api().details.as_ref().unwrap().causes.as_ref();
        let causes = causes.unwrap();
        let last = causes.last().unwrap();
        let more = 200_000 - (causes.len() - 1);
        assert_eq!(
            (last.reason.as_deref(), last.field.as_deref()),
            (Some("FieldValueTooMany"), None)
        );
        assert_eq!(
            last.message.as_deref(),
            Some(&*format!("Too many errors: {more} more are not shown"))
        );
    }
}
