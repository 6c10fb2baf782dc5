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
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Says that the server keeps the object as it is to be.
const KEPT: &str = "apf.kubernetes.io/autoupdate-spec";

fn meta(name: &str) -> ObjectMeta {
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
    let schema = |name: &str, precedence, by: Option<&str>, groups: &[&str]| FlowSchema {
        metadata: meta(name),
        spec: FlowSchemaSpec {
            distinguisher_method: by.map(|by| FlowDistinguisherMethod {
                type_: by.to_owned(),
            }),
            matching_precedence: Some(precedence),
            priority_level_configuration: PriorityLevelConfigurationReference {
                name: name.to_owned(),
            },
            rules: Some(vec![everything_of(groups)]),
        },
        status: None,
    };
    [
        schema(EXEMPT, 1, None, &[MASTERS]),
        schema(
            CATCH_ALL,
            10_000,
            Some("ByUser"),
            &[UNAUTHENTICATED, AUTHENTICATED],
        ),
    ]
}

/// Every request of these groups.
fn everything_of(groups: &[&str]) -> PolicyRulesWithSubjects {
    let all = || vec!["*".to_owned()];
    let subjects = groups.iter().map(|&group| Subject {
        kind: "Group".to_owned(),
        group: Some(GroupSubject {
            name: group.to_owned(),
        }),
        ..Subject::default()
    });
    PolicyRulesWithSubjects {
        subjects: subjects.collect(),
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
