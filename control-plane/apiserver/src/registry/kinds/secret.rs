//! Secret: data for Pods to read that is nobody else's business.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::{self, faults, text};

/// Bytes that all values may have together.
const MAX_SIZE: usize = 1024 * 1024;
/// The service account whose token a Secret holds.
const SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";

/// The entry of a Secret for SSH.
const SSH_KEY: &str = "ssh-privatekey";

pub(super) struct SecretStrategy;

impl Strategy for SecretStrategy {
    type Object = Secret;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Secret>().fields(&["type"])
    }

    fn set_defaults(&self, object: &mut Secret) {
        if text(&object.type_).is_empty() {
            object.type_ = Some("Opaque".to_owned());
        }
        // stringData is for writing only: it is data from here on.
        let strings = object.string_data.take().unwrap_or_default();
        if !strings.is_empty() {
            let data = object.data.get_or_insert_default();
            data.extend(
                strings
                    .into_iter()
                    .map(|(key, value)| (key, ByteString(value.into_bytes()))),
            );
        }
    }

    fn validate(&self, object: &Secret) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("data");
        let empty = BTreeMap::new();
        let data = object.data.as_ref().unwrap_or(&empty);
        let mut size = 0;
        for (key, value) in data {
            faults(key, names::config_map_key(key), &at.key(key), &mut errors);
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(Error::too_long(&at, MAX_SIZE));
        }
        let mut require = |key: &str| {
            if !data.contains_key(key) {
                errors.push(Error::required(&at.key(key), ""));
            }
        };
        match text(&object.type_) {
            "kubernetes.io/service-account-token" => {
                let account = object
                    .metadata
                    .annotations
                    .as_ref()
                    .and_then(|a| a.get(SERVICE_ACCOUNT));
                if account.is_none_or(String::is_empty) {
                    let at = Path::new("metadata")
                        .child("annotations")
                        .key(SERVICE_ACCOUNT);
                    errors.push(Error::required(&at, ""));
                }
            }
            "kubernetes.io/dockercfg" => validate_json(data, ".dockercfg", &mut errors),
            "kubernetes.io/dockerconfigjson" => {
                validate_json(data, ".dockerconfigjson", &mut errors)
            }
            "kubernetes.io/basic-auth"
                if !data.contains_key("username") && !data.contains_key("password") =>
            {
                require("username");
                require("password");
            }
            "kubernetes.io/ssh-auth" if data.get(SSH_KEY).is_none_or(|key| key.0.is_empty()) => {
                errors.push(Error::required(&at.key(SSH_KEY), ""));
            }
            "kubernetes.io/tls" => {
                require("tls.crt");
                require("tls.key");
            }
            _ => {}
        }
        errors
    }

    fn prepare_for_update(&self, new: &mut Secret, old: &Secret) {
        // A client that knows nothing of types keeps the type.
        if text(&new.type_).is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }

    fn validate_update(&self, new: &Secret, old: &Secret) -> ErrorList {
        let mut errors = ErrorList::default();
        validation::immutable(&new.type_, &old.type_, &Path::new("type"), &mut errors);
        if old.immutable == Some(true) {
            let detail = "field is immutable when `immutable` is set";
            if new.immutable != Some(true) {
                errors.push(Error::forbidden(&Path::new("immutable"), detail));
            }
            if new.data != old.data {
                errors.push(Error::forbidden(&Path::new("data"), detail));
            }
        }
        errors.extend(self.validate(new));
        errors
    }

    fn warnings(&self, object: &Secret) -> Vec<String> {
        let of_tls = text(&object.type_) == "kubernetes.io/tls";
        let inputs = [
            ("tls.crt", "certificate", "-----BEGIN CERTIFICATE-----"),
            ("tls.key", "key", "PRIVATE KEY-----"),
        ];
        let lacks = |key: &str, block: &str| {
            let value = object.data.as_ref().and_then(|data| data.get(key));
            let value = value.map(|value| value.0.as_slice()).unwrap_or_default();
            !value
                .windows(block.len())
                .any(|part| part == block.as_bytes())
        };
        // Whether the two belong together is left to those who use them.
        let first = inputs
            .into_iter()
            .find(|(key, _, block)| of_tls && lacks(key, block));
        first
            .map(|(_, input, _)| format!("tls: failed to find any PEM data in {input} input"))
            .into_iter()
            .collect()
    }

    fn selectable_fields(&self, object: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", text(&object.type_).to_owned())]
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text(
                "Type",
                "Used to facilitate programmatic handling of secret data.",
            ),
            Column::text("Data", "How many entries the secret has."),
            Column::age(),
        ]
    }

    fn row(&self, object: &Secret, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(text(&object.type_)),
            Cell::from(object.data.as_ref().map_or(0, BTreeMap::len)),
            printing::age(&object.metadata, now),
        ]
    }
}

fn validate_json(data: &BTreeMap<String, ByteString>, key: &str, errors: &mut ErrorList) {
    let at = Path::new("data").key(key);
    let Some(value) = data.get(key) else {
        errors.push(Error::required(&at, ""));
        return;
    };
    if let Err(error) =
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&value.0)
    {
        errors.push(Error::invalid(
            &at,
            "<secret contents redacted>",
            error.to_string(),
        ));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn secret(value: Value) -> Secret {
        let mut secret = serde_json::from_value(value).unwrap();
        SecretStrategy.set_defaults(&mut secret);
        secret
    }

    #[test]
    fn strings_become_data() {
        let object = secret(json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "z"}}));
        assert_eq!(
            serde_json::to_value(&object).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "type": "Opaque", "data": {"a": "eA==", "b": "eg=="}})
        );
    }

    #[test]
    fn types() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"stringData": {"a": "b"}}), vec![]),
            (
                json!({"stringData": {"a b": "b"}}),
                vec!["data[a b] FieldValueInvalid a valid config key"],
            ),
            (
                json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": ""}}),
                vec!["data[tls.key] FieldValueRequired"],
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{"}}),
                vec!["data[.dockerconfigjson] FieldValueInvalid EOF"],
            ),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                vec![
                    "data[username] FieldValueRequired",
                    "data[password] FieldValueRequired",
                ],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                vec!["metadata.annotations[kubernetes.io/service-account.name] FieldValueRequired"],
            ),
            (
                json!({"type": "kubernetes.io/ssh-auth"}),
                vec!["data[ssh-privatekey] FieldValueRequired"],
            ),
        ];
        for (value, want) in table {
            assert_causes(&SecretStrategy.validate(&secret(value)), &want);
        }
    }

    #[test]
    fn a_pair_for_tls_that_is_none_is_told_of() {
        let pair = |crt: &str, key: &str| {
            let data = json!({"tls.crt": crt, "tls.key": key});
            let object = secret(json!({"type": "kubernetes.io/tls", "stringData": data}));
            SecretStrategy.warnings(&object)
        };
        let (crt, key) = (
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN EC PRIVATE KEY-----",
        );
        assert_eq!(
            pair("x", "y"),
            ["tls: failed to find any PEM data in certificate input"]
        );
        assert_eq!(
            pair(crt, ""),
            ["tls: failed to find any PEM data in key input"]
        );
        assert!(pair(crt, key).is_empty());
    }

    #[test]
    fn updates() {
        let old = secret(json!({"immutable": true, "stringData": {"a": "b"}}));
        let new = secret(json!({"type": "x/y", "stringData": {"a": "c"}}));
        assert_causes(
            &SecretStrategy.validate_update(&new, &old),
            &[
                "type FieldValueInvalid field is immutable",
                "immutable FieldValueForbidden",
                "data FieldValueForbidden",
            ],
        );
    }
}
