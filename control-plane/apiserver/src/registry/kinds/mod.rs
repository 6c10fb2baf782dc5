//! The table of kinds: one file (or folder) and one line for each.

mod config_map;
mod event;
mod lease;
pub mod namespace;
mod node;
pub mod pod;
mod secret;
mod service_account;

use std::sync::Arc;

use super::erased::{Kind, kind};

/// Every built-in kind, in the order in which discovery lists them within their group-version.
#[must_use]
pub fn all() -> Vec<Arc<dyn Kind>> {
    vec![
        kind(config_map::ConfigMapStrategy),
        kind(event::EventStrategy),
        kind(namespace::NamespaceStrategy),
        kind(node::NodeStrategy),
        kind(pod::PodStrategy),
        kind(secret::SecretStrategy),
        kind(service_account::ServiceAccountStrategy),
        kind(lease::LeaseStrategy),
        kind(event::EventViewStrategy),
    ]
}
