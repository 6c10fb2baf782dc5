//! One value.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Encoder, list};
use crate::duration;
use crate::protobuf::schema::{Field, Id, Shape, TABLE, Type};
use crate::protobuf::values::{Precision, parse_time};
use crate::protobuf::wire::{insert_length, put_bytes, put_fixed64, put_number, put_tag};

/// One value, with its tag; whether it is not null.
pub(super) struct Item<'e> {
    pub(super) encoder: &'e mut Encoder,
    pub(super) kind: Type,
    pub(super) number: u32,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if !matches!(self.kind, Type::Json | Type::Double) {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(deserializer)?;
        if raw.get() == "null" {
            return Ok(false);
        }
        let out = &mut self.encoder.out;
        if self.kind == Type::Double {
            // The parser of JSON is not exact in the last digit.
            let value: f64 = raw.get().parse().map_err(D::Error::custom)?;
            put_fixed64(out, self.number, value.to_bits());
            return Ok(true);
        }
        put_tag(out, self.number);
        let start = out.len();
        put_bytes(out, 1, raw.get().as_bytes());
        insert_length(out, start);
        Ok(true)
    }
}

impl Item<'_> {
    fn time<E: serde::de::Error>(self, text: &str, precision: Precision) -> Result<bool, E> {
        let out = &mut self.encoder.out;
        put_tag(out, self.number);
        let start = out.len();
        if let Some((seconds, nanos)) = parse_time(text, precision).map_err(E::custom)? {
            put_number(out, 1, seconds.cast_unsigned());
            put_number(out, 2, i64::from(nanos).cast_unsigned());
        }
        insert_length(out, start);
        Ok(true)
    }

    fn int_or_string(self, number: i64, text: &str, is_text: bool) -> bool {
        let out = &mut self.encoder.out;
        put_tag(out, self.number);
        let start = out.len();
        put_number(out, 1, u64::from(is_text));
        put_number(out, 2, number.cast_unsigned());
        put_bytes(out, 3, text.as_bytes());
        insert_length(out, start);
        true
    }

    fn quantity(self, text: &str) -> bool {
        let out = &mut self.encoder.out;
        put_tag(out, self.number);
        let start = out.len();
        put_bytes(out, 1, text.as_bytes());
        insert_length(out, start);
        true
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Type::String | Type::Bytes => "a string",
            Type::Bool => "a boolean",
            Type::Int | Type::Double => "a number",
            Type::Time | Type::MicroTime => "a time",
            Type::Duration => "a duration",
            Type::Quantity => "a quantity",
            Type::IntOrString => "a number or a string",
            Type::Items => "an array of strings",
            Type::Json => "any JSON",
            Type::Message(_) => "an object",
        })
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<bool, E> {
        let out = &mut self.encoder.out;
        match self.kind {
            Type::Bool => put_number(out, self.number, u64::from(value)),
            Type::Message(id) => match union_field(id, Shape::One) {
                Some(flag) if flag.kind == Type::Bool => {
                    put_tag(out, self.number);
                    let start = out.len();
                    put_number(out, flag.number, u64::from(value));
                    insert_length(out, start);
                }
                _ => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
            },
            _ => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
        Ok(true)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<bool, E> {
        let number = self.number;
        match self.kind {
            Type::Int => put_number(&mut self.encoder.out, number, value.cast_unsigned()),
            Type::IntOrString => return Ok(self.int_or_string(value, "", false)),
            Type::Quantity => return Ok(self.quantity(&value.to_string())),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)),
        }
        Ok(true)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<bool, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<bool, E> {
        match self.kind {
            Type::Quantity => Ok(self.quantity(&value.to_string())),
            _ => Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<bool, E> {
        match self.kind {
            Type::String => put_bytes(&mut self.encoder.out, self.number, text.as_bytes()),
            Type::Bytes => {
                let out = &mut self.encoder.out;
                put_tag(out, self.number);
                let start = out.len();
                STANDARD.decode_vec(text, out).map_err(E::custom)?;
                insert_length(out, start);
            }
            Type::Time => return self.time(text, Precision::Seconds),
            Type::MicroTime => return self.time(text, Precision::Micros),
            Type::Duration => {
                let nanos = duration::parse(text).ok_or_else(|| E::custom("no duration"))?;
                put_tag(&mut self.encoder.out, self.number);
                let start = self.encoder.out.len();
                put_number(&mut self.encoder.out, 1, nanos.cast_unsigned());
                insert_length(&mut self.encoder.out, start);
            }
            Type::Quantity => return Ok(self.quantity(text)),
            Type::IntOrString => return Ok(self.int_or_string(0, text, true)),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Str(text), &self)),
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let Self {
            encoder, number, ..
        } = self;
        let field = match self.kind {
            Type::Items => None,
            Type::Message(id) => union_field(id, Shape::List),
            _ => None,
        };
        if self.kind != Type::Items && field.is_none() {
            let what = Item {
                encoder,
                kind: self.kind,
                number,
            };
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &what));
        }
        put_tag(&mut encoder.out, number);
        let start = encoder.out.len();
        match field {
            Some(field) => list(encoder, field, items)?,
            None => {
                while let Some(item) = items.next_element::<Option<String>>()? {
                    put_bytes(&mut encoder.out, 1, item.unwrap_or_default().as_bytes());
                }
            }
        }
        insert_length(&mut encoder.out, start);
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        let Type::Message(id) = self.kind else {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self));
        };
        let encoder = self.encoder;
        put_tag(&mut encoder.out, self.number);
        let start = encoder.out.len();
        if !TABLE.message(id).union {
            encoder.message(id, map)?;
        } else if let Some(field) = union_field(id, Shape::Optional)
            && let Type::Message(inner) = field.kind
        {
            if let Some(flag) = union_field(id, Shape::One) {
                put_number(&mut encoder.out, flag.number, 1);
            }
            put_tag(&mut encoder.out, field.number);
            let start = encoder.out.len();
            encoder.message(inner, map)?;
            insert_length(&mut encoder.out, start);
        }
        insert_length(&mut encoder.out, start);
        Ok(true)
    }
}

/// The field of a union that holds values of this shape.
fn union_field(id: Id, shape: Shape) -> Option<&'static Field> {
    let message = TABLE.message(id);
    let fits = |field: &&Field| field.shape == shape;
    message.fields.iter().find(fits).filter(|_| message.union)
}
