//! Field selectors: `status.phase!=Failed,spec.nodeName=a`.

use std::fmt;

use super::Error;

/// One condition on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field, such as `metadata.name`.
    pub field: String,
    /// The value that is compared with.
    pub value: String,
    /// Whether the field must differ from it (`!=`) instead of being equal.
    pub negated: bool,
}

/// A field selector: requirements that must all be met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects the object of this name.
    pub fn name(name: impl Into<String>) -> Self {
        let requirement = FieldRequirement {
            field: "metadata.name".into(),
            value: name.into(),
            negated: false,
        };
        Self {
            requirements: vec![requirement],
        }
    }

    /// Parses the form of query parameters: `=`, `==` and `!=`, joined by commas; a backslash
    /// before a comma, an equals sign or a backslash takes its meaning away. An empty string
    /// matches everything. What is required stands in the order of the terms' text, as in
    /// Kubernetes, so that the same selector is printed alike however it was put.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut requirements = Vec::new();
        let mut terms: Vec<&str> = terms(text).filter(|term| !term.is_empty()).collect();
        terms.sort_unstable();
        for term in terms {
            let fault = || {
                Error(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                ))
            };
            let (field, operator, value) = split(term).ok_or_else(fault)?;
            let value = unescape(value)?;
            // A sign alone asks for nothing.
            if field.is_empty() && value.is_empty() {
                continue;
            }
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                value,
                negated: operator == "!=",
            });
        }
        Ok(Self { requirements })
    }

    /// The requirements.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it matches every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that a field must have exactly, where one is asked for: `metadata.name` so
    /// becomes a get.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|r| r.field == field && !r.negated)
            .map(|r| r.value.as_str())
    }

    /// Whether an object is selected whose fields `get` gives. A field that it lacks is empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let meets =
            |r: &FieldRequirement| (get(&r.field).unwrap_or_default() == r.value) != r.negated;
        self.requirements.iter().all(meets)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if requirement.negated { "!=" } else { "=" };
            write!(
                f,
                "{comma}{}{operator}{}",
                requirement.field,
                escape(&requirement.value)
            )?;
        }
        Ok(())
    }
}

/// The terms between commas that no backslash precedes.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut escaped = false;
        for (index, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                ',' => {
                    rest = Some(&text[index + 1..]);
                    return Some(&text[..index]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}

/// Field, operator and (still escaped) value of a term.
fn split(term: &str) -> Option<(&str, &'static str, &str)> {
    (0..term.len())
        .filter(|index| term.is_char_boundary(*index))
        .find_map(|index| {
            let operator = ["!=", "==", "="]
                .into_iter()
                .find(|operator| term[index..].starts_with(operator))?;
            Some((&term[..index], operator, &term[index + operator.len()..]))
        })
}

fn escape(value: &str) -> String {
    value
        .chars()
        .fold(String::with_capacity(value.len()), |mut out, c| {
            if matches!(c, '\\' | ',' | '=') {
                out.push('\\');
            }
            out.push(c);
            out
        })
}

fn unescape(value: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                next => {
                    let sequence: String = std::iter::once('\\').chain(next).collect();
                    return Err(Error(format!(
                        "invalid field selector: invalid escape sequence: {sequence} in {value:?}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(Error(format!(
                    "invalid field selector: unescaped '{c}' in {value:?}"
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn selects() {
        let fields = BTreeMap::from([("metadata.name", "web"), ("status.phase", "Running")]);
        let table = [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name==web", true),
            ("metadata.name!=web", false),
            ("metadata.name=web,status.phase!=Failed", true),
            ("metadata.name=web,status.phase=Failed", false),
            (",metadata.name=web,", true),
            ("spec.nodeName=", true),
            ("spec.nodeName!=", false),
            ("spec.nodeName=a", false),
        ];
        for (text, want) in table {
            let selector = FieldSelector::parse(text).unwrap();
            assert_eq!(
                selector.matches(|field| fields.get(field).copied()),
                want,
                "{text}"
            );
        }
        assert_eq!(
            FieldSelector::parse("metadata.name=a,b=c")
                .unwrap()
                .exact("metadata.name"),
            Some("a")
        );
        assert_eq!(
            FieldSelector::name("a=b").to_string(),
            r"metadata.name=a\=b"
        );
    }

    #[test]
    fn errors() {
        assert_eq!(
            FieldSelector::parse("a=b,c").unwrap_err().to_string(),
            "invalid selector: 'a=b,c'; can't understand 'c'"
        );
        for text in ["a=b=c", r"a=\x", r"a=b\"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_to_the_same(terms in proptest::collection::vec(("[a-z.]{1,8}", "\\PC{0,8}", any::<bool>()), 0..4)) {
            let mut requirements: Vec<_> = terms
                .into_iter()
                .map(|(field, value, negated)| FieldRequirement { field, value, negated })
                .collect();
            requirements.sort_by_key(|one| FieldSelector { requirements: vec![one.clone()] }.to_string());
            let selector = FieldSelector { requirements };
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn nothing_panics(text in "[a-zü=!,\\\\]{0,12}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
