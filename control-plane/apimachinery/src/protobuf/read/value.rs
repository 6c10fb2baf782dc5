//! What fields hold.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::{Decoder, text};
use crate::duration;
use crate::protobuf::schema::{Id, Shape, TABLE, Type};
use crate::protobuf::values::{Precision, write_time};
use crate::protobuf::wire::{Reader, Wire};
use crate::protobuf::{Error, MAGIC, envelope};

impl<'a> Decoder<'a> {
    /// The zero of Go.
    pub(super) fn zero(&mut self, kind: Type, depth: usize) -> Result<(), Error> {
        let text: &[u8] = match kind {
            Type::String => b"\"\"",
            Type::Quantity => b"\"0\"",
            Type::Duration => b"\"0s\"",
            Type::Bool => b"false",
            Type::Int | Type::Double | Type::IntOrString => b"0",
            Type::Bytes | Type::Items | Type::Json | Type::Time | Type::MicroTime => b"null",
            Type::Message(id) => return self.message(id, &[], depth + 1),
        };
        self.out.extend_from_slice(text);
        Ok(())
    }

    /// Writes a value; returns whether `omitempty` leaves it out.
    pub(super) fn value(
        &mut self,
        kind: Type,
        wire: Wire<'a>,
        depth: usize,
    ) -> Result<bool, Error> {
        match (kind, wire) {
            (Type::String, Wire::Bytes(bytes)) => {
                self.string(text(bytes)?);
                Ok(bytes.is_empty())
            }
            (Type::Bytes, Wire::Bytes(bytes)) => {
                self.out.push(b'"');
                let before = self.out.len();
                let length = base64::encoded_len(bytes.len(), true).ok_or(Error::Malformed)?;
                self.out.resize(before + length, 0);
                STANDARD
                    .encode_slice(bytes, &mut self.out[before..])
                    .map_err(|_| Error::Malformed)?;
                self.out.push(b'"');
                Ok(bytes.is_empty())
            }
            (Type::Bool, Wire::Varint(number)) => {
                let text: &[u8] = if number == 0 { b"false" } else { b"true" };
                self.out.extend_from_slice(text);
                Ok(number == 0)
            }
            (Type::Int, Wire::Varint(number)) => {
                // Negative numbers are sign-extended to 64 bits.
                let _ = write!(self.out, "{}", number.cast_signed());
                Ok(number == 0)
            }
            (Type::Double, Wire::Fixed64(bits)) => self.double(f64::from_bits(bits)),
            (Type::Message(id), Wire::Bytes(bytes)) => {
                self.message(id, bytes, depth + 1).map(|()| false)
            }
            (Type::Time, Wire::Bytes(bytes)) => {
                write_time(bytes, Precision::Seconds, &mut self.out)
            }
            (Type::MicroTime, Wire::Bytes(bytes)) => {
                write_time(bytes, Precision::Micros, &mut self.out).map(|_| false)
            }
            (Type::Quantity, Wire::Bytes(bytes)) => {
                self.string(first_string(bytes)?.unwrap_or("0"));
                Ok(false)
            }
            (Type::Duration, Wire::Bytes(bytes)) => {
                let mut nanos = 0;
                for field in Reader::new(bytes) {
                    if let (1, Wire::Varint(number)) = field? {
                        nanos = number.cast_signed();
                    }
                }
                self.string(&duration::format(nanos));
                Ok(false)
            }
            (Type::IntOrString, Wire::Bytes(bytes)) => self.int_or_string(bytes).map(|()| false),
            (Type::Json, Wire::Bytes(bytes)) => self.json(bytes, depth).map(|()| false),
            (Type::Items, Wire::Bytes(bytes)) => self.items(bytes),
            _ => Err(Error::Malformed),
        }
    }

    fn double(&mut self, value: f64) -> Result<bool, Error> {
        if !value.is_finite() {
            return Err(Error::Malformed);
        }
        // As in Go a whole number has no fraction.
        if value.fract() == 0.0 && value.abs() < 1e15 {
            let _ = write!(self.out, "{value:.0}");
        } else {
            let _ = serde_json::to_writer(&mut self.out, &value);
        }
        Ok(value == 0.0)
    }

    fn int_or_string(&mut self, bytes: &'a [u8]) -> Result<(), Error> {
        let (mut kind, mut number, mut string) = (0, 0_i64, "");
        for field in Reader::new(bytes) {
            match field? {
                (1, Wire::Varint(value)) => kind = value,
                (2, Wire::Varint(value)) => number = value.cast_signed(),
                (3, Wire::Bytes(bytes)) => string = text(bytes)?,
                _ => {}
            }
        }
        match kind {
            0 => {
                let _ = write!(self.out, "{number}");
            }
            1 => self.string(string),
            _ => return Err(Error::Malformed),
        }
        Ok(())
    }

    fn items(&mut self, bytes: &'a [u8]) -> Result<bool, Error> {
        self.out.push(b'[');
        let mut first = true;
        for field in Reader::new(bytes) {
            if let (1, Wire::Bytes(item)) = field? {
                self.comma(&mut first);
                self.string(text(item)?);
            }
        }
        self.out.push(b']');
        Ok(first)
    }

    /// What an object carries of others: JSON, or an object that is enveloped in its turn.
    fn json(&mut self, bytes: &'a [u8], depth: usize) -> Result<(), Error> {
        let mut raw: Option<&'a [u8]> = None;
        for field in Reader::new(bytes) {
            if let (1, Wire::Bytes(bytes)) = field? {
                raw = Some(bytes);
            }
        }
        match raw {
            None | Some([]) => self.out.extend_from_slice(b"null"),
            Some(nested) if nested.starts_with(MAGIC) => {
                let envelope = envelope::open(nested)?;
                let id = envelope.message()?;
                self.object(
                    envelope.api_version,
                    envelope.kind,
                    id,
                    envelope.raw,
                    depth + 1,
                )?;
            }
            Some(json) => {
                let json = if json.starts_with(crate::cbor::MAGIC) {
                    Cow::Owned(
                        crate::cbor::to_json(json, self.limit).map_err(|_| Error::Malformed)?,
                    )
                } else {
                    Cow::Borrowed(json)
                };
                let json: &RawValue =
                    serde_json::from_slice(&json).map_err(|_| Error::Malformed)?;
                self.out.extend_from_slice(json.get().as_bytes());
            }
        }
        Ok(())
    }

    /// A message that is in JSON what one of its fields is: the list if there are items, else
    /// the object, else the flag, else nothing.
    pub(super) fn union(&mut self, id: Id, bytes: &'a [u8], depth: usize) -> Result<(), Error> {
        let message = TABLE.message(id);
        let base = self.gather(message, bytes)?;
        let mut best: Option<(u8, Type, usize, usize)> = None;
        let mut at = base;
        for (index, field) in message.fields.iter().enumerate() {
            let begin = at;
            while self.entries.get(at).is_some_and(|(i, _)| *i == index) {
                at += 1;
            }
            let rank = match field.shape {
                Shape::List => 2,
                Shape::Optional => 1,
                _ => 0,
            };
            if begin < at && best.is_none_or(|(known, ..)| rank > known) {
                best = Some((rank, field.kind, begin, at));
            }
        }
        match best {
            Some((2, kind, begin, end)) => self.list(kind, begin..end, depth)?,
            Some((_, kind, begin, end)) => {
                self.single(kind, begin..end, depth)?;
            }
            None => match message.fields.first() {
                Some(field) if field.shape == Shape::One => self.zero(field.kind, depth)?,
                _ => self.out.extend_from_slice(b"null"),
            },
        }
        self.entries.truncate(base);
        Ok(())
    }
}

/// The string that is the first field of a message.
fn first_string(bytes: &[u8]) -> Result<Option<&str>, Error> {
    let mut found = None;
    for field in Reader::new(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            found = Some(text(bytes)?);
        }
    }
    Ok(found)
}
