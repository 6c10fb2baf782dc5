//! Classes of devices.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::resource::v1::DeviceClassSpec;

use super::at_most;
use super::claim::{MAX_CONFIGURATIONS, validate_opaque, validate_selectors};
use crate::validation::{equality, items, resources};

/// The spec of a class, and the one that it had before.
pub(crate) fn validate_class_spec(
    spec: &DeviceClassSpec,
    old: Option<&DeviceClassSpec>,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    let stored = old.is_some_and(|old| equality::semantic(&spec.selectors, &old.selectors));
    let selectors_at = at.child("selectors");
    validate_selectors(items(&spec.selectors), stored, &selectors_at, &mut errors);
    let stored = old.is_some_and(|old| equality::semantic(&spec.config, &old.config));
    let (config, config_at) = (items(&spec.config), at.child("config"));
    if at_most(config, MAX_CONFIGURATIONS, &config_at, &mut errors) {
        for (i, config) in config.iter().enumerate() {
            let at = config_at.index(i);
            validate_opaque(config.opaque.as_ref(), stored, &at, &mut errors);
        }
    }
    if let Some(name) = &spec.extended_resource_name
        && !resources::is_extended(name)
    {
        let at = at.child("extendedResourceName");
        let detail = "must be a valid extended resource name";
        errors.push(Error::invalid(&at, name.as_str(), detail));
    }
    errors
}
