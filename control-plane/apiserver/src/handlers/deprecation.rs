//! Kinds that are served and should not be used any more: every answer about them says so in a
//! Warning header.

use crate::request::info::RequestInfo;

/// Group, version and resource, and what is said of them.
const DEPRECATED: &[(&str, &str, &str, &str)] = &[
    (
        "",
        "v1",
        "componentstatuses",
        "v1 ComponentStatus is deprecated in v1.19+",
    ),
    (
        "",
        "v1",
        "endpoints",
        "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
];

/// What is to be said of the kind that a request is about.
pub(crate) fn warning(info: &RequestInfo) -> Option<&'static str> {
    let about = (
        info.group.as_str(),
        info.version.as_str(),
        info.resource.as_str(),
    );
    let mut known = DEPRECATED.iter();
    let found = known.find(|(group, version, resource, _)| (*group, *version, *resource) == about);
    found.map(|(.., warning)| *warning)
}
