//! pods/eviction: deletes a Pod, as long as no disruption budget objects.
//!
//! A budget that allows it is told first: it has one disruption less to give, and knows which Pod
//! goes, until its controller counts anew. Then the Pod gets a condition that says why it goes,
//! and is deleted.

use axum::body::Body;
use coracle_apimachinery::pods;
use coracle_apimachinery::selector::Selector;
use coracle_apimachinery::status::Status;
use coracle_store::Read;
use http::Response;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::encode::{accepted, warn};
use super::pods::{done, named};
use super::{Call, decode};
use crate::registry::delete::check_preconditions;
use crate::registry::encoding::decode as decode_record;
use crate::registry::erased::Object;
use crate::registry::update::Part;
use crate::registry::{Caller, Target, meta, typed};
use crate::request::options::{DeleteRequest, FieldValidation, WriteOptions};

const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CAUSE: &str = "DisruptionBudget";
/// Seconds after which a client may ask again, where a budget's controller lags.
const RETRY_SECONDS: i32 = 10;
/// Most Pods that a budget may wait for.
const MAX_DISRUPTED: usize = 2000;
/// How often an eviction starts over when the Pod changes meanwhile.
const ATTEMPTS: usize = 16;

/// The name of the type in the OpenAPI document.
const SCHEMA: &str = "io.k8s.api.policy.v1.Eviction";

/// Evicts a Pod.
pub(super) async fn evict(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let (eviction, warnings) = read(call, body, options.field_validation).await?;
    named(call, &eviction.metadata, Eviction::KIND)?;
    let mut request = DeleteRequest::from_options(eviction.delete_options.unwrap_or_default())?;
    request.dry_run |= options.dry_run;
    let caller = call.caller(request.dry_run);
    let mut allowed = None;
    for _ in 0..ATTEMPTS {
        let record = call
            .server
            .registry
            .get(call.target(), Read::Latest)
            .await?;
        // Nothing is charged, and nothing said, for another Pod than the one that is meant.
        check_preconditions(call.target(), &request, &record)?;
        let pod: Pod = typed(decode_record(&**call.kind, &record)?)?;
        let consent = match allowed {
            // A budget is charged once, however often the Pod changes meanwhile.
            Some(Consent::Charged) => Consent::Charged,
            _ => consent(call, caller, &pod).await?,
        };
        match delete(call, caller, &request, &pod, &consent).await {
            Err(status) if status.code() == 409 && request.resource_version.is_none() => {
                allowed = Some(consent);
            }
            result => {
                let mut response = result.and_then(|()| done(call))?;
                warn(response.headers_mut(), &warnings);
                return Ok(response);
            }
        }
    }
    match allowed {
        Some(Consent::Unhealthy(budget)) => Err(still_processed(&budget)),
        _ => Err(call
            .target()
            .conflict(coracle_apimachinery::status::OBJECT_MODIFIED)),
    }
}

/// The eviction, with the warnings of field validation. In the version before it is the same, and
/// old clients send that.
async fn read(
    call: &Call<'_>,
    body: Body,
    validation: FieldValidation,
) -> Result<(Eviction, Vec<String>), Status> {
    let json = decode::json(call, body).await?;
    let faults = decode::faults(call, SCHEMA, &json, validation);
    if let Some(error) = decode::refusal(&faults, validation) {
        return Err(cannot_handle(&error));
    }
    let mut sent: Value = serde_json::from_slice(&json).map_err(|error| cannot_handle(&error))?;
    if sent["apiVersion"] == "policy/v1beta1" {
        sent["apiVersion"] = Eviction::API_VERSION.into();
    }
    let eviction: Eviction = serde_json::from_value(sent).map_err(|error| cannot_handle(&error))?;
    call.sent(&eviction.metadata, &faults);
    Ok((eviction, faults))
}

fn cannot_handle(error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(format!(
        "Eviction in version \"v1\" cannot be handled as a Eviction: {error}"
    ))
}

/// Why a Pod may go.
enum Consent {
    /// No budget is concerned.
    Free,
    /// It does not serve, and its budget (of this name) lets it go as long as it does not.
    Unhealthy(String),
    /// Its budget has counted it.
    Charged,
}

async fn delete(
    call: &Call<'_>,
    caller: Caller<'_>,
    request: &DeleteRequest,
    pod: &Pod,
    consent: &Consent,
) -> Result<(), Status> {
    let registry = &call.server.registry;
    let mut request = DeleteRequest {
        uid: request.uid.clone(),
        resource_version: request.resource_version.clone(),
        ..*request
    };
    if request.resource_version.is_none() && !matches!(consent, Consent::Charged) && !is_over(pod) {
        // What was seen of the Pod is why it may go: it must not have become ready since.
        request
            .resource_version
            .clone_from(&pod.metadata.resource_version);
    }
    if !caller.dry_run && pods::is_active(pod) {
        let demanded = request.clone();
        let change = |current: &dyn Object| mark(call, current, &demanded);
        let part = Part::Internal("eviction");
        let marked = registry
            .update(call.target(), part, &change, caller)
            .await?;
        if request.resource_version.is_some() {
            request.resource_version = Some(marked.record.revision().to_string());
        }
    }
    registry.delete(call.target(), &request, caller).await?;
    Ok(())
}

/// Says in the Pod's status why it goes.
fn mark(
    call: &Call<'_>,
    current: &dyn Object,
    demanded: &DeleteRequest,
) -> Result<Box<dyn Object>, Status> {
    let mut pod: Pod = typed(current.boxed())?;
    let differs =
        |demanded: &Option<String>, is: &Option<String>| demanded.is_some() && demanded != is;
    if differs(&demanded.resource_version, &pod.metadata.resource_version)
        || differs(&demanded.uid, &pod.metadata.uid)
    {
        return Err(call
            .target()
            .conflict(coracle_apimachinery::status::OBJECT_MODIFIED));
    }
    let condition = PodCondition {
        type_: pods::DISRUPTION_TARGET.to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        last_transition_time: Some(meta::now()),
        ..PodCondition::default()
    };
    pods::set_condition(pod.status.get_or_insert_default(), condition);
    Ok(Box::new(pod))
}

/// Whether the Pod serves nobody any more, whatever happens to it.
fn is_over(pod: &Pod) -> bool {
    pods::is_terminal(pod) || pods::is_terminating(pod)
}

/// Asks the Pod's budget, and charges it.
async fn consent(call: &Call<'_>, caller: Caller<'_>, pod: &Pod) -> Result<Consent, Status> {
    if is_over(pod) || pods::phase(pod) == "Pending" {
        return Ok(Consent::Free);
    }
    let registry = &call.server.registry;
    let all = registry
        .find_all::<PodDisruptionBudget>(call.namespace())
        .await?;
    let mut budgets = all.into_iter().filter(|budget| covers(budget, pod));
    let Some(budget) = budgets.next() else {
        return Ok(Consent::Free);
    };
    if budgets.next().is_some() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::failure(500, "InternalError", message));
    }
    let name = budget.metadata.name.clone().unwrap_or_default();
    if !pods::is_ready(pod) && lets_unhealthy_go(&budget) {
        return Ok(Consent::Unhealthy(name));
    }
    let target = Target {
        kind: registry.kind_of::<PodDisruptionBudget>()?,
        namespace: call.namespace(),
        name: &name,
    };
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let mut budget: PodDisruptionBudget = typed(current.boxed())?;
        charge(target, &mut budget, &call.info.name)?;
        Ok(Box::new(budget))
    };
    registry
        .update(target, Part::Status, &change, caller)
        .await?;
    Ok(Consent::Charged)
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    // A selector that selects everything, or none, is no wish to protect all Pods.
    selector.is_some_and(|selector| {
        Selector::from_label_selector(selector).is_ok_and(|selector| {
            !selector.is_everything() && selector.matches_optional(pod.metadata.labels.as_ref())
        })
    })
}

fn lets_unhealthy_go(budget: &PodDisruptionBudget) -> bool {
    let policy = budget
        .spec
        .as_ref()
        .and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.clone().unwrap_or_default();
    let (healthy, desired) = (
        status.current_healthy.unwrap_or(0),
        status.desired_healthy.unwrap_or(0),
    );
    policy == Some("AlwaysAllow") || (healthy >= desired && desired > 0)
}

/// Takes one disruption from a budget, or says why there is none.
fn charge(target: Target<'_>, budget: &mut PodDisruptionBudget, pod: &str) -> Result<(), Status> {
    let name = target.name;
    let resource = target.kind.descriptor().group_resource();
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        return Err(still_processed(name));
    }
    let allowed = status.disruptions_allowed.unwrap_or(0);
    let disrupted = status.disrupted_pods.get_or_insert_default();
    if allowed < 0 {
        let cause = "pdb disruptions allowed is negative";
        return Err(Status::forbidden(&resource, name, cause));
    }
    if disrupted.len() > MAX_DISRUPTED {
        let cause =
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&resource, name, cause));
    }
    if allowed == 0 {
        let message = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy.unwrap_or(0),
            status.current_healthy.unwrap_or(0)
        );
        return Err(Status::too_many_requests(VIOLATION, 0).with_cause(CAUSE, &message, ""));
    }
    disrupted.insert(pod.to_owned(), meta::now());
    status.disruptions_allowed = Some(allowed - 1);
    if allowed == 1 {
        let condition = Condition {
            type_: "DisruptionAllowed".to_owned(),
            status: "False".to_owned(),
            reason: "InsufficientPods".to_owned(),
            message: String::new(),
            observed_generation: status.observed_generation,
            last_transition_time: meta::now(),
        };
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|present| present.type_ != condition.type_);
        conditions.push(condition);
    }
    Ok(())
}

fn still_processed(budget: &str) -> Status {
    let message = format!("The disruption budget {budget} is still being processed by the server.");
    Status::too_many_requests(VIOLATION, RETRY_SECONDS).with_cause(CAUSE, &message, "")
}
