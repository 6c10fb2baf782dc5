//! The nodes at which devices are.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::NodeSelector;

use crate::validation::faults;
use crate::validation::scheduling::validate_node_selector;

/// Fields of which one says where devices are. Each that is set is checked; returns which are.
pub(super) fn validate_places(
    name: Option<&str>,
    selector: Option<&NodeSelector>,
    all: Option<bool>,
    empty: &str,
    at: &Path,
    errors: &mut ErrorList,
) -> Vec<&'static str> {
    let mut set = Vec::new();
    let name_at = at.child("nodeName");
    match name {
        Some("") => errors.push(Error::invalid(&name_at, "", empty)),
        Some(name) => {
            set.push("`nodeName`");
            faults(name, names::dns_subdomain(name), &name_at, errors);
        }
        None => {}
    }
    if let Some(selector) = selector {
        set.push("`nodeSelector`");
        validate_node_selector(selector, &at.child("nodeSelector"), errors);
    }
    if is_true(all, &at.child("allNodes"), errors) {
        set.push("`allNodes`");
    }
    set
}

/// Whether a flag is set, which may not be set to false.
pub(super) fn is_true(flag: Option<bool>, at: &Path, errors: &mut ErrorList) -> bool {
    if flag == Some(false) {
        let detail = "must be either unset or set to true";
        errors.push(Error::invalid(at, false, detail));
    }
    flag == Some(true)
}
