//! Lists as long as a body can have them. What is looked for in a list is in a set, what each error
//! would repeat is shown once, and the answer has an end: a loop within a loop is minutes here.

use std::ops::RangeInclusive;

use coracle_apimachinery::field::{ErrorList, Path};
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, RuleWithOperations, ServiceReference, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, ValidatingWebhook,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerExtendedResourceRequest, ContainerResizePolicy, ContainerState,
    ContainerStateTerminated, ContainerStatus, EphemeralVolumeSource, Pod,
    PodExtendedResourceClaimStatus, PodResourceClaim, PodResourceClaimStatus, PodSchedulingGate,
    PodSpec, PodStatus, ResourceClaim, ResourceRequirements, Taint, Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use super::admission_registration::binding::validate_validating_binding;
use super::admission_registration::policy::validate_policy;
use super::admission_registration::webhook::{Webhook, validate_webhooks};
use super::object_meta::validate_object_meta_update;
use super::pod::update::{validate_spec_update, validate_status_update};
use super::pod::validate_spec;
use super::resources::{Claims, validate_container_requirements};
use super::scheduling::taints::validate_taints;
use super::testing::{COUNT, assert_ends, many, named};
use super::volume::validate_volumes;

const ALL: RangeInclusive<usize> = COUNT..=COUNT;
const NONE: RangeInclusive<usize> = 0..=0;
/// More for some items than for others.
const SOME: RangeInclusive<usize> = COUNT / 5..=10 * COUNT;

/// What is large, how many errors there are, and what finds them.
type Case = (&'static str, RangeInclusive<usize>, fn() -> ErrorList);

#[test]
fn large_inputs_cost_what_they_are() {
    let table: [Case; 13] = [
        ("claims", NONE, || used_claims("n")),
        ("unknown claims", ALL, || used_claims("other")),
        ("tolerations", NONE, tolerations),
        ("gates", ALL, gates),
        ("statuses", 2 * COUNT..=2 * COUNT, statuses),
        ("finalizers", 1..=1, finalizers),
        ("owners", COUNT - 1..=COUNT - 1, owners),
        ("taints", NONE, taints),
        ("actions", ALL, actions),
        ("rules", 1..=30, rules),
        ("segments", SOME, segments),
        ("a Pod", SOME, pod),
        ("names that are long", SOME, long_names),
    ];
    for (name, want, errors) in table {
        assert_ends(name, errors(), &want);
    }
}

fn pod_claims() -> Vec<PodResourceClaim> {
    many(|name| PodResourceClaim {
        name,
        ..PodResourceClaim::default()
    })
}

fn used_claims(prefix: &str) -> ErrorList {
    let claims = (0..COUNT).map(|i| ResourceClaim {
        name: format!("{prefix}{i}"),
        request: None,
    });
    let requirements = ResourceRequirements {
        claims: Some(claims.collect()),
        ..ResourceRequirements::default()
    };
    let mut errors = ErrorList::default();
    let known = pod_claims();
    let at = Path::new("resources");
    validate_container_requirements(&requirements, &Claims::of(&known), &at, &mut errors);
    errors
}

fn tolerations() -> ErrorList {
    let tolerations = many(|key| Toleration {
        key: Some(key),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    });
    let spec = PodSpec {
        tolerations: Some(tolerations),
        ..PodSpec::default()
    };
    let mut errors = ErrorList::default();
    validate_spec_update(&spec, &spec, &Path::new("spec"), &mut errors);
    errors
}

fn gates() -> ErrorList {
    let spec = |prefix: &str| PodSpec {
        scheduling_gates: Some(many(|name| PodSchedulingGate {
            name: format!("{prefix}{name}"),
        })),
        ..PodSpec::default()
    };
    let mut errors = ErrorList::default();
    validate_spec_update(&spec("a"), &spec("b"), &Path::new("spec"), &mut errors);
    errors
}

/// Each container begins again, and each has a device that it did not ask for.
fn statuses() -> ErrorList {
    let containers = many(|name| Container {
        name,
        ..Container::default()
    });
    let spec = PodSpec {
        containers,
        resource_claims: Some(pod_claims()),
        restart_policy: Some("Never".to_owned()),
        ..PodSpec::default()
    };
    let pod = |state: Option<ContainerState>| {
        let statuses = many(|name| ContainerStatus {
            name,
            state: state.clone(),
            ..ContainerStatus::default()
        });
        let claims = many(|name| PodResourceClaimStatus {
            name,
            resource_claim_name: None,
        });
        let mappings = many(|container_name| ContainerExtendedResourceRequest {
            container_name,
            resource_name: "example.com/gpu".to_owned(),
            request_name: "r".to_owned(),
        });
        let extended = PodExtendedResourceClaimStatus {
            request_mappings: mappings,
            resource_claim_name: "x".to_owned(),
        };
        Pod {
            spec: Some(spec.clone()),
            status: Some(PodStatus {
                container_statuses: Some(statuses),
                resource_claim_statuses: Some(claims),
                extended_resource_claim_status: Some(extended),
                ..PodStatus::default()
            }),
            ..Pod::default()
        }
    };
    let ended = ContainerState {
        terminated: Some(ContainerStateTerminated::default()),
        ..ContainerState::default()
    };
    let mut errors = ErrorList::default();
    validate_status_update(&pod(None), &pod(Some(ended)), &mut errors);
    errors
}

fn finalizers() -> ErrorList {
    let meta = |prefix: &str| ObjectMeta {
        deletion_timestamp: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
        finalizers: Some(many(|name| format!("{prefix}.example.com/{name}"))),
        ..ObjectMeta::default()
    };
    validate_object_meta_update(&meta("a"), &meta("b"), &Path::new("metadata"))
}

fn owners() -> ErrorList {
    let owners = many(|name| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name,
        uid: "u".to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    });
    let new = ObjectMeta {
        owner_references: Some(owners),
        ..ObjectMeta::default()
    };
    validate_object_meta_update(&new, &ObjectMeta::default(), &Path::new("metadata"))
}

fn taints() -> ErrorList {
    let taints = many(|key| Taint {
        key,
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    });
    let mut errors = ErrorList::default();
    validate_taints(&taints, &Path::new("taints"), &mut errors);
    errors
}

fn actions() -> ErrorList {
    validate_validating_binding(&ValidatingAdmissionPolicyBindingSpec {
        policy_name: "a".to_owned(),
        validation_actions: many(|name| name),
        ..ValidatingAdmissionPolicyBindingSpec::default()
    })
}

fn rules() -> ErrorList {
    let rule = RuleWithOperations {
        resources: Some(many(|name| format!("{name}/*"))),
        ..RuleWithOperations::default()
    };
    let webhooks = [ValidatingWebhook {
        rules: Some(vec![rule]),
        ..ValidatingWebhook::default()
    }];
    validate_webhooks(webhooks.iter().map(Webhook::from), None)
}

/// Each segment of a path is empty.
fn segments() -> ErrorList {
    let mut webhook = ValidatingWebhook::default();
    webhook.client_config.service = Some(ServiceReference {
        path: Some("/".repeat(COUNT)),
        ..ServiceReference::default()
    });
    validate_webhooks([&webhook].into_iter().map(Webhook::from), None)
}

/// Many containers that may name many claims, and one of them with many policies.
fn pod() -> ErrorList {
    let mut containers = named(COUNT / 5, |name| Container {
        name,
        resources: Some(ResourceRequirements::default()),
        ..Container::default()
    });
    containers[0].resize_policy = Some(many(|resource_name| ContainerResizePolicy {
        resource_name,
        restart_policy: "NotRequired".to_owned(),
    }));
    let spec = PodSpec {
        containers,
        resource_claims: Some(pod_claims()),
        ..PodSpec::default()
    };
    let mut errors = ErrorList::default();
    validate_spec(&spec, None, &Path::new("spec"), &mut errors);
    errors
}

/// Names of which others begin with the name of the object.
fn long_names() -> ErrorList {
    let name = "a".repeat(1024 * 1024);
    let annotations = named(COUNT / 10, |key| AuditAnnotation {
        key,
        value_expression: String::new(),
    });
    let policy = ValidatingAdmissionPolicySpec {
        audit_annotations: Some(annotations),
        ..ValidatingAdmissionPolicySpec::default()
    };
    let mut errors = validate_policy(&name, &policy, None);
    let volumes = named(COUNT / 10, |name| Volume {
        name,
        ephemeral: Some(EphemeralVolumeSource::default()),
        ..Volume::default()
    });
    let meta = ObjectMeta {
        name: Some(name),
        ..ObjectMeta::default()
    };
    validate_volumes(&volumes, Some(&meta), &Path::new("volumes"), &mut errors);
    errors
}
