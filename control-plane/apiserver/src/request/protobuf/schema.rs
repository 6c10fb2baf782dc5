//! The table of messages.
//!
//! A line `kind APIVERSION KIND MESSAGE` names the message of a kind; a line `message NAME`
//! begins a message, whose fields follow as `NUMBER NAME TYPE`. The name is that in JSON, or
//! `.` where JSON shows the fields of the message as its parent's own. A type ends in `?` where
//! JSON leaves an empty value out; `[]` begins a list, `{}` a map from strings.

use std::collections::HashMap;
use std::sync::LazyLock;

const TEXT: &str = include_str!("kubernetes-1.37.txt");

/// The table. The text is part of the program and is read whole by a test: a line that does not
/// parse is left out here, and fails there.
pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(TEXT));

pub(super) type MessageId = usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bytes,
    Bool,
    Int,
    Double,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// A message that carries JSON as bytes.
    Json,
    /// A message that carries strings, and is a list in JSON.
    Items,
    Message(MessageId),
    List(Box<Type>),
    Map(Box<Type>),
}

#[derive(Debug)]
pub(super) struct Field {
    pub number: u32,
    pub name: &'static str,
    pub kind: Type,
    pub omit_empty: bool,
}

impl Field {
    pub(super) fn inlined(&self) -> bool {
        self.name == "."
    }
}

#[derive(Debug, Default)]
pub(super) struct Message {
    pub fields: Vec<Field>,
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    messages: Vec<Message>,
    ids: HashMap<&'static str, MessageId>,
    kinds: HashMap<(&'static str, &'static str), MessageId>,
    /// Lines that did not parse.
    pub faults: Vec<&'static str>,
}

impl Table {
    /// The message of a kind. Options are of any group-version.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let exact = self
            .kinds
            .iter()
            .find(|((v, k), _)| *v == api_version && *k == kind);
        let any = || {
            self.kinds
                .iter()
                .find(|((v, k), _)| *v == "*" && *k == kind)
        };
        exact.or_else(any).map(|(_, &id)| self.message(id))
    }

    pub(super) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id]
    }

    fn parse(text: &'static str) -> Self {
        let mut table = Self::default();
        let mut current = None;
        for line in text.lines() {
            let words: Vec<&'static str> = line.split(' ').collect();
            match words.as_slice() {
                ["kind", api_version, kind, message] => {
                    let id = table.id(message);
                    table.kinds.insert((api_version, kind), id);
                }
                ["message", name] => current = Some(table.id(name)),
                [number, name, kind] => {
                    let (kind, omit_empty) = match kind.strip_suffix('?') {
                        Some(kind) => (kind, true),
                        None => (*kind, false),
                    };
                    let kind = table.kind_of(kind);
                    match (current, number.parse()) {
                        (Some(id), Ok(number)) => {
                            table.messages[id].fields.push(Field {
                                number,
                                name,
                                kind,
                                omit_empty,
                            });
                        }
                        _ => table.faults.push(line),
                    }
                }
                _ => table.faults.push(line),
            }
        }
        table
    }

    fn id(&mut self, name: &'static str) -> MessageId {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.messages.len();
        self.messages.push(Message::default());
        self.ids.insert(name, id);
        id
    }

    fn kind_of(&mut self, kind: &'static str) -> Type {
        if let Some(item) = kind.strip_prefix("[]") {
            return Type::List(Box::new(self.kind_of(item)));
        }
        if let Some(item) = kind.strip_prefix("{}") {
            return Type::Map(Box::new(self.kind_of(item)));
        }
        match kind {
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
            message => Type::Message(self.id(message)),
        }
    }
}
