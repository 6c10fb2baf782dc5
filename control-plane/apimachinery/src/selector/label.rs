//! Label selectors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::Error;
use crate::names;

/// What a requirement asks of the value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `==`, `in`: one of the values.
    In,
    /// `!=`, `notin`: none of the values, or no such label.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// Its value is an integer greater than the given one.
    GreaterThan,
    /// Its value is an integer less than the given one.
    LessThan,
}

/// One condition on the labels of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

impl Requirement {
    /// Checks key and values as Kubernetes does; `values` must suit the operator.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Self, Error> {
        let (key, values) = (key.into(), values.into_iter().collect::<BTreeSet<_>>());
        let fault = |field: &str, value: &str, faults: &[String]| {
            Err(Error(format!(
                "{field}: Invalid value: {value:?}: {}",
                faults.join("; ")
            )))
        };
        let faults = names::qualified_name(&key);
        if !faults.is_empty() {
            return fault("key", &key, &faults);
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err(Error("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into()));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(Error(
                    "values: Invalid value: values set must be empty for exists and does not exist"
                        .into(),
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    return Err(Error("values: Invalid value: for 'Gt', 'Lt' operators, exactly one value is required".into()));
                }
                if let Some(value) = values.iter().find(|value| value.parse::<i64>().is_err()) {
                    return fault(
                        "values[0]",
                        value,
                        &["for 'Gt', 'Lt' operators, the value must be an integer".into()],
                    );
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let faults = names::label_value(value);
            if !faults.is_empty() {
                return fault(&format!("values[{index}][{key}]"), value, &faults);
            }
        }
        Ok(Self {
            key,
            operator,
            values,
        })
    }

    /// The label that is asked for.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is asked of it.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values that are compared with.
    pub fn values(&self) -> &BTreeSet<String> {
        &self.values
    }

    /// Whether labels meet the requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.is_met_by(labels.get(&self.key).map(String::as_str))
    }

    /// Whether the value of the label, or its absence, meets the requirement.
    fn is_met_by(&self, value: Option<&str>) -> bool {
        let compare = |wanted: fn(i64, i64) -> bool| {
            let bound = self.values.first().and_then(|bound| bound.parse().ok());
            let actual = value.and_then(|value| value.parse().ok());
            matches!((actual, bound), (Some(actual), Some(bound)) if wanted(actual, bound))
        };
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(|actual, bound| actual > bound),
            Operator::LessThan => compare(|actual, bound| actual < bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        match (self.operator, values.as_slice()) {
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::In, [value]) => write!(f, "{key}={value}"),
            (Operator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (Operator::In, values) => write!(f, "{key} in ({})", values.join(",")),
            (Operator::NotIn, values) => write!(f, "{key} notin ({})", values.join(",")),
            (Operator::GreaterThan, values) => write!(f, "{key}>{}", values.concat()),
            (Operator::LessThan, values) => write!(f, "{key}<{}", values.concat()),
        }
    }
}

/// A label selector: requirements that must all be met. Its display parses to an equal one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Of these requirements, in the order of their keys.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            requirements,
            nothing: false,
        }
    }

    /// Parses the form of query parameters and of `kubectl -l`: `a=b,c in (x,y),!d`. An empty
    /// string matches everything.
    pub fn parse(text: &str) -> Result<Self, Error> {
        super::parse::selector(text).map(Self::new)
    }

    /// Of labels that must all be there with these values: the selector of a Service, or a
    /// `nodeSelector`.
    pub fn from_set(labels: &BTreeMap<String, String>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: BTreeSet::from([value.clone()]),
        };
        Self::new(labels.iter().map(equals).collect())
    }

    /// Of a selector in an object. An empty one matches everything.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Self, Error> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(
                key.clone(),
                Operator::In,
                [value.clone()],
            )?);
        }
        for LabelSelectorRequirement {
            key,
            operator,
            values,
        } in selector.match_expressions.iter().flatten()
        {
            let operator = match operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(Error(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            requirements.push(Requirement::new(
                key.clone(),
                operator,
                values.clone().unwrap_or_default(),
            )?);
        }
        Ok(Self::new(requirements))
    }

    /// Of an optional selector in an object, where none means that nothing is selected.
    pub fn from_optional(selector: Option<&LabelSelector>) -> Result<Self, Error> {
        selector.map_or_else(|| Ok(Self::nothing()), Self::from_label_selector)
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it matches every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object is selected whose labels are kept in a form of their own.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let met = |requirement: &Requirement| requirement.is_met_by(label(&requirement.key));
        !self.nothing && self.requirements.iter().all(met)
    }

    /// Whether an object is selected that may have no labels at all.
    pub fn matches_optional(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches(labels.unwrap_or(&BTreeMap::new()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

/// A selector of an object as the columns of `kubectl get -o wide` show it.
pub fn format_label_selector(selector: Option<&LabelSelector>) -> String {
    if Selector::from_optional(selector).is_err() {
        return "<error>".to_owned();
    }
    let mut parts: Vec<(&str, String)> = Vec::new();
    if let Some(selector) = selector {
        let labels = selector.match_labels.iter().flatten();
        parts.extend(labels.map(|(key, value)| (key.as_str(), format!("{key}={value}"))));
        let expressions = selector.match_expressions.iter().flatten();
        parts.extend(expressions.map(|expression| (expression.key.as_str(), shown(expression))));
    }
    if parts.is_empty() {
        return "<none>".to_owned();
    }
    parts.sort_by_key(|(key, _)| *key);
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    parts.join(",")
}

/// An expression as it was given: one of a single value is not written as equality.
fn shown(expression: &LabelSelectorRequirement) -> String {
    let key = &expression.key;
    let values: BTreeSet<&str> = expression
        .values
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let values = Vec::from_iter(values).join(",");
    match expression.operator.as_str() {
        "Exists" => key.clone(),
        "DoesNotExist" => format!("!{key}"),
        "NotIn" => format!("{key} notin ({values})"),
        _ => format!("{key} in ({values})"),
    }
}

#[cfg(test)]
#[path = "label_tests.rs"]
mod tests;
