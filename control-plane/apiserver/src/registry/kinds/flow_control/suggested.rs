//! What is there beside the mandatory: levels for the nodes, for leader election and for workloads,
//! so that in a fresh cluster no tenant's flood holds up what keeps it running. The facts are those
//! of Kubernetes' suggested configuration.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, LimitResponse, LimitedPriorityLevelConfiguration, NonResourcePolicyRule,
    PolicyRulesWithSubjects, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    QueuingConfiguration, ResourcePolicyRule, ServiceAccountSubject, Subject, UserSubject,
};

use super::mandatory::{self, UNAUTHENTICATED, all, everything, group, meta, schema};
use crate::auth::{AUTHENTICATED, NODES};

const QUEUE_LENGTH: i32 = 50;

/// Name, shares, percent that is lent, queues, and queues of one flow.
const LEVELS: &[(&str, i32, i32, i32, i32)] = &[
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

/// Every priority level that a cluster starts with.
pub(crate) fn bootstrap_levels() -> Vec<PriorityLevelConfiguration> {
    let suggested = LEVELS.iter().map(|(name, shares, lends, queues, hand)| {
        let queuing = QueuingConfiguration {
            queues: Some(*queues),
            hand_size: Some(*hand),
            queue_length_limit: Some(QUEUE_LENGTH),
        };
        PriorityLevelConfiguration {
            metadata: meta(name),
            spec: PriorityLevelConfigurationSpec {
                type_: "Limited".to_owned(),
                exempt: None,
                limited: Some(LimitedPriorityLevelConfiguration {
                    nominal_concurrency_shares: Some(*shares),
                    lendable_percent: Some(*lends),
                    borrowing_limit_percent: None,
                    limit_response: LimitResponse {
                        type_: "Queue".to_owned(),
                        queuing: Some(queuing),
                    },
                }),
            },
            status: None,
        }
    });
    mandatory::levels().into_iter().chain(suggested).collect()
}

fn user(name: &str) -> Subject {
    Subject {
        kind: "User".to_owned(),
        user: Some(UserSubject {
            name: name.to_owned(),
        }),
        ..Subject::default()
    }
}

/// All service accounts of the system's namespace.
fn system_accounts() -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        service_account: Some(ServiceAccountSubject {
            namespace: "kube-system".to_owned(),
            name: "*".to_owned(),
        }),
        ..Subject::default()
    }
}

/// Objects in all namespaces, and (where `cluster`) outside of them.
fn objects(
    verbs: &[&str],
    in_group: &str,
    resources: &[&str],
    cluster: bool,
) -> ResourcePolicyRule {
    let owned = |list: &[&str]| list.iter().map(|&item| item.to_owned()).collect();
    ResourcePolicyRule {
        api_groups: owned(&[in_group]),
        cluster_scope: cluster.then_some(true),
        namespaces: Some(all()),
        resources: owned(resources),
        verbs: owned(verbs),
    }
}

/// Every flow schema that a cluster starts with.
pub(crate) fn bootstrap_schemas() -> Vec<FlowSchema> {
    let manager = || user("system:kube-controller-manager");
    let scheduler = || user("system:kube-scheduler");
    let leases = |verbs: &[&str]| objects(verbs, "coordination.k8s.io", &["leases"], false);
    let election = || leases(&["get", "create", "update"]);
    let only = |subjects, resources| PolicyRulesWithSubjects {
        subjects,
        resource_rules: Some(resources),
        non_resource_rules: None,
    };
    let probes = PolicyRulesWithSubjects {
        subjects: vec![group(UNAUTHENTICATED), group(AUTHENTICATED)],
        resource_rules: None,
        non_resource_rules: Some(vec![NonResourcePolicyRule {
            verbs: vec!["get".to_owned()],
            non_resource_urls: ["/healthz", "/readyz", "/livez"].map(str::to_owned).into(),
        }]),
    };
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    let node_high = vec![
        objects(&["*"], "", &["nodes", "nodes/status"], true),
        leases(&["*"]),
    ];
    let election_of = |subjects| only(subjects, vec![election()]);
    let suggested = [
        schema("probes", "exempt", 2, None, probes),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            election_of(vec![manager(), scheduler(), system_accounts()]),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            by_user,
            only(vec![group(NODES)], node_high),
        ),
        schema(
            "system-nodes",
            "system",
            500,
            by_user,
            everything(vec![group(NODES)]),
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            everything(vec![manager()]),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            by_namespace,
            everything(vec![scheduler()]),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            everything(vec![system_accounts()]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            by_user,
            everything(vec![group("system:serviceaccounts")]),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            by_user,
            everything(vec![group(UNAUTHENTICATED), group(AUTHENTICATED)]),
        ),
    ];
    mandatory::schemas().into_iter().chain(suggested).collect()
}
