//! The table of messages, as it lies in `kubernetes.txt`.
//!
//! A line `kind APIVERSION KIND MESSAGE` names the message of a kind (`*` is any apiVersion). A
//! line `message NAME` begins a message, whose fields follow as `NUMBER NAME TYPE` in the order
//! of their numbers. The name is that in JSON, or `.` where JSON shows the fields of the inner
//! message as its parent's own. `union NAME` begins a message that is in JSON what one of its
//! fields is.
//!
//! A type is a scalar, a value that has a JSON form of its own (a time, a quantity), or the name
//! of a message, without its package where that is the parent's. Before it `*` says that absent
//! and zero differ, `[]` begins a list, `{}` a map from strings; behind it `?` says that JSON
//! leaves out what is empty, `~` what is zero (Go's `omitempty` and `omitzero`).

use std::collections::HashMap;
use std::sync::LazyLock;

const TEXT: &str = include_str!("kubernetes.txt");

/// The table. The text is part of the program and is read whole by a test: a line that does not
/// parse is left out here, and fails there.
pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(TEXT));

/// Index of a message.
pub(super) type Id = u16;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bytes,
    Bool,
    Int,
    Double,
    Time,
    MicroTime,
    /// A message that carries nanoseconds.
    Duration,
    Quantity,
    IntOrString,
    /// A message that carries JSON as bytes.
    Json,
    /// A message that carries strings, and is a list in JSON.
    Items,
    Message(Id),
}

/// How many of them a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Always one: absent is zero.
    One,
    /// One or none.
    Optional,
    List,
    Map,
}

/// What JSON leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Omit {
    Nothing,
    Empty,
    Zero,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub name: &'static str,
    pub number: u32,
    pub kind: Type,
    pub shape: Shape,
    pub omit: Omit,
}

impl Field {
    /// Whether JSON shows the fields of its message as the parent's own.
    pub(super) fn inlined(&self) -> bool {
        self.name == "."
    }
}

/// How a message is written, with what is inlined spread out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A field: of this message, or of one that is inlined into it.
    Field(Field),
    /// An inlined message of this number begins.
    Open(u32),
    /// It ends.
    Close,
}

#[derive(Debug, Default)]
pub(super) struct Message {
    /// In the order of their numbers.
    pub fields: Vec<Field>,
    pub union: bool,
    /// Empty for unions, which have no fields in JSON.
    pub steps: Vec<Step>,
    /// Names in JSON, sorted, with their steps.
    names: Vec<(&'static str, u16)>,
}

impl Message {
    /// The index of the field with this number. `hint` is where it is likely to be.
    pub(super) fn index(&self, number: u32, hint: usize) -> Option<usize> {
        let near = self.fields.iter().enumerate().skip(hint).take(2);
        near.into_iter()
            .find(|(_, field)| field.number == number)
            .map(|(index, _)| index)
            .or_else(|| {
                self.fields
                    .binary_search_by_key(&number, |field| field.number)
                    .ok()
            })
    }

    /// The step that writes the field of this name.
    pub(super) fn step(&self, name: &str) -> Option<u16> {
        let found = self.names.binary_search_by(|(known, _)| (*known).cmp(name));
        found.ok().map(|index| self.names[index].1)
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    messages: Vec<Message>,
    ids: HashMap<String, Id>,
    kinds: HashMap<(&'static str, &'static str), Id>,
    /// Lines that did not parse.
    pub faults: Vec<String>,
}

impl Table {
    /// The message of a kind.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<Id> {
        let known = |version| self.kinds.get(&(version, kind)).copied();
        known(api_version).or_else(|| known("*"))
    }

    pub(super) fn message(&self, id: Id) -> &Message {
        &self.messages[usize::from(id)]
    }

    #[cfg(test)]
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.kinds.keys().copied()
    }

    fn parse(text: &'static str) -> Self {
        let mut table = Self::default();
        let mut current = None;
        let mut package = "";
        for line in text.lines() {
            let words: Vec<&'static str> = line.split(' ').collect();
            match words.as_slice() {
                ["kind", api_version, kind, message] => {
                    let id = table.id((*message).to_owned());
                    table.kinds.insert((api_version, kind), id);
                }
                [sort @ ("message" | "union"), name] => {
                    let id = table.id((*name).to_owned());
                    table.messages[usize::from(id)].union = *sort == "union";
                    package = name.rfind('.').map_or("", |dot| &name[..=dot]);
                    current = Some(id);
                }
                [number, name, kind] => {
                    let field = number
                        .parse()
                        .map(|number| table.field(number, name, kind, package));
                    match (current, field) {
                        (Some(id), Ok(field)) => {
                            table.messages[usize::from(id)].fields.push(field);
                        }
                        _ => table.faults.push(line.to_owned()),
                    }
                }
                _ => table.faults.push(line.to_owned()),
            }
        }
        for id in 0..table.messages.len() {
            table.spread(id);
        }
        table
    }

    fn id(&mut self, name: String) -> Id {
        if let Some(&id) = self.ids.get(&name) {
            return id;
        }
        // There are some hundreds of messages; a table that is full is found by the test.
        let id = Id::try_from(self.messages.len()).unwrap_or(Id::MAX);
        self.messages.push(Message::default());
        self.ids.insert(name, id);
        id
    }

    fn field(
        &mut self,
        number: u32,
        name: &'static str,
        kind: &'static str,
        package: &str,
    ) -> Field {
        let (kind, omit) = match (kind.strip_suffix('?'), kind.strip_suffix('~')) {
            (Some(kind), _) => (kind, Omit::Empty),
            (_, Some(kind)) => (kind, Omit::Zero),
            _ => (kind, Omit::Nothing),
        };
        let shapes = [
            ("*", Shape::Optional),
            ("[]", Shape::List),
            ("{}", Shape::Map),
        ];
        let (kind, shape) = shapes
            .into_iter()
            .find_map(|(prefix, shape)| Some((kind.strip_prefix(prefix)?, shape)))
            .unwrap_or((kind, Shape::One));
        let kind = match kind {
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "double" => Type::Double,
            "time" => Type::Time,
            "microtime" => Type::MicroTime,
            "duration" => Type::Duration,
            "quantity" => Type::Quantity,
            "intorstring" => Type::IntOrString,
            "json" => Type::Json,
            "items" => Type::Items,
            full if full.contains('.') => Type::Message(self.id(full.to_owned())),
            short => Type::Message(self.id(format!("{package}{short}"))),
        };
        Field {
            name,
            number,
            kind,
            shape,
            omit,
        }
    }

    /// Spreads out what is inlined into a message.
    fn spread(&mut self, id: usize) {
        let mut steps = Vec::new();
        if !self.messages[id].union {
            self.add_steps(id, &mut steps);
        }
        let mut names: Vec<(&'static str, u16)> = steps
            .iter()
            .zip(0..)
            .filter_map(|(step, index)| match step {
                Step::Field(field) => Some((field.name, index)),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        let message = &mut self.messages[id];
        message.steps = steps;
        message.names = names;
    }

    fn add_steps(&self, id: usize, steps: &mut Vec<Step>) {
        for field in &self.messages[id].fields {
            match field.kind {
                Type::Message(inner) if field.inlined() => {
                    steps.push(Step::Open(field.number));
                    self.add_steps(usize::from(inner), steps);
                    steps.push(Step::Close);
                }
                _ => steps.push(Step::Field(*field)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_is_understood_and_every_message_is_there() {
        assert_eq!(TABLE.faults, Vec::<String>::new());
        assert!(TABLE.messages.len() < usize::from(Id::MAX));
        for (name, &id) in &TABLE.ids {
            let message = TABLE.message(id);
            // Messages without fields are a line of their own all the same.
            assert!(
                TEXT.contains(&format!("message {name}\n"))
                    || TEXT.contains(&format!("union {name}\n")),
                "{name} is used and not described"
            );
            let numbers: Vec<u32> = message.fields.iter().map(|field| field.number).collect();
            assert!(numbers.is_sorted(), "{name}: {numbers:?}");
            let names: BTreeSet<_> = message.names.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), message.names.len(), "{name}: a name twice");
        }
        for (version, kind) in [
            ("v1", "Pod"),
            ("policy/v1", "Eviction"),
            ("apps/v1", "DeleteOptions"),
            ("meta.k8s.io/v1", "PartialObjectMetadataList"),
            ("meta.k8s.io/v1beta1", "PartialObjectMetadataList"),
        ] {
            let id = TABLE.kind(version, kind).expect(kind);
            assert!(!TABLE.message(id).fields.is_empty(), "{kind}");
        }
    }
}
