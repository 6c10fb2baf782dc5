//! Selectors of labels and fields: what they print means what they mean.

use std::collections::BTreeMap;

use coracle_apimachinery::selector::{FieldSelector, Operator, Selector};

use crate::draw::{Draw, text_of};
use crate::fuzz;

const LABELS: &[&str] = &[
    "a",
    "b",
    "x.y/z",
    "in",
    "notin",
    "exists",
    "1",
    "5",
    "-1",
    " ",
    " in ",
    " notin ",
    "(",
    ")",
    "(a,b)",
    "()",
    ",",
    ",",
    "=",
    "==",
    "!=",
    "!",
    ">",
    "<",
    "\t",
    "\n",
    "A_b.C",
    "-",
    "/",
    "9223372036854775808",
];

const FIELDS: &[&str] = &[
    "metadata.name",
    "status.phase",
    "a",
    "b",
    "=",
    "==",
    "!=",
    "!",
    ",",
    ",",
    "\\",
    "\\,",
    "\\=",
    "\\\\",
    " ",
    "ü",
    "(",
    "in",
];

/// Whether one requirement holds, as the documentation says it.
fn holds(
    requirement: &coracle_apimachinery::selector::Requirement,
    labels: &BTreeMap<String, String>,
) -> bool {
    let value = labels.get(requirement.key());
    let values = requirement.values();
    let number = |text: &String| text.parse::<i64>().ok();
    let bound = values.iter().next().and_then(number);
    match requirement.operator() {
        Operator::In => value.is_some_and(|value| values.contains(value)),
        Operator::NotIn => !value.is_some_and(|value| values.contains(value)),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::GreaterThan => value
            .and_then(number)
            .zip(bound)
            .is_some_and(|(value, bound)| value > bound),
        Operator::LessThan => value
            .and_then(number)
            .zip(bound)
            .is_some_and(|(value, bound)| value < bound),
    }
}

fn labels(bytes: &[u8]) {
    let text = text_of(bytes, LABELS);
    let Ok(selector) = Selector::parse(&text) else {
        return;
    };
    let printed = selector.to_string();
    let again = Selector::parse(&printed)
        .unwrap_or_else(|error| panic!("{text} printed {printed}: {error}"));
    assert_eq!(again, selector, "{text} printed {printed}");
    assert_eq!(again.to_string(), printed);
    let mut draw = Draw::new(bytes);
    for _ in 0..8 {
        let labels: BTreeMap<String, String> = (0..draw.below(4))
            .map(|_| {
                (
                    *draw.pick(&["a", "b", "in", "x.y/z"]),
                    *draw.pick(&["", "a", "b", "1", "5", "-1"]),
                )
            })
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let all = selector
            .requirements()
            .iter()
            .all(|one| holds(one, &labels));
        assert_eq!(selector.matches(&labels), all, "{text}: {labels:?}");
    }
}

fn fields(bytes: &[u8]) {
    let text = text_of(bytes, FIELDS);
    let Ok(selector) = FieldSelector::parse(&text) else {
        return;
    };
    let printed = selector.to_string();
    let again = FieldSelector::parse(&printed)
        .unwrap_or_else(|error| panic!("{text} printed {printed}: {error}"));
    // The order is that of the terms' text, and `==` is printed as `=`.
    let in_order = |selector: &FieldSelector| {
        let mut requirements = selector.requirements().to_vec();
        requirements.sort_by_cached_key(|one| format!("{one:?}"));
        requirements
    };
    assert_eq!(
        in_order(&again),
        in_order(&selector),
        "{text} printed {printed}"
    );
    let mut draw = Draw::new(bytes);
    for _ in 0..4 {
        let values = [0, 1, 2, 3].map(|_| *draw.pick(&["", "a", "b", "metadata.name", ",", "="]));
        let names = ["metadata.name", "status.phase", "a", "b"];
        let get = |field: &str| {
            names
                .iter()
                .position(|name| *name == field)
                .map(|at| values[at])
        };
        let holds = selector
            .requirements()
            .iter()
            .all(|one| (get(&one.field).unwrap_or_default() == one.value) != one.negated);
        assert_eq!(selector.matches(get), holds, "{text}: {values:?}");
    }
    for one in selector.requirements().iter().filter(|one| !one.negated) {
        assert!(selector.exact(&one.field).is_some(), "{text}");
    }
}

#[test]
fn label_selectors() {
    fuzz!(labels);
}

#[test]
fn field_selectors() {
    fuzz!(fields);
}
