//! What is always there: for those who are exempt, and for all others.

use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec,
    GroupSubject, LimitResponse, LimitedPriorityLevelConfiguration, NonResourcePolicyRule,
    PolicyRulesWithSubjects, PriorityLevelConfiguration, PriorityLevelConfigurationReference,
    PriorityLevelConfigurationSpec, ResourcePolicyRule, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::auth::{AUTHENTICATED, MASTERS};
use crate::validation::flow_control::EXEMPT;

/// The flow and the level of what is of no other.
pub(super) const CATCH_ALL: &str = "catch-all";
/// The group of those whom the server does not know.
pub(super) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Says that the server keeps the object as it is to be.
const KEPT: &str = "apf.kubernetes.io/autoupdate-spec";

pub(super) fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        annotations: Some([(KEPT.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

/// The mandatory priority levels.
pub(crate) fn levels() -> [PriorityLevelConfiguration; 2] {
    let level = |name: &str, spec| PriorityLevelConfiguration {
        metadata: meta(name),
        spec,
        status: None,
    };
    let exempt = PriorityLevelConfigurationSpec {
        type_: "Exempt".to_owned(),
        exempt: Some(ExemptPriorityLevelConfiguration {
            lendable_percent: Some(0),
            nominal_concurrency_shares: Some(0),
        }),
        limited: None,
    };
    let rest = PriorityLevelConfigurationSpec {
        type_: "Limited".to_owned(),
        exempt: None,
        limited: Some(LimitedPriorityLevelConfiguration {
            nominal_concurrency_shares: Some(5),
            lendable_percent: Some(0),
            limit_response: LimitResponse {
                type_: "Reject".to_owned(),
                queuing: None,
            },
            borrowing_limit_percent: None,
        }),
    };
    [level(EXEMPT, exempt), level(CATCH_ALL, rest)]
}

/// The mandatory flow schemas.
pub(crate) fn schemas() -> [FlowSchema; 2] {
    [
        schema(EXEMPT, EXEMPT, 1, None, everything(vec![group(MASTERS)])),
        schema(
            CATCH_ALL,
            CATCH_ALL,
            10_000,
            Some("ByUser"),
            everything(vec![group(UNAUTHENTICATED), group(AUTHENTICATED)]),
        ),
    ]
}

/// A schema of one rule.
pub(super) fn schema(
    name: &str,
    level: &str,
    precedence: i32,
    by: Option<&str>,
    rule: PolicyRulesWithSubjects,
) -> FlowSchema {
    FlowSchema {
        metadata: meta(name),
        spec: FlowSchemaSpec {
            distinguisher_method: by.map(|by| FlowDistinguisherMethod {
                type_: by.to_owned(),
            }),
            matching_precedence: Some(precedence),
            priority_level_configuration: PriorityLevelConfigurationReference {
                name: level.to_owned(),
            },
            rules: Some(vec![rule]),
        },
        status: None,
    }
}

pub(super) fn group(name: &str) -> Subject {
    Subject {
        kind: "Group".to_owned(),
        group: Some(GroupSubject {
            name: name.to_owned(),
        }),
        ..Subject::default()
    }
}

pub(super) fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Every request of these subjects.
pub(super) fn everything(subjects: Vec<Subject>) -> PolicyRulesWithSubjects {
    PolicyRulesWithSubjects {
        subjects,
        resource_rules: Some(vec![ResourcePolicyRule {
            api_groups: all(),
            cluster_scope: Some(true),
            namespaces: Some(all()),
            resources: all(),
            verbs: all(),
        }]),
        non_resource_rules: Some(vec![NonResourcePolicyRule {
            non_resource_urls: all(),
            verbs: all(),
        }]),
    }
}
