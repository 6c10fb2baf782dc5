//! The audit log: who did what, as `audit.k8s.io/v1` events, one JSON object in a line.
//!
//! | module | for |
//! |---|---|
//! | [`policy`] | the policy file, checked when the server starts |
//! | [`rules`] | what a policy says of a request |
//! | [`event`] | the shape of an event |
//! | [`trail`] | one request on its way through the stages |
//! | [`log`] | the queue, the file and its rotation |
//!
//! A request never waits for the log. The queue has a bound, in events and in bytes; an event for
//! which there is no room is dropped, counted in `apiserver_audit_error_total{plugin="log"}`, and
//! the server's own log says how many were lost since it last said so. The same becomes of events
//! that cannot be written. (Kubernetes' default is to hold up requests instead.)
//!
//! Deliberately absent: the webhook backend, and formats other than JSON.

mod event;
pub mod log;
pub mod policy;
mod rules;
pub(crate) mod trail;

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub use log::{AuditLog, LogOptions};
pub use policy::{Level, Policy, PolicyError, Stage};

/// What is audited, and where it is written.
pub struct Audit {
    pub(crate) policy: Policy,
    pub(crate) log: AuditLog,
    pub(crate) metrics: AuditMetrics,
}

impl Audit {
    /// Audits by this policy into this log.
    #[must_use]
    pub fn new(policy: Policy, log: AuditLog) -> Arc<Self> {
        Arc::new(Self {
            policy,
            metrics: AuditMetrics {
                lost: log.lost(),
                ..AuditMetrics::default()
            },
            log,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Plugin {
    plugin: &'static str,
}

/// `apiserver_audit_*`.
#[derive(Clone, Default)]
pub(crate) struct AuditMetrics {
    events: Counter,
    levels: Family<LevelLabel, Counter>,
    lost: Family<Plugin, Counter>,
    rejected: Counter,
}

impl AuditMetrics {
    /// Registers them below `apiserver`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("audit");
        registry.register(
            "event",
            "Audit events that went to the log",
            self.events.clone(),
        );
        registry.register(
            "level",
            "Requests by the level at which the policy audits them",
            self.levels.clone(),
        );
        registry.register(
            "error",
            "Audit events that were lost, by the backend that lost them",
            self.lost.clone(),
        );
        registry.register(
            "requests_rejected",
            "Requests that were refused because they could not be audited: none ever is",
            self.rejected.clone(),
        );
    }
}
