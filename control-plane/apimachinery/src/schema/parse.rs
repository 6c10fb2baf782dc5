//! Reads the table. It is part of the program: a fault in it is found by the tests, and what
//! cannot be read is left out.

use std::collections::HashMap;

use super::{Field, Key, ListType, Patch, SCALAR, Schema, Type, TypeId, UNTYPED};

/// How names of types begin that are no `io.k8s.api`.
const PREFIXES: [(&str, &str); 3] = [
    ("meta.", "io.k8s.apimachinery.pkg.apis."),
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis."),
];

fn full(name: &str) -> Box<str> {
    let prefix = PREFIXES
        .iter()
        .find(|(short, _)| name.starts_with(short))
        .map_or("io.k8s.api.", |(_, prefix)| prefix);
    format!("{prefix}{name}").into()
}

struct Parser {
    types: Vec<Type>,
    /// By the names of the table.
    names: HashMap<Box<str>, TypeId>,
}

pub(super) fn parse(table: &str) -> Schema {
    let mut parser = Parser {
        types: vec![Type::Scalar, Type::Untyped],
        names: HashMap::new(),
    };
    let lines = || table.lines().filter(|line| !line.starts_with('#'));
    let mut kinds = HashMap::new();
    for line in lines().filter(|line| !line.starts_with(' ')) {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let id = parser.types.len();
        let mut atomic = false;
        for word in words {
            if word == "atomic" {
                atomic = true;
            } else {
                kinds.insert(word.into(), id);
            }
        }
        parser.names.insert(name.into(), id);
        parser.types.push(Type::Struct {
            name: full(name),
            atomic,
            fields: Vec::new(),
        });
    }
    let (mut group, mut current) = ("", SCALAR);
    for line in lines() {
        let Some(line) = line.strip_prefix(' ') else {
            let name = line.split(' ').next().unwrap_or_default();
            group = name.rsplit_once('.').map_or("", |(group, _)| group);
            current = parser.names.get(name).copied().unwrap_or(SCALAR);
            continue;
        };
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let of = words.next().unwrap_or_default();
        let (always, of) = match of.strip_prefix('+') {
            Some(of) => (true, of),
            None => (false, of),
        };
        let field = Field {
            of: parser.of(of, group),
            always,
            patch: patch(words.next().unwrap_or_default()),
        };
        if let Type::Struct { fields, .. } = &mut parser.types[current] {
            fields.push((name.into(), field));
        }
    }
    let names = parser.names.iter();
    Schema {
        names: names.map(|(name, &id)| (full(name), id)).collect(),
        types: parser.types,
        kinds,
    }
}

impl Parser {
    fn add(&mut self, of: Type) -> TypeId {
        self.types.push(of);
        self.types.len() - 1
    }

    fn of(&mut self, text: &str, group: &str) -> TypeId {
        match text {
            "_" => return SCALAR,
            "*" => return UNTYPED,
            _ => {}
        }
        if let Some((map, values)) = text.strip_prefix('{').and_then(|t| t.split_once('}')) {
            let values = self.of(values, group);
            let atomic = map == "atomic";
            return self.add(Type::Map { values, atomic });
        }
        if let Some((list, items)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
            let items = self.of(items, group);
            let list = match list.strip_prefix("map:") {
                Some(keys) => ListType::Map(keys.split(',').map(key).collect()),
                None if list == "set" => ListType::Set,
                None => ListType::Atomic,
            };
            return self.add(Type::List { items, list });
        }
        let name = text.trim_end_matches(['!', '~']);
        let of = match name.strip_prefix('.') {
            Some(name) => self.names.get(format!("{group}.{name}").as_str()),
            None => self.names.get(name),
        };
        let of = of.copied().unwrap_or(UNTYPED);
        match text.strip_prefix(name) {
            Some("!") => self.add(Type::Here { of, atomic: true }),
            Some("~") => self.add(Type::Here { of, atomic: false }),
            _ => of,
        }
    }
}

fn key(text: &str) -> Key {
    let (name, default) = match text.split_once('=') {
        Some((name, default)) => (name, serde_json::from_str(default).ok()),
        None => (text, None),
    };
    Key {
        name: name.into(),
        default,
    }
}

fn patch(text: &str) -> Patch {
    let (strategies, key) = match text.split_once(':') {
        Some((strategies, key)) => (strategies, Some(key.into())),
        None => (text, None),
    };
    let has = |strategy| strategies.split(',').any(|s| s == strategy);
    Patch {
        merge: has("merge"),
        merge_key: key,
        retain_keys: has("retainKeys"),
        replace: has("replace"),
    }
}
