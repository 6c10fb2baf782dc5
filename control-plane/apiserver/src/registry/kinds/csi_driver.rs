//! CSIDriver: what a driver of the Container Storage Interface wants of the cluster.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::storage::v1::{CSIDriver, TokenRequest};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::{equality, immutable, items, shown, text};

/// Shortest and longest life of a token, in seconds.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=(1 << 32);
/// Shortest time between two updates of what a node can take, in seconds.
const MIN_UPDATE_SECONDS: i64 = 10;
const FS_GROUP_POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
/// What errors call `attachRequired`.
const ATTACH_REQUIRED: &str = "attachedRequired";
const TOKENS_IN_CONTEXT: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

pub(super) struct CSIDriverStrategy;

impl Strategy for CSIDriverStrategy {
    type Object = CSIDriver;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<CSIDriver>()
            .returns_deleted()
            .conditional_update()
            .generation()
    }

    fn set_defaults(&self, object: &mut CSIDriver) {
        let spec = &mut object.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy
            .get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        if items(&spec.volume_lifecycle_modes).is_empty() {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
        spec.prevent_pod_scheduling_if_missing.get_or_insert(false);
    }

    fn validate(&self, object: &CSIDriver) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_spec(object, &mut errors);
        errors
    }

    fn validate_update(&self, new: &CSIDriver, old: &CSIDriver) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_spec(new, &mut errors);
        let at = Path::new("spec");
        immutable(
            &new.spec.attach_required,
            &old.spec.attach_required,
            &at.child(ATTACH_REQUIRED),
            &mut errors,
        );
        immutable(
            &new.spec.volume_lifecycle_modes,
            &old.spec.volume_lifecycle_modes,
            &at.child("volumeLifecycleModes"),
            &mut errors,
        );
        errors
    }

    fn spec_changed(&self, new: &CSIDriver, old: &CSIDriver) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn warnings(&self, object: &CSIDriver) -> Vec<String> {
        let spec = &object.spec;
        let in_context = !items(&spec.token_requests).is_empty()
            && spec.service_account_token_in_secrets.is_none();
        let warning = in_context.then(|| TOKENS_IN_CONTEXT.to_owned());
        warning.into_iter().collect()
    }

    fn warnings_on_update(&self, new: &CSIDriver, old: &CSIDriver) -> Vec<String> {
        if equality::semantic(&new.spec.token_requests, &old.spec.token_requests) {
            return Vec::new();
        }
        self.warnings(new)
    }

    fn columns(&self) -> Vec<Column> {
        let boolean = |name, description| Column {
            kind: "boolean".into(),
            ..Column::text(name, description)
        };
        vec![
            Column::name(),
            boolean("AttachRequired", "Whether volumes are attached first."),
            boolean("PodInfoOnMount", "Whether it is told of the pod."),
            boolean("StorageCapacity", "Whether its capacity is known."),
            Column::text("TokenRequests", "Audiences of the tokens that it gets."),
            boolean("RequiresRepublish", "Whether volumes are refreshed."),
            Column::text("Modes", "Which volumes it can make."),
            Column::age(),
        ]
    }

    fn row(&self, object: &CSIDriver, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        let flag = |value: Option<bool>| Cell::Json(value.unwrap_or(false).into());
        let tokens = items(&spec.token_requests);
        let audiences: Vec<&str> = tokens.iter().map(|token| token.audience.as_str()).collect();
        let tokens = if audiences.is_empty() {
            "<unset>".to_owned()
        } else {
            audiences.join(",")
        };
        let modes = items(&spec.volume_lifecycle_modes);
        let modes = if modes.is_empty() {
            "<none>".to_owned()
        } else {
            modes.join(",")
        };
        vec![
            printing::name(&object.metadata),
            Cell::Json(spec.attach_required.unwrap_or(true).into()),
            flag(spec.pod_info_on_mount),
            flag(spec.storage_capacity),
            Cell::from(tokens),
            flag(spec.requires_republish),
            Cell::from(modes),
            printing::age(&object.metadata, now),
        ]
    }
}

fn validate_spec(object: &CSIDriver, errors: &mut ErrorList) {
    let (spec, at) = (&object.spec, Path::new("spec"));
    for (field, flag) in [
        (ATTACH_REQUIRED, spec.attach_required),
        ("podInfoOnMount", spec.pod_info_on_mount),
        ("storageCapacity", spec.storage_capacity),
    ] {
        if flag.is_none() {
            errors.push(Error::required(&at.child(field), ""));
        }
    }
    let (policy, policy_at) = (text(&spec.fs_group_policy), at.child("fsGroupPolicy"));
    if !FS_GROUP_POLICIES.contains(&policy) {
        errors.push(Error::not_supported(&policy_at, policy, FS_GROUP_POLICIES));
    }
    validate_tokens(
        items(&spec.token_requests),
        &at.child("tokenRequests"),
        errors,
    );
    let modes = &["Persistent", "Ephemeral"];
    for mode in items(&spec.volume_lifecycle_modes) {
        if !modes.contains(&mode.as_str()) {
            let at = at.child("volumeLifecycleModes");
            errors.push(Error::not_supported(&at, mode.as_str(), modes));
        }
    }
    if let Some(seconds) = spec.node_allocatable_update_period_seconds
        && seconds < MIN_UPDATE_SECONDS
    {
        let detail = format!("must be greater than or equal to {MIN_UPDATE_SECONDS} seconds");
        let at = at.child("nodeAllocatableUpdatePeriodSeconds");
        errors.push(Error::invalid(&at, seconds, detail));
    }
    if spec.service_account_token_in_secrets.is_some() && items(&spec.token_requests).is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        let at = at.child("serviceAccountTokenInSecrets");
        let given = shown(&spec.service_account_token_in_secrets);
        errors.push(Error::invalid(&at, given, detail));
    }
}

fn validate_tokens(tokens: &[TokenRequest], at: &Path, errors: &mut ErrorList) {
    let mut audiences = BTreeSet::new();
    for (i, token) in tokens.iter().enumerate() {
        let at = at.index(i);
        if !audiences.insert(&token.audience) {
            errors.push(Error::duplicate(
                &at.child("audience"),
                token.audience.as_str(),
            ));
        }
        let Some(seconds) = token.expiration_seconds else {
            continue;
        };
        let at = at.child("expirationSeconds");
        if seconds < *TOKEN_SECONDS.start() {
            let detail = "may not specify a duration less than 10 minutes";
            errors.push(Error::invalid(&at, seconds, detail));
        }
        if seconds > *TOKEN_SECONDS.end() {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.push(Error::invalid(&at, seconds, detail));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn driver(spec: Value) -> CSIDriver {
        let mut driver =
            serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap();
        CSIDriverStrategy.set_defaults(&mut driver);
        driver
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"fsGroupPolicy": ""}),
                vec!["spec.fsGroupPolicy FieldValueNotSupported"],
            ),
            (
                json!({"serviceAccountTokenInSecrets": true}),
                vec![
                    "spec.serviceAccountTokenInSecrets FieldValueInvalid serviceAccountTokenInSecrets is set but",
                ],
            ),
            (
                json!({"fsGroupPolicy": "Some", "volumeLifecycleModes": ["Odd"], "nodeAllocatableUpdatePeriodSeconds": 9,
                    "tokenRequests": [{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]}),
                vec![
                    "spec.fsGroupPolicy FieldValueNotSupported",
                    "spec.tokenRequests[0].expirationSeconds FieldValueInvalid may not specify a duration less than 10 minutes",
                    "spec.tokenRequests[1].audience FieldValueDuplicate",
                    "spec.volumeLifecycleModes FieldValueNotSupported",
                    "spec.nodeAllocatableUpdatePeriodSeconds FieldValueInvalid",
                ],
            ),
        ];
        for (spec, want) in table {
            assert_causes(&CSIDriverStrategy.validate(&driver(spec)), &want);
        }
        let spec = driver(json!({})).spec;
        assert_eq!(spec.prevent_pod_scheduling_if_missing, Some(false));
        assert_causes(
            &CSIDriverStrategy.validate_update(
                &driver(json!({"attachRequired": false})),
                &driver(json!({})),
            ),
            &["spec.attachedRequired FieldValueInvalid field is immutable"],
        );
        let tokens = driver(json!({"tokenRequests": [{"audience": "a"}]}));
        assert_eq!(CSIDriverStrategy.warnings(&tokens).len(), 1);
        assert!(
            CSIDriverStrategy
                .warnings_on_update(&tokens, &tokens)
                .is_empty()
        );
        let told = CSIDriverStrategy.warnings_on_update(&tokens, &driver(json!({})));
        assert_eq!(told.len(), 1);
    }
}
