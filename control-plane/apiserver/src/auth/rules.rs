//! What somebody may do, as rules: asked of the authorizer itself, so that it cannot differ from
//! what is decided. What it grants without limit of verb, group or resource is a rule, and what
//! everybody may ask or read.

use super::UserInfo;
use super::authorization::{OF_ISSUER, OPEN, SELF_REVIEWS, authorize};
use crate::request::info::RequestInfo;

/// Everything: what a rule has in place of a list.
const ALL: &str = "*";

/// What a user may do.
pub(crate) struct Rules {
    /// Whether everything with every resource.
    pub(crate) every_resource: bool,
    /// Whether everything with every path.
    pub(crate) every_path: bool,
    /// What the user may create, by group.
    pub(crate) creatable: Vec<(&'static str, Vec<&'static str>)>,
    /// Paths that the user may read; `/*` is what is below one.
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
    let readable = readable.flat_map(|open| [(*open).to_owned(), format!("{open}/*")]);
    let of_issuer = OF_ISSUER.iter().filter(|own| allowed(&path("get", own)));
    let creation = |group: &str, resource: &str| RequestInfo {
        is_resource: true,
        verb: "create".to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        ..RequestInfo::default()
    };
    let creatable = SELF_REVIEWS.iter().map(|(group, resources)| {
        let resources = resources.iter().copied();
        let resources = resources.filter(|resource| allowed(&creation(group, resource)));
        (*group, resources.collect::<Vec<_>>())
    });
    Rules {
        creatable: creatable.filter(|(_, some)| !some.is_empty()).collect(),
        every_resource: allowed(&resource),
        every_path: allowed(&path(ALL, ALL)),
        readable: readable
            .chain(of_issuer.map(|own| (*own).to_owned()))
            .collect(),
    }
}
