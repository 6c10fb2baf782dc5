//! The policy file: `kind: Policy` of `audit.k8s.io/v1`. It is read once, and wholly understood or
//! refused: a rule that is misspelt would leave out what somebody relies on.

use std::path::{Path as FilePath, PathBuf};

use coracle_apimachinery::field::{self, ErrorList, Path};
use coracle_apimachinery::{names, yaml};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::validation::{faults, shown};

const API_VERSION: &str = "audit.k8s.io/v1";

/// How much is told of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when, and how it ended.
    Metadata,
    /// The same with what was sent.
    Request,
    /// The same with what was answered.
    RequestResponse,
}

const LEVELS: [(&str, Level); 4] = [
    ("None", Level::None),
    ("Metadata", Level::Metadata),
    ("Request", Level::Request),
    ("RequestResponse", Level::RequestResponse),
];

impl Level {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        LEVELS[self as usize].0
    }
}

/// Where a request is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has come and its sender is known; nothing has been done.
    RequestReceived,
    /// The answer has begun: only of watches and others that last.
    ResponseStarted,
    /// The answer has been sent.
    ResponseComplete,
    /// The server failed over it.
    Panic,
}

const STAGES: [(&str, Stage); 4] = [
    ("RequestReceived", Stage::RequestReceived),
    ("ResponseStarted", Stage::ResponseStarted),
    ("ResponseComplete", Stage::ResponseComplete),
    ("Panic", Stage::Panic),
];

impl Stage {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        STAGES[self as usize].0
    }
}

/// Resources of a group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GroupResources {
    pub(super) group: String,
    pub(super) resources: Vec<String>,
    pub(super) resource_names: Vec<String>,
}

/// A rule as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenRule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

/// A rule. An empty list matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rule {
    pub(super) level: Level,
    pub(super) users: Vec<String>,
    pub(super) user_groups: Vec<String>,
    pub(super) verbs: Vec<String>,
    pub(super) resources: Vec<GroupResources>,
    pub(super) namespaces: Vec<String>,
    pub(super) non_resource_urls: Vec<String>,
    /// With those of the policy.
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

/// What is audited: the first rule that matches a request decides, and without one nothing is.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
}

/// Why a policy is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the audit policy {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no YAML.
    #[error("the audit policy is no YAML: {0}")]
    Malformed(#[from] yaml::Error),
    /// It is no policy.
    #[error("the audit policy {name} is not valid: {reason}")]
    Invalid {
        /// The file.
        name: String,
        /// The fields, and what is wrong with each.
        reason: String,
    },
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// With the file, the field and the reason.
    pub fn read(file: &FilePath) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(file).map_err(|source| PolicyError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(&file.display().to_string(), &text)
    }

    /// Reads a policy; `name` is what it is called in errors.
    ///
    /// # Errors
    /// With the name, the field and the reason.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        let value = yaml::read_one(name, text)?;
        let mut errors = ErrorList::default();
        let policy = policy(&value, &mut errors);
        if errors.is_empty() {
            return Ok(policy);
        }
        Err(PolicyError::Invalid {
            name: name.to_owned(),
            reason: field::aggregate(&errors),
        })
    }
}

fn policy(value: &Value, errors: &mut ErrorList) -> Policy {
    let root = Path::root();
    let known = [
        "apiVersion",
        "kind",
        "metadata",
        "rules",
        "omitStages",
        "omitManagedFields",
    ];
    let none = Map::new();
    let fields = value.as_object().unwrap_or(&none);
    check_fields(fields, &known, &root, errors);
    for (field, wanted) in [("apiVersion", API_VERSION), ("kind", "Policy")] {
        let given = fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default();
        if given != wanted {
            errors.push(field::Error::not_supported(
                &root.child(field),
                given,
                &[wanted],
            ));
        }
    }
    let read = |field: &str| fields.get(field).cloned().unwrap_or_default();
    let at = root.child("omitStages");
    let omit = decode::<Option<Vec<String>>>(read("omitStages"), &at, errors).flatten();
    let omit = stages(&omit.unwrap_or_default(), &at, errors);
    let at = root.child("omitManagedFields");
    let managed = decode::<Option<bool>>(read("omitManagedFields"), &at, errors).flatten();
    let at = root.child("rules");
    let written = decode::<Option<Vec<Value>>>(read("rules"), &at, errors).flatten();
    let written = written.unwrap_or_default();
    if written.is_empty() {
        errors.push(field::Error::required(
            &at,
            "a policy has at least one rule",
        ));
    }
    let rules = written
        .into_iter()
        .enumerate()
        .filter_map(|(i, value)| {
            let mut rule = rule(value, &at.index(i), managed.unwrap_or(false), errors)?;
            rule.omit_stages.extend(&omit);
            Some(rule)
        })
        .collect();
    Policy { rules }
}

fn rule(value: Value, at: &Path, managed: bool, errors: &mut ErrorList) -> Option<Rule> {
    let known = [
        "level",
        "users",
        "userGroups",
        "verbs",
        "resources",
        "namespaces",
        "nonResourceURLs",
        "omitStages",
        "omitManagedFields",
    ];
    if let Some(fields) = value.as_object() {
        check_fields(fields, &known, at, errors);
        let resources = fields.get("resources").and_then(Value::as_array);
        for (i, item) in resources.into_iter().flatten().enumerate() {
            if let Some(fields) = item.as_object() {
                let at = at.child("resources").index(i);
                check_fields(
                    fields,
                    &["group", "resources", "resourceNames"],
                    &at,
                    errors,
                );
            }
        }
    }
    let written: WrittenRule = decode(value, at, errors)?;
    let level_at = at.child("level");
    let known = LEVELS.iter().find(|(name, _)| *name == written.level);
    let level = match known {
        Some((_, level)) => *level,
        None => {
            errors.push(if written.level.is_empty() {
                field::Error::required(&level_at, "")
            } else {
                let names = LEVELS.map(|(name, _)| name);
                field::Error::not_supported(&level_at, written.level.as_str(), &names)
            });
            Level::None
        }
    };
    check_urls(&written, at, errors);
    check_resources(&written.resources, &at.child("resources"), errors);
    Some(Rule {
        level,
        omit_stages: stages(&written.omit_stages, &at.child("omitStages"), errors),
        omit_managed_fields: written.omit_managed_fields.unwrap_or(managed),
        users: written.users,
        user_groups: written.user_groups,
        verbs: written.verbs,
        resources: written.resources,
        namespaces: written.namespaces,
        non_resource_urls: written.non_resource_urls,
    })
}

fn check_fields(fields: &Map<String, Value>, known: &[&str], at: &Path, errors: &mut ErrorList) {
    for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
        errors.push(field::Error::forbidden(
            &at.child(name),
            "there is no such field",
        ));
    }
}

fn decode<T: for<'de> Deserialize<'de>>(
    value: Value,
    at: &Path,
    errors: &mut ErrorList,
) -> Option<T> {
    match serde_json::from_value(value.clone()) {
        Ok(decoded) => Some(decoded),
        Err(error) => {
            errors.push(field::Error::type_invalid(at, value, error.to_string()));
            None
        }
    }
}

fn stages(names: &[String], at: &Path, errors: &mut ErrorList) -> Vec<Stage> {
    let mut stages = Vec::new();
    for (i, name) in names.iter().enumerate() {
        match STAGES.iter().find(|(known, _)| known == name) {
            Some((_, stage)) => stages.push(*stage),
            None => {
                let known = STAGES.map(|(name, _)| name);
                errors.push(field::Error::not_supported(
                    &at.index(i),
                    name.as_str(),
                    &known,
                ));
            }
        }
    }
    stages
}

fn check_urls(rule: &WrittenRule, at: &Path, errors: &mut ErrorList) {
    let urls = &rule.non_resource_urls;
    let at = at.child("nonResourceURLs");
    for (i, url) in urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let mut refuse = |detail| {
            errors.push(field::Error::invalid(&at.index(i), url.as_str(), detail));
        };
        if !url.starts_with('/') {
            refuse("non-resource URL rules must begin with a '/' character");
        }
        if url.find('*').is_some_and(|star| star + 1 < url.len()) {
            refuse("non-resource URL wildcards '*' must be the final character of the rule");
        }
    }
    let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if of_resources && !urls.is_empty() {
        let detail = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(field::Error::invalid(&at, shown(urls), detail));
    }
}

fn check_resources(resources: &[GroupResources], at: &Path, errors: &mut ErrorList) {
    for (i, item) in resources.iter().enumerate() {
        let at = at.index(i);
        if !item.group.is_empty() && item.group != "*" {
            let found = names::dns_subdomain(&item.group);
            faults(&item.group, found, &at.child("group"), errors);
        }
        if !item.resource_names.is_empty() && item.resources.is_empty() {
            let detail = "using resourceNames requires at least one resource";
            let names = shown(&item.resource_names);
            errors.push(field::Error::invalid(
                &at.child("resourceNames"),
                names,
                detail,
            ));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    #[test]
    fn a_policy_is_read_with_what_it_says_for_all_rules() {
        let text = format!(
            "{HEAD}omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
             - level: Metadata\n  resources:\n  - resources: [secrets]\n  omitManagedFields: false\n\
             - level: RequestResponse\n  omitStages: [Panic]\n"
        );
        let policy = Policy::parse("p.yaml", &text).unwrap();
        assert_eq!(policy.rules[0].omit_stages, [Stage::RequestReceived]);
        assert!(!policy.rules[0].omit_managed_fields);
        assert_eq!(policy.rules[0].resources[0].resources, ["secrets"]);
        assert_eq!(policy.rules[1].level, Level::RequestResponse);
        assert_eq!(
            policy.rules[1].omit_stages,
            [Stage::Panic, Stage::RequestReceived]
        );
        assert!(policy.rules[1].omit_managed_fields);
    }

    #[test]
    fn faults_name_the_file_the_field_and_the_reason() {
        let rule = |rule: &str| format!("{HEAD}rules:\n- {rule}\n");
        let table = [
            (String::new(), "apiVersion: Unsupported value"),
            (
                HEAD.to_owned(),
                "rules: Required value: a policy has at least one rule",
            ),
            (
                rule("levle: Metadata"),
                "rules[0].levle: Forbidden: there is no such field",
            ),
            (rule("level: ''"), "rules[0].level: Required value"),
            (
                rule("level: Loud"),
                "rules[0].level: Unsupported value: \"Loud\"",
            ),
            (rule("{level: None, verbs: get}"), "rules[0]: Invalid value"),
            (
                rule("{level: None, omitStages: [X]}"),
                "rules[0].omitStages[0]: Unsupported value",
            ),
            (
                rule("{level: None, nonResourceURLs: [healthz]}"),
                "rules[0].nonResourceURLs[0]: Invalid value: \"healthz\": non-resource URL rules must begin",
            ),
            (
                rule("{level: None, nonResourceURLs: ['/a*b']}"),
                "must be the final character",
            ),
            (
                rule("{level: None, nonResourceURLs: ['/a'], namespaces: [b]}"),
                "rules cannot apply to both",
            ),
            (
                rule("{level: None, resources: [{group: apps/v1}]}"),
                "rules[0].resources[0].group: Invalid value",
            ),
            (
                rule("{level: None, resources: [{resourceNames: [a]}]}"),
                "rules[0].resources[0].resourceNames: Invalid value",
            ),
            (
                rule("{level: None, resources: [{gruop: a}]}"),
                "rules[0].resources[0].gruop: Forbidden",
            ),
        ];
        for (text, want) in table {
            let error = Policy::parse("p.yaml", &text).unwrap_err().to_string();
            assert!(
                error.contains(want) && error.contains("p.yaml"),
                "{error}\n{want}"
            );
        }
        let error = Policy::parse("p.yaml", "a: [").unwrap_err().to_string();
        assert!(error.contains("p.yaml:"), "{error}");
        let error = Policy::read(FilePath::new("/nowhere/p.yaml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/p.yaml"), "{error}");
    }
}
