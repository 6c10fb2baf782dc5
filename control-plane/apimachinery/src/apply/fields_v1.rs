//! FieldsV1, the encoding of sets of fields: as a value, and as text.
//!
//! An object has a set for each of its managers, which every apply reads and writes. As text that
//! takes no more than the set itself; a value has a map for each of its levels besides.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::path::PathElement;
use super::set::{Node, Set};

impl Set {
    /// The set as FieldsV1.
    #[must_use]
    pub fn to_fields(&self) -> Value {
        let fields = self.nodes.iter().map(|(element, node)| {
            let mut below = node.children.to_fields();
            if let Value::Object(below) = &mut below
                && node.member
                && !below.is_empty()
            {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            (element.serialize(), below)
        });
        Value::Object(fields.collect())
    }

    /// The set as the text of FieldsV1, in the order of [`Set::to_fields`]: what that prints.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(256);
        self.print(false, &mut text);
        text
    }

    fn print(&self, with_self: bool, text: &mut String) {
        text.push('{');
        if with_self {
            text.push_str("\".\":{}");
        }
        let mut elements = self.nodes.iter().map(|(element, _)| element);
        if elements.all(|element| matches!(element, PathElement::Field(_))) {
            // The order of names is that of the steps to them.
            for (element, node) in &self.nodes {
                separate(text);
                print_step(element, text);
                node.print(text);
            }
        } else {
            let nodes = self.nodes.iter();
            let mut steps: Vec<(String, &Node)> = nodes
                .map(|(element, node)| (element.serialize(), node))
                .collect();
            steps.sort_by(|a, b| a.0.cmp(&b.0));
            for (step, node) in steps {
                separate(text);
                text.push_str(&quoted(&step));
                node.print(text);
            }
        }
        text.push('}');
    }

    /// The set as the text of FieldsV1, in canonical order.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        self.write(false, &mut text);
        text
    }

    fn write(&self, with_self: bool, text: &mut String) {
        text.push('{');
        let mut first = true;
        let mut key = |key: &str, text: &mut String| {
            if !std::mem::take(&mut first) {
                text.push(',');
            }
            text.push_str(&quoted(key));
            text.push(':');
        };
        if with_self {
            key(".", text);
            text.push_str("{}");
        }
        for (element, node) in &self.nodes {
            key(&element.serialize(), text);
            let with_self = node.member && !node.children.is_empty();
            node.children.write(with_self, text);
        }
        text.push('}');
    }

    /// Reads the text of FieldsV1.
    ///
    /// # Errors
    /// What is malformed.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let mut from = serde_json::Deserializer::from_str(text);
        let read = Level.deserialize(&mut from);
        let read = read.and_then(|(set, _)| from.end().map(|()| set));
        read.map_err(|error| format!("{text} is no set of fields: {error}"))
    }

    /// Reads FieldsV1.
    ///
    /// # Errors
    /// What is malformed.
    pub fn from_fields(fields: &Value) -> Result<Self, String> {
        Self::parse(fields).map(|(set, _)| set)
    }

    /// The set, and whether the field above it is in the set too.
    fn parse(fields: &Value) -> Result<(Self, bool), String> {
        let Value::Object(fields) = fields else {
            return Err(format!("{fields} is no set of fields"));
        };
        let (mut set, mut member) = (Self::default(), false);
        for (key, below) in fields {
            if key == "." {
                member = true;
                continue;
            }
            let Some(element) = PathElement::parse(key)? else {
                continue;
            };
            let (children, member) = Self::parse(below)?;
            set.push(|| element, Node { member, children });
        }
        let member = member || set.is_empty();
        Ok((set, member))
    }
}

impl Node {
    fn print(&self, text: &mut String) {
        text.push(':');
        let with_self = self.member && !self.children.is_empty();
        self.children.print(with_self, text);
    }
}

/// A comma, unless what comes next is the first member of its object.
fn separate(text: &mut String) {
    if !text.ends_with('{') {
        text.push(',');
    }
}

/// A string as JSON has it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn print_step(element: &PathElement, text: &mut String) {
    let is_plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\');
    match element {
        PathElement::Field(name) if name.bytes().all(is_plain) => {
            text.push_str("\"f:");
            text.push_str(name);
            text.push('"');
        }
        other => text.push_str(&quoted(&other.serialize())),
    }
}

/// Reads the fields below one, and whether that is in the set too.
struct Level;

impl<'de> DeserializeSeed<'de> for Level {
    type Value = (Set, bool);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = (Set, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut steps: A) -> Result<Self::Value, A::Error> {
        let (mut set, mut member) = (Set::default(), false);
        while let Some(step) = steps.next_key_seed(Key)? {
            match step {
                Step::To(element) => {
                    let (children, member) = steps.next_value_seed(Level)?;
                    set.push(|| element, Node { member, children });
                }
                Step::Nowhere => {
                    member = true;
                    steps.next_value::<IgnoredAny>()?;
                }
                Step::Unknown => {
                    steps.next_value::<IgnoredAny>()?;
                }
            }
        }
        let member = member || set.is_empty();
        Ok((set, member))
    }
}

/// What a key of FieldsV1 says.
enum Step {
    /// The field above is in the set itself.
    Nowhere,
    /// Something that only later versions know.
    Unknown,
    /// What comes below is below this.
    To(PathElement),
}

/// Reads a key.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Step;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Step, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path element")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Step, E> {
        if text == "." {
            return Ok(Step::Nowhere);
        }
        let element = PathElement::parse(text).map_err(E::custom)?;
        Ok(element.map_or(Step::Unknown, Step::To))
    }
}
