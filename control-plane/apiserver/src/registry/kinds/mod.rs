//! The table of kinds: one file and one line for each.

mod config_map;

use std::sync::Arc;

use super::erased::{Kind, kind};

/// Every built-in kind, in the order in which discovery lists them within their group-version.
#[must_use]
pub fn all() -> Vec<Arc<dyn Kind>> {
    vec![kind(config_map::ConfigMapStrategy)]
}
