//! From JSON to protobuf: the bytes that Go makes of the object that it reads from the same
//! JSON. They are written while the JSON is parsed.
//!
//! Go writes every field that is not a pointer, a list or a map, absent or not, and all in the
//! order of their numbers. So what a member becomes is appended as it comes, and when its
//! object ends all of them are put in order, with the zeros between.
//!
//! This module writes messages, `item` the values in them.

mod item;

use std::fmt;
use std::ops::Range;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use item::Item;

use super::schema::{Field, Id, Message, Shape, Step, TABLE, Type};
use super::wire::{insert_length, put_bytes, put_fixed64, put_number, put_tag};

/// Objects are encoded into this, one behind the other.
#[derive(Default)]
pub(super) struct Encoder {
    pub out: Vec<u8>,
    /// Where in `out` the members of the open objects lie.
    members: Vec<(u16, Range<usize>)>,
    /// Where an object is put in order.
    ordered: Vec<u8>,
}

impl Encoder {
    /// Appends the bytes of an object, without an envelope.
    pub(super) fn object(&mut self, id: Id, json: &[u8]) -> serde_json::Result<()> {
        self.members.clear();
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        Object { encoder: self, id }.deserialize(&mut deserializer)?;
        deserializer.end()
    }

    fn message<'de, A: MapAccess<'de>>(&mut self, id: Id, mut map: A) -> Result<(), A::Error> {
        let message = TABLE.message(id);
        let (start, base) = (self.out.len(), self.members.len());
        while let Some(step) = map.next_key_seed(Name(message))? {
            let Some((step, field)) = step else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let at = self.out.len();
            let written = map.next_value_seed(Member {
                encoder: self,
                field,
            })?;
            if written {
                self.members.push((step, at..self.out.len()));
            }
        }
        self.put_in_order(message, start, base);
        Ok(())
    }

    fn put_in_order(&mut self, message: &Message, start: usize, base: usize) {
        let mut ordered = std::mem::take(&mut self.ordered);
        ordered.clear();
        let members = &mut self.members[base..];
        // Stable: of a name that comes twice the last stays behind.
        members.sort_by_key(|(step, _)| *step);
        let mut members = members.iter().peekable();
        let mut open = Vec::new();
        for (step, index) in message.steps.iter().zip(0..) {
            match step {
                Step::Field(field) => {
                    let mut found = None;
                    while let Some((_, range)) = members.next_if(|(step, _)| *step == index) {
                        found = Some(range);
                    }
                    match found {
                        Some(range) => ordered.extend_from_slice(&self.out[range.clone()]),
                        None => put_zero(field, &mut ordered),
                    }
                }
                Step::Open(number) => {
                    put_tag(&mut ordered, *number);
                    open.push(ordered.len());
                }
                Step::Close => {
                    if let Some(start) = open.pop() {
                        insert_length(&mut ordered, start);
                    }
                }
            }
        }
        self.members.truncate(base);
        self.out.truncate(start);
        self.out.extend_from_slice(&ordered);
        self.ordered = ordered;
    }

    fn map<'de, A: MapAccess<'de>>(&mut self, field: &Field, mut map: A) -> Result<(), A::Error> {
        let begin = self.out.len();
        let mut entries: Vec<(String, Range<usize>)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let at = self.out.len();
            put_tag(&mut self.out, field.number);
            let start = self.out.len();
            put_bytes(&mut self.out, 1, key.as_bytes());
            let value = Item {
                encoder: self,
                kind: field.kind,
                number: 2,
            };
            if !map.next_value_seed(value)? {
                put_zero_value(field.kind, 2, &mut self.out);
            }
            insert_length(&mut self.out, start);
            entries.push((key, at..self.out.len()));
        }
        if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let mut ordered = Vec::new();
            for (at, (key, range)) in entries.iter().enumerate() {
                // Of a key that comes twice the last counts.
                if entries.get(at + 1).is_none_or(|(next, _)| next != key) {
                    ordered.extend_from_slice(&self.out[range.clone()]);
                }
            }
            self.out.truncate(begin);
            self.out.extend_from_slice(&ordered);
        }
        Ok(())
    }
}

/// Appends what Go writes of a field that is absent.
fn put_zero(field: &Field, out: &mut Vec<u8>) {
    if field.shape == Shape::One && !matches!(field.kind, Type::Bytes | Type::Items) {
        put_zero_value(field.kind, field.number, out);
    }
}

/// Appends Go's zero.
fn put_zero_value(kind: Type, number: u32, out: &mut Vec<u8>) {
    match kind {
        Type::Bool | Type::Int => put_number(out, number, 0),
        Type::Double => put_fixed64(out, number, 0),
        Type::String | Type::Time | Type::MicroTime | Type::Json => put_bytes(out, number, b""),
        Type::Quantity => put_bytes(out, number, b"\x0a\x010"),
        Type::Duration => put_bytes(out, number, b"\x08\0"),
        Type::IntOrString => put_bytes(out, number, b"\x08\0\x10\0\x1a\0"),
        // Nil slices.
        Type::Bytes | Type::Items => {}
        Type::Message(id) => {
            put_tag(out, number);
            let start = out.len();
            put_zero_message(TABLE.message(id), out);
            insert_length(out, start);
        }
    }
}

fn put_zero_message(message: &Message, out: &mut Vec<u8>) {
    for field in &message.fields {
        put_zero(field, out);
    }
}

/// The name of a member, as a step and its field; `None` for what is not known.
struct Name<'a>(&'a Message);

impl<'a, 'de> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<(u16, &'a Field)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<(u16, &'a Field)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self
            .0
            .step(name)
            .and_then(|step| match &self.0.steps[usize::from(step)] {
                Step::Field(field) => Some((step, field)),
                _ => None,
            }))
    }
}

/// The object of a kind, without a tag.
struct Object<'e> {
    encoder: &'e mut Encoder,
    id: Id,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of the Kubernetes API")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.encoder.message(self.id, map)
    }
}

/// The value of a member, with its tags; whether anything was there.
struct Member<'e, 'f> {
    encoder: &'e mut Encoder,
    field: &'f Field,
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        match self.field.shape {
            Shape::One | Shape::Optional => Item {
                encoder: self.encoder,
                kind: self.field.kind,
                number: self.field.number,
            }
            .deserialize(deserializer),
            Shape::List | Shape::Map => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Member<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.field.shape == Shape::Map {
            "object"
        } else {
            "array"
        };
        write!(f, "an {what} or null for {}", self.field.name)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<bool, A::Error> {
        if self.field.shape != Shape::List {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        list(self.encoder, self.field, items)?;
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        if self.field.shape != Shape::Map {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self));
        }
        self.encoder.map(self.field, map)?;
        Ok(true)
    }
}

fn list<'de, A: SeqAccess<'de>>(
    encoder: &mut Encoder,
    field: &Field,
    mut items: A,
) -> Result<(), A::Error> {
    while let Some(written) = items.next_element_seed(Item {
        encoder,
        kind: field.kind,
        number: field.number,
    })? {
        if !written {
            put_zero_value(field.kind, field.number, &mut encoder.out);
        }
    }
    Ok(())
}
