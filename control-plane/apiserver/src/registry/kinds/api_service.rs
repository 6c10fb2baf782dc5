//! APIService: a group-version of the API, and who serves it. Those of this server are made at its
//! start (`bootstrap`). What is said of them here is also the order in which discovery lists groups.
//!
//! Deliberately absent: the way to one that another server serves; what is written down of such a
//! one is kept, and whether it is available stays unknown.

use std::cmp::Reverse;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus,
};

use crate::registry::lookup::{Kinds, Versions, by_priority};
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, NameRule, Strategy, Subresource, resets_with_metadata,
};
use crate::registry::{meta, printing};
use crate::validation::api_service::{validate_api_service, validate_conditions};
use crate::validation::{items, text};

/// Groups by how much clients should prefer their resources to those of the same name elsewhere.
const GROUPS: &[(&str, i32)] = &[
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("storagemigration.k8s.io", 15_800),
    ("metrics.k8s.io", 100),
];
/// The priority of all other groups.
const OTHER_GROUP: i32 = 15_000;
/// How far a version is above the one before it, and the oldest above nothing.
const VERSION_STEP: i32 = 15;
/// Groups whose oldest version has another priority.
const OLDEST_VERSION: &[(&str, i32)] = &[
    ("", 1),
    ("flowcontrol.apiserver.k8s.io", 21),
    ("resource.k8s.io", 21),
    ("metrics.k8s.io", 100),
];
const OWN_GROUP: &str = "apiregistration.k8s.io";

/// The groups that are served, the most preferred first. That of APIServices chooses between the
/// others, and comes before them.
pub(crate) fn by_preference(kinds: &Kinds) -> Vec<(&str, Versions<'_>)> {
    let mut groups: Vec<(&str, Versions<'_>)> = kinds.groups().into_iter().collect();
    groups.sort_by_key(|(group, _)| {
        let others = *group != OWN_GROUP;
        (others, Reverse(group_priority(group)))
    });
    groups
}

fn group_priority(group: &str) -> i32 {
    let known = GROUPS.iter().find(|(known, _)| *known == group);
    known.map_or(OTHER_GROUP, |(_, priority)| *priority)
}

/// What this server serves itself. The group of APIServices is not among it: it belongs to what
/// chooses between them.
pub(crate) fn local(kinds: &Kinds) -> Vec<APIService> {
    let groups = kinds.groups();
    let groups = groups.iter().filter(|(group, _)| **group != OWN_GROUP);
    let of_group = groups.flat_map(|(group, versions)| {
        let priority = group_priority(group);
        let oldest = OLDEST_VERSION.iter().find(|(known, _)| known == group);
        let oldest = oldest.map_or(VERSION_STEP, |(_, priority)| *priority);
        let oldest_first = by_priority(versions).into_iter().rev();
        let versions = oldest_first.zip((0..).map(move |rank| oldest + rank * VERSION_STEP));
        versions.map(move |((version, _), rank)| local_version(group, version, priority, rank))
    });
    of_group.collect()
}

fn local_version(group: &str, version: &str, minimum: i32, priority: i32) -> APIService {
    let kept = "kube-aggregator.kubernetes.io/automanaged".to_owned();
    APIService {
        metadata: ObjectMeta {
            name: Some(format!("{version}.{group}")),
            labels: Some([(kept, "onstart".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            group: (!group.is_empty()).then(|| group.to_owned()),
            version: Some(version.to_owned()),
            group_priority_minimum: minimum,
            version_priority: priority,
            ..APIServiceSpec::default()
        }),
        status: None,
    }
}

/// The port of a Service that serves a part of the API.
const PORT: i32 = 443;

pub(super) struct APIServiceStrategy;

impl Strategy for APIServiceStrategy {
    type Object = APIService;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<APIService>()
            .categories(&["api-extensions"])
            .names(NameRule::PathSegment)
            .subresources(&[Subresource::Status])
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut APIService) {
        let spec = object.spec.get_or_insert_default();
        if let Some(service) = &mut spec.service {
            service.port.get_or_insert(PORT);
        }
        object.status.get_or_insert_default();
    }

    /// What this server serves itself is there from the start.
    fn prepare_for_create(&self, object: &mut APIService) {
        let service = object.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let conditions = service.is_none().then(|| {
            vec![APIServiceCondition {
                type_: "Available".to_owned(),
                status: "True".to_owned(),
                reason: Some("Local".to_owned()),
                message: Some("Local APIServices are always available".to_owned()),
                last_transition_time: object.metadata.creation_timestamp.clone(),
            }]
        });
        object.status = Some(APIServiceStatus { conditions });
    }

    fn prepare_for_update(&self, new: &mut APIService, old: &APIService) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(&self, new: &mut APIService, old: &APIService) {
        new.spec.clone_from(&old.spec);
        meta::keep_metadata(&mut new.metadata, &old.metadata);
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        resets_with_metadata(subresource)
    }

    fn validate(&self, object: &APIService) -> ErrorList {
        let mut errors = ErrorList::default();
        if let Some(spec) = &object.spec {
            validate_api_service(spec, text(&object.metadata.name), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &APIService, _old: &APIService) -> ErrorList {
        self.validate(new)
    }

    fn validate_status_update(&self, new: &APIService, _old: &APIService) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_conditions(conditions(new), &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Service", "Who serves the group-version."),
            Column::text("Available", "Whether it can be reached."),
            Column::age(),
        ]
    }

    fn row(&self, object: &APIService, now: jiff::Timestamp) -> Vec<Cell> {
        let service = object.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let service = service.map_or_else(
            || "Local".to_owned(),
            |service| format!("{}/{}", text(&service.namespace), text(&service.name)),
        );
        let available = conditions(object)
            .iter()
            .find(|condition| condition.type_ == "Available");
        let available = match available {
            None => "Unknown".to_owned(),
            Some(condition) => match text(&condition.reason) {
                reason if condition.status != "True" && !reason.is_empty() => {
                    format!("{} ({reason})", condition.status)
                }
                _ => condition.status.clone(),
            },
        };
        vec![
            printing::name(&object.metadata),
            Cell::from(service),
            Cell::from(available),
            printing::age(&object.metadata, now),
        ]
    }
}

fn conditions(object: &APIService) -> &[APIServiceCondition] {
    let status = object.status.as_ref();
    status.map(|s| items(&s.conditions)).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn service(name: &str, spec: Value) -> APIService {
        let value = json!({"metadata": {"name": name}, "spec": spec});
        let mut service = serde_json::from_value(value).unwrap();
        APIServiceStrategy.set_defaults(&mut service);
        service
    }

    #[test]
    fn validation() {
        let table: Vec<(&str, Value, Vec<&str>)> = vec![
            (
                "v1.",
                json!({"version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}),
                vec![],
            ),
            (
                "v1.a.b",
                json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 20000, "versionPriority": 1000, "service": {"namespace": "n", "name": "s"}, "caBundle": "YQ=="}),
                vec![],
            ),
            (
                "x",
                json!({"version": "V2", "groupPriorityMinimum": 20001, "versionPriority": 0, "caBundle": "YQ==", "insecureSkipTLSVerify": true}),
                vec![
                    "metadata.name FieldValueInvalid must be `spec.version+\".\"+spec.group`: \"V2.\"",
                    "spec.group FieldValueRequired only v1 may have an empty group",
                    "spec.version FieldValueInvalid",
                    "spec.groupPriorityMinimum FieldValueInvalid must be positive and less than 20000",
                    "spec.versionPriority FieldValueInvalid must be positive and less than 1000",
                    "spec.caBundle FieldValueInvalid local APIServices may not have a caBundle",
                    "spec.insecureSkipTLSVerify FieldValueInvalid local APIServices may not have",
                ],
            ),
            (
                "v1.a.b",
                json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"port": 0}, "caBundle": "YQ==", "insecureSkipTLSVerify": true}),
                vec![
                    "spec.service.namespace FieldValueRequired",
                    "spec.service.name FieldValueRequired",
                    "spec.service.port FieldValueInvalid port is not valid: must be between 1 and 65535",
                    "spec.insecureSkipTLSVerify FieldValueInvalid may not be true if caBundle is present",
                ],
            ),
        ];
        for (name, spec, want) in table {
            assert_causes(&APIServiceStrategy.validate(&service(name, spec)), &want);
        }
        let mut bad = service("v1.", json!({}));
        bad.status = serde_json::from_value(
            json!({"conditions": [{"type": "Available", "status": "Maybe"}]}),
        )
        .unwrap();
        assert_causes(
            &APIServiceStrategy.validate_status_update(&bad, &bad),
            &["status.conditions[0].status FieldValueNotSupported"],
        );
    }
}
