//! What somebody may do, as rules: asked of the authorizer itself, so that it cannot differ from
//! what is decided. Only what it grants without limit of verb, group or resource is a rule.

use super::UserInfo;
use super::authorization::{OPEN, authorize};
use crate::request::info::RequestInfo;

/// Everything: what a rule has in place of a list.
const ALL: &str = "*";

/// What a user may do.
pub(crate) struct Rules {
    /// Whether everything with every resource.
    pub(crate) every_resource: bool,
    /// Whether everything with every path.
    pub(crate) every_path: bool,
    /// Paths that the user may read, each with those below it.
    pub(crate) readable: Vec<String>,
}

/// The rules of a user in a namespace.
pub(crate) fn rules_of(user: &UserInfo, namespace: &str) -> Rules {
    let allowed = |info: &RequestInfo| authorize(user, info).is_ok();
    let resource = RequestInfo {
        is_resource: true,
        verb: ALL.to_owned(),
        group: ALL.to_owned(),
        version: ALL.to_owned(),
        resource: ALL.to_owned(),
        namespace: namespace.to_owned(),
        ..RequestInfo::default()
    };
    let path = |verb: &str, path: &str| RequestInfo {
        verb: verb.to_owned(),
        path: path.to_owned(),
        ..RequestInfo::default()
    };
    let readable = OPEN.iter().filter(|open| allowed(&path("get", open)));
    Rules {
        every_resource: allowed(&resource),
        every_path: allowed(&path(ALL, ALL)),
        readable: readable
            .flat_map(|open| [(*open).to_owned(), format!("{open}/*")])
            .collect(),
    }
}
