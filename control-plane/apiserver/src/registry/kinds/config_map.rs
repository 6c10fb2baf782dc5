//! ConfigMap: data for Pods to read.

use std::collections::BTreeMap;

use coracle_apimachinery::field::Path;
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, field};

/// Bytes that data and binaryData may have together.
const MAX_SIZE: usize = 1024 * 1024;

pub(super) struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    type Object = ConfigMap;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ConfigMap>().short_names(&["cm"])
    }

    fn validate(&self, object: &ConfigMap) -> ErrorList {
        let mut errors = ErrorList::default();
        let empty_data = BTreeMap::new();
        let empty_binary = BTreeMap::new();
        let data = object.data.as_ref().unwrap_or(&empty_data);
        let binary = object.binary_data.as_ref().unwrap_or(&empty_binary);
        let mut size = 0;
        for (key, value) in data {
            let twice = binary
                .contains_key(key)
                .then(|| "duplicate of key present in binaryData".to_owned());
            for message in names::config_map_key(key).into_iter().chain(twice) {
                let path = Path::new("data").key(key);
                errors.push(field::Error::invalid(&path, key.as_str(), message));
            }
            size += value.len();
        }
        for (key, value) in binary {
            for message in names::config_map_key(key) {
                let path = Path::new("binaryData").key(key);
                errors.push(field::Error::invalid(&path, key.as_str(), message));
            }
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(field::Error::too_long(&Path::root(), MAX_SIZE));
        }
        errors
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap) -> ErrorList {
        let mut errors = self.validate(new);
        if old.immutable == Some(true) {
            let message = "field is immutable when `immutable` is set";
            if new.immutable != Some(true) {
                errors.push(field::Error::forbidden(&Path::new("immutable"), message));
            }
            if new.data != old.data {
                errors.push(field::Error::forbidden(&Path::new("data"), message));
            }
            if new.binary_data != old.binary_data {
                errors.push(field::Error::forbidden(&Path::new("binaryData"), message));
            }
        }
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Data", "Data contains the configuration data."),
            Column::age(),
        ]
    }

    fn row(&self, object: &ConfigMap, now: jiff::Timestamp) -> Vec<Cell> {
        let entries = object.data.as_ref().map_or(0, BTreeMap::len)
            + object.binary_data.as_ref().map_or(0, BTreeMap::len);
        vec![
            printing::name(&object.metadata),
            Cell::from(entries),
            printing::age(&object.metadata, now),
        ]
    }
}
