//! Server-side apply, and the options that say who manages what is written.

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::field::{Error as FieldError, ErrorList, Path, Shown};
use coracle_apimachinery::gvk::GroupKind;
use coracle_apimachinery::status::Status;
use http::header::USER_AGENT;
use http::{HeaderMap, Response};
use icu_properties::props::{EnumeratedProperty, GeneralCategory, GeneralCategoryGroup};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::decode::{self, check_type_of};
use super::encode::outcome;
use super::{Call, patch};
use crate::auth::UserInfo;
use crate::registry::apply::{Application, malformed};
use crate::registry::update::Part;
use crate::registry::{FieldManager, Outcome};
use crate::request::options::{FieldValidation, Query, WriteOptions};
use crate::request::{body, media};

/// The media types of an apply: YAML, of which JSON is a part, and CBOR.
pub(super) const YAML: &str = "application/apply-patch+yaml";
pub(super) const CBOR: &str = "application/apply-patch+cbor";

/// Characters that the name of a manager has at most.
const MAX_MANAGER: usize = 128;

/// By whose name a write manages fields: as it says, or as the client calls itself. The cluster's
/// own components, which call in process, go by their users.
pub(super) fn field_manager<'a>(
    query: &'a Query,
    headers: &'a HeaderMap,
    user: &'a UserInfo,
) -> FieldManager<'a> {
    let given = query.get("fieldManager").unwrap_or_default();
    if !given.is_empty() {
        return FieldManager::Update(given);
    }
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let name = agent.unwrap_or_default().split('/').next();
    let name = name.unwrap_or_default();
    if name.is_empty() {
        return FieldManager::Update(component(user));
    }
    // A header is ASCII where it can be read.
    FieldManager::Update(name.get(..MAX_MANAGER).unwrap_or(name))
}

fn component(user: &UserInfo) -> &str {
    match user.name.strip_prefix("system:") {
        Some(node) if node.starts_with("node:") => "kubelet",
        Some(component) if !component.contains(':') => component,
        _ => "",
    }
}

/// Checks the options of create, update and patch that are about managers.
///
/// # Errors
/// 422 as Kubernetes has it.
pub(super) fn check_options(call: &Call<'_>) -> Result<(), Status> {
    let kind = match call.info.verb.as_str() {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => return Ok(()),
    };
    let applies = kind == "PatchOptions" && is_apply(&call.parts.headers);
    let manager = call.query.get("fieldManager").unwrap_or_default();
    let at = Path::new("fieldManager");
    let mut errors = ErrorList::default();
    if applies && manager.is_empty() {
        errors.push(FieldError::required(&at, "is required for apply patch"));
    }
    if !applies && kind == "PatchOptions" && call.query.get("force").is_some_and(|f| !f.is_empty())
    {
        let message = "may not be specified for non-apply patch";
        errors.push(FieldError::forbidden(&Path::new("force"), message));
    }
    validate_manager(manager, &at, &mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind::new("meta.k8s.io", kind);
    Err(Status::invalid(&kind, "", errors))
}

fn validate_manager(manager: &str, at: &Path, errors: &mut ErrorList) {
    if manager.len() > MAX_MANAGER {
        errors.push(FieldError::too_long(at, MAX_MANAGER));
    }
    // Each error shows all of the name, which may be as long as a URI.
    let mut shown: Option<Shown> = None;
    for (position, character) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let code = u32::from(character);
        let message = format!("invalid character U+{code:04X} (at position {position})");
        let shown = shown.get_or_insert_with(|| Shown::from(manager));
        errors.push(FieldError::invalid(at, shown.clone(), message));
    }
}

/// Letters, marks, numbers, punctuation, symbols and the space of ASCII.
fn is_printable(c: char) -> bool {
    const NOT: GeneralCategoryGroup =
        GeneralCategoryGroup::Other.union(GeneralCategoryGroup::Separator);
    c == ' ' || !NOT.contains(GeneralCategory::for_char(c))
}

/// Whether a patch is an apply.
pub(super) fn is_apply(headers: &HeaderMap) -> bool {
    matches!(media::content_type(headers), YAML | CBOR)
}

/// Applies the body to the object or its status.
pub(super) async fn apply(
    call: &Call<'_>,
    bytes: Bytes,
    options: WriteOptions,
) -> Result<Response<Body>, Status> {
    let (json, config) = read(&call.parts.headers, bytes)?;
    let descriptor = call.kind.descriptor();
    check_type_of(&config, &descriptor.api_version(), &descriptor.kind)?;
    let schema = call.kind.schema_name();
    let warnings = check_fields(call, &schema, &json, options.field_validation)?;
    call.note(&warnings);
    let part = patch::part(call);
    let mut applied = send(call, part, &config, options).await?;
    applied.warnings.splice(0..0, warnings);
    outcome(call, applied)
}

/// Reads a configuration, which is JSON, YAML or CBOR: as JSON, and what that says.
pub(super) fn read(headers: &HeaderMap, bytes: Bytes) -> Result<(Bytes, Value), Status> {
    let is_cbor = media::content_type(headers) == CBOR;
    let mut json = if is_cbor {
        body::cbor_to_json(&bytes)?
    } else {
        bytes
    };
    let mut config = serde_json::from_slice::<Value>(&json);
    // JSON that cannot be decoded is no YAML for that.
    if config.is_err() && !is_cbor && serde_json::from_slice::<IgnoredAny>(&json).is_err() {
        json = body::yaml_to_json(&json)?;
        config = serde_json::from_slice(&json);
    }
    let config =
        config.map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    if !config.is_object() {
        let message = "error decoding patch: a configuration is an object";
        return Err(Status::bad_request(message));
    }
    if !config["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok((json, config))
}

/// Gives the configuration to the registry.
pub(super) async fn send(
    call: &Call<'_>,
    part: Part,
    config: &Value,
    options: WriteOptions,
) -> Result<Outcome, Status> {
    let application = Application {
        config,
        manager: call.query.get("fieldManager").unwrap_or_default(),
        force: call.query.flag("force").unwrap_or(false),
        may_create: &|| call.may_create(),
    };
    let caller = call.caller(options.dry_run);
    let registry = &call.server.registry;
    registry
        .apply(call.target(), part, application, caller)
        .await
}

/// An unknown field is refused however fields are validated: nobody could manage it.
pub(super) fn check_fields(
    call: &Call<'_>,
    schema: &str,
    json: &[u8],
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    let faults = decode::faults(call, schema, json, FieldValidation::Warn);
    for fault in &faults {
        if let Some(path) = fault.strip_prefix("unknown field ") {
            let path = path.trim_matches('"');
            let error = format!(".{path}: field not declared in schema");
            return Err(malformed(call.target(), "patch", &error));
        }
    }
    match validation {
        FieldValidation::Strict if !faults.is_empty() => Err(Status::bad_request(format!(
            "error strict decoding patch: {}",
            faults.join(", ")
        ))),
        FieldValidation::Ignore => Ok(Vec::new()),
        _ => Ok(faults),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::testing::{COUNT, assert_causes, assert_ends};

    /// As Go's `unicode.IsPrint` has it.
    #[test]
    fn characters_that_print() {
        let table = [
            (
                true,
                " ~\u{e9}\u{301}\u{903}\u{20dd}\u{661}\u{2163}\u{b2}\u{2d}\u{ab}\u{20ac}\u{1f600}\u{4e00}\u{fffd}",
            ),
            // Of the classes Cc, Zs, Zl, Zp, Cf, Co and Cn.
            (
                false,
                "\0\u{7f}\u{85}\u{a0}\u{3000}\u{2028}\u{2029}\u{ad}\u{200b}\u{200d}\u{202e}\u{feff}\u{e0001}\u{e000}\u{10fffd}\u{378}\u{ffff}",
            ),
        ];
        for (want, characters) in table {
            for character in characters.chars() {
                let code = u32::from(character);
                assert_eq!(is_printable(character), want, "U+{code:04X}");
            }
        }
    }

    #[test]
    fn managers() {
        let long = "a".repeat(MAX_MANAGER + 1);
        let table: [(&str, &[&str]); 5] = [
            // A letter with a mark of its own, a number, a symbol.
            ("e\u{301}\u{661}\u{20ac}", &[]),
            ("", &[]),
            ("kubectl \u{e9}", &[]),
            (
                "a\u{7}b\u{a0}",
                &[
                    "fieldManager FieldValueInvalid invalid character U+0007 (at position 1)",
                    "fieldManager FieldValueInvalid invalid character U+00A0 (at position 3)",
                ],
            ),
            (&long, &["fieldManager FieldValueTooLong"]),
        ];
        let at = Path::new("fieldManager");
        for (manager, want) in table {
            let mut errors = ErrorList::default();
            validate_manager(manager, &at, &mut errors);
            assert_causes(&errors, want);
        }
        let mut errors = ErrorList::default();
        validate_manager(&"\u{7}".repeat(COUNT), &at, &mut errors);
        assert_ends("a long name", errors, &(COUNT + 1..=COUNT + 1));
    }
}
