//! The conditions of a Deployment, and the rule by which their times change.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Conditions under change.
pub(super) struct Conditions {
    conditions: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    pub(super) fn new(conditions: Option<Vec<DeploymentCondition>>, now: Timestamp) -> Self {
        let conditions = conditions.unwrap_or_default();
        Self { conditions, now }
    }

    pub(super) fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.conditions
            .iter()
            .find(|c| c.type_.as_deref() == Some(kind))
    }

    pub(super) fn reason(&self, kind: &str) -> Option<&str> {
        self.get(kind)?.reason.as_deref()
    }

    /// Sets a condition; one of the same status and reason stays as it is.
    pub(super) fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let same = |c: &DeploymentCondition| {
            c.status.as_deref() == Some(status) && c.reason.as_deref() == Some(reason)
        };
        if !self.get(kind).is_some_and(same) {
            self.renew(kind, status, reason, message);
        }
    }

    /// Sets a condition and its update time; the transition time changes with the status alone.
    pub(super) fn renew(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = Some(Time(self.now));
        let since = self
            .get(kind)
            .filter(|c| c.status.as_deref() == Some(status));
        let since = since.and_then(|c| c.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: Some(kind.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: since.or(now.clone()),
            last_update_time: now,
        };
        match self
            .conditions
            .iter_mut()
            .find(|c| c.type_.as_deref() == Some(kind))
        {
            Some(slot) => *slot = condition,
            None => self.conditions.push(condition),
        }
    }

    pub(super) fn remove(&mut self, kind: &str) {
        self.conditions.retain(|c| c.type_.as_deref() != Some(kind));
    }

    pub(super) fn finish(self) -> Option<Vec<DeploymentCondition>> {
        (!self.conditions.is_empty()).then_some(self.conditions)
    }
}
