//! Which requests are of which flow, and how many of a level are served at once.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, LimitResponse, LimitedPriorityLevelConfiguration, NonResourcePolicyRule,
    PolicyRulesWithSubjects, PriorityLevelConfigurationSpec, QueuingConfiguration,
    ResourcePolicyRule, ServiceAccountSubject, Subject,
};

use super::{faults, items, one_of, shown};

/// The name of the schema and of the level of requests that are never held up.
pub(crate) const EXEMPT: &str = "exempt";

const MAX_PRECEDENCE: i32 = 10_000;
const MAX_QUEUES: i32 = 10_000_000;
/// Bits of the hash from which a flow's hand of queues is dealt.
const MAX_HASH_BITS: f64 = 60.0;
const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

/// The spec of the FlowSchema of this name.
pub(crate) fn validate_flow_schema(spec: &FlowSchemaSpec, name: &str, errors: &mut ErrorList) {
    let at = Path::new("spec");
    let precedence = spec.matching_precedence.unwrap_or_default();
    let precedence_at = at.child("matchingPrecedence");
    let mut refuse = |detail: &str| {
        errors.push(Error::invalid(&precedence_at, precedence, detail));
    };
    if precedence <= 0 {
        refuse("must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        refuse("must not be greater than 10000");
    }
    if precedence == 1 && name != EXEMPT {
        refuse("only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let methods = &["ByNamespace", "ByUser"];
    if let Some(method) = &spec.distinguisher_method
        && !methods.contains(&method.type_.as_str())
    {
        let at = at.child("distinguisherMethod").child("type");
        errors.push(Error::not_supported(&at, method.type_.as_str(), methods));
    }
    let level = spec.priority_level_configuration.name.as_str();
    let level_at = at.child("priorityLevelConfiguration").child("name");
    if level.is_empty() {
        errors.push(Error::required(
            &level_at,
            "must reference a priority level",
        ));
    } else {
        faults(level, names::dns_subdomain(level), &level_at, errors);
    }
    for (i, rule) in items(&spec.rules).iter().enumerate() {
        validate_rule(rule, &at.child("rules").index(i), errors);
    }
}

fn validate_rule(rule: &PolicyRulesWithSubjects, at: &Path, errors: &mut ErrorList) {
    if rule.subjects.is_empty() {
        let detail = "subjects must contain at least one value";
        errors.push(Error::required(&at.child("subjects"), detail));
    }
    for (i, subject) in rule.subjects.iter().enumerate() {
        validate_subject(subject, &at.child("subjects").index(i), errors);
    }
    let (resources, paths) = (items(&rule.resource_rules), items(&rule.non_resource_rules));
    if resources.is_empty() && paths.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(Error::required(at, detail));
    }
    for (i, rule) in resources.iter().enumerate() {
        validate_resource_rule(rule, &at.child("resourceRules").index(i), errors);
    }
    for (i, rule) in paths.iter().enumerate() {
        validate_path_rule(rule, &at.child("nonResourceRules").index(i), errors);
    }
}

fn validate_subject(subject: &Subject, at: &Path, errors: &mut ErrorList) {
    let given = [
        ("User", "user", subject.user.is_some()),
        ("Group", "group", subject.group.is_some()),
        (
            "ServiceAccount",
            "serviceAccount",
            subject.service_account.is_some(),
        ),
    ];
    let kind = subject.kind.as_str();
    if !given.iter().any(|(known, ..)| *known == kind) {
        let kinds = &["Group", "ServiceAccount", "User"];
        errors.push(Error::not_supported(&at.child("kind"), kind, kinds));
        return;
    }
    for (of_kind, field, present) in given {
        let at = at.child(field);
        if of_kind == kind && !present {
            let detail = format!("{field} is required when subject kind is '{of_kind}'");
            errors.push(Error::required(&at, detail));
        }
        if of_kind != kind && present {
            let detail = format!("{field} is forbidden when subject kind is not '{of_kind}'");
            errors.push(Error::forbidden(&at, detail));
        }
    }
    let name = match kind {
        "User" => subject.user.as_ref().map(|user| ("user", &user.name)),
        "Group" => subject.group.as_ref().map(|group| ("group", &group.name)),
        _ => None,
    };
    if let Some((field, name)) = name
        && name.is_empty()
    {
        errors.push(Error::required(&at.child(field).child("name"), ""));
    }
    if kind == "ServiceAccount"
        && let Some(account) = &subject.service_account
    {
        validate_account(account, &at.child("serviceAccount"), errors);
    }
}

fn validate_account(account: &ServiceAccountSubject, at: &Path, errors: &mut ErrorList) {
    let name = account.name.as_str();
    if name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    } else if name != "*" {
        faults(name, names::dns_subdomain(name), &at.child("name"), errors);
    }
    let namespace = account.namespace.as_str();
    let at = at.child("namespace");
    if namespace.is_empty() {
        errors.push(Error::required(
            &at,
            "must specify namespace for service account",
        ));
    } else {
        faults(namespace, names::dns_label(namespace), &at, errors);
    }
}

/// A list of which `*` is all: required, and alone where it is in it.
fn validate_all_or_some(
    list: &[String],
    required: &str,
    what: &str,
    at: &Path,
    errors: &mut ErrorList,
) {
    if list.is_empty() {
        errors.push(Error::required(at, required));
    } else if list.len() > 1 && is_all(list) {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(Error::invalid(at, shown(&list), detail));
    }
}

fn is_all(list: &[String]) -> bool {
    list.iter().any(|member| member == "*")
}

fn validate_verbs(verbs: &[String], at: &Path, errors: &mut ErrorList) {
    let at = at.child("verbs");
    let required = "verbs must contain at least one value";
    validate_all_or_some(verbs, required, "verbs", &at, errors);
    if !is_all(verbs) && !verbs.iter().all(|verb| VERBS.contains(&verb.as_str())) {
        errors.push(Error::not_supported(&at, shown(&verbs), VERBS));
    }
}

fn validate_resource_rule(rule: &ResourcePolicyRule, at: &Path, errors: &mut ErrorList) {
    validate_verbs(&rule.verbs, at, errors);
    let required = "resource rules must supply at least one api group";
    let groups_at = at.child("apiGroups");
    validate_all_or_some(&rule.api_groups, required, "api groups", &groups_at, errors);
    let required = "resource rules must supply at least one resource";
    let resources_at = at.child("resources");
    validate_all_or_some(
        &rule.resources,
        required,
        "resources",
        &resources_at,
        errors,
    );
    let (namespaces, at) = (items(&rule.namespaces), at.child("namespaces"));
    if !namespaces.is_empty() || rule.cluster_scope != Some(true) {
        let required =
            "resource rules that are not cluster scoped must supply at least one namespace";
        validate_all_or_some(namespaces, required, "namespaces", &at, errors);
    }
    if !is_all(namespaces) {
        for (i, namespace) in namespaces.iter().enumerate() {
            let wrong = names::dns_label(namespace).into_iter();
            let wrong = wrong.map(|fault| {
                format!("each member of this list must be '*' or a DNS-1123 label; {fault}")
            });
            faults(namespace, wrong.collect(), &at.index(i), errors);
        }
    }
}

fn validate_path_rule(rule: &NonResourcePolicyRule, at: &Path, errors: &mut ErrorList) {
    validate_verbs(&rule.verbs, at, errors);
    let (urls, at) = (&rule.non_resource_urls, at.child("nonResourceURLs"));
    let required = "nonResourceURLs must contain at least one value";
    validate_all_or_some(urls, required, "non-resource URLs", &at, errors);
    if is_all(urls) {
        return;
    }
    for (i, url) in urls.iter().enumerate() {
        if let Some(detail) = fault_of_path(url) {
            errors.push(Error::invalid(&at.index(i), url.as_str(), detail));
        }
    }
}

fn fault_of_path(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        Some("must not be empty")
    } else if !path.starts_with('/') {
        Some("must start with slash")
    } else if path.contains(' ') {
        Some("must not contain white-space")
    } else if path.contains("//") {
        Some("must not contain double slash")
    } else if path.strip_suffix("/*").unwrap_or(path).contains('*') {
        Some("wildcard can only do suffix matching")
    } else {
        None
    }
}

/// The spec of the PriorityLevelConfiguration of this name.
pub(crate) fn validate_level(
    spec: &PriorityLevelConfigurationSpec,
    name: &str,
    errors: &mut ErrorList,
) {
    let at = Path::new("spec");
    let kind = spec.type_.as_str();
    if (name == EXEMPT) != (kind == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(Error::invalid(&at.child("type"), kind, detail));
    }
    let (limited_at, exempt_at) = (at.child("limited"), at.child("exempt"));
    match kind {
        "Exempt" => {
            if let Some(limited) = &spec.limited {
                errors.push(Error::forbidden(&limited_at, ""));
                validate_union(&limited.limit_response, &limited_at, errors);
            }
            if let Some(exempt) = &spec.exempt {
                validate_shares(exempt.nominal_concurrency_shares, &exempt_at, errors);
                validate_lendable(exempt.lendable_percent, &exempt_at, errors);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.push(Error::forbidden(&exempt_at, ""));
            }
            match &spec.limited {
                Some(limited) => validate_limited(limited, &limited_at, errors),
                None => errors.push(Error::required(&limited_at, "")),
            }
        }
        other => {
            one_of(other, &["Exempt", "Limited"], &at.child("type"), errors);
            if spec.exempt.is_some() {
                errors.push(Error::forbidden(&exempt_at, ""));
            }
            if let Some(limited) = &spec.limited {
                errors.push(Error::forbidden(&limited_at, ""));
                validate_union(&limited.limit_response, &limited_at, errors);
            }
        }
    }
}

fn validate_shares(shares: Option<i32>, at: &Path, errors: &mut ErrorList) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        let at = at.child("nominalConcurrencyShares");
        errors.push(Error::invalid(
            &at,
            shares,
            "must be a non-negative integer",
        ));
    }
}

fn validate_lendable(percent: Option<i32>, at: &Path, errors: &mut ErrorList) {
    if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
        let detail = "must be between 0 and 100, inclusive";
        errors.push(Error::invalid(
            &at.child("lendablePercent"),
            percent,
            detail,
        ));
    }
}

fn validate_limited(
    limited: &LimitedPriorityLevelConfiguration,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_shares(limited.nominal_concurrency_shares, at, errors);
    validate_union(&limited.limit_response, at, errors);
    validate_response(&limited.limit_response, &at.child("limitResponse"), errors);
    validate_lendable(limited.lendable_percent, at, errors);
    if let Some(percent) = limited.borrowing_limit_percent.filter(|given| *given < 0) {
        let at = at.child("borrowingLimitPercent");
        let detail = "if specified, must be a non-negative integer";
        errors.push(Error::invalid(&at, percent, detail));
    }
}

fn validate_response(response: &LimitResponse, at: &Path, errors: &mut ErrorList) {
    let kind = response.type_.as_str();
    match &response.queuing {
        Some(queuing) if kind == "Queue" => {
            validate_queuing(queuing, &at.child("queuing"), errors);
        }
        _ if kind.is_empty() || kind == "Reject" || kind == "Queue" => {}
        _ => errors.push(Error::not_supported(
            &at.child("type"),
            kind,
            &["Queue", "Reject"],
        )),
    }
}

/// The type that a response has to have, and the queues that it has where that is `Queue`. It is
/// asked of every response, also of one that should not be there.
fn validate_union(response: &LimitResponse, limited_at: &Path, errors: &mut ErrorList) {
    let at = limited_at.child("limitResponse");
    if response.type_.is_empty() {
        errors.push(Error::required(&at.child("type"), ""));
    }
    let at = at.child("queuing");
    match (response.type_ == "Queue", response.queuing.is_some()) {
        (true, false) => errors.push(Error::required(&at, "")),
        (false, true) => errors.push(Error::forbidden(&at, "")),
        _ => {}
    }
}

fn validate_queuing(queuing: &QueuingConfiguration, at: &Path, errors: &mut ErrorList) {
    let positive = |value: i32, field: &str, errors: &mut ErrorList| {
        if value <= 0 {
            errors.push(Error::invalid(&at.child(field), value, "must be positive"));
        }
        value > 0
    };
    let length = queuing.queue_length_limit.unwrap_or_default();
    positive(length, "queueLengthLimit", errors);
    let queues = queuing.queues.unwrap_or_default();
    if positive(queues, "queues", errors) && queues > MAX_QUEUES {
        let detail = format!("must not be greater than {MAX_QUEUES}");
        errors.push(Error::invalid(&at.child("queues"), queues, detail));
    }
    let hand = queuing.hand_size.unwrap_or_default();
    if !positive(hand, "handSize", errors) {
        return;
    }
    let bits = (f64::from(queues).log2() * f64::from(hand)).ceil();
    let detail = if hand > queues {
        format!("should not be greater than queues ({queues})")
    } else if bits > MAX_HASH_BITS {
        format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        )
    } else {
        return;
    };
    errors.push(Error::invalid(&at.child("handSize"), hand, detail));
}

/// The types of conditions of either kind: one of each.
pub(crate) fn validate_conditions<'a>(
    types: impl Iterator<Item = &'a str>,
    errors: &mut ErrorList,
) {
    let mut seen = BTreeSet::new();
    for (i, kind) in types.enumerate() {
        let at = Path::new("status")
            .child("conditions")
            .index(i)
            .child("type");
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&at, kind));
        }
        if kind.is_empty() {
            errors.push(Error::required(&at, ""));
        }
    }
}
