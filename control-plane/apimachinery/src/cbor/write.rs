//! From JSON to CBOR, while the JSON is parsed.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Error, MAGIC};

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const ARRAY: u8 = 4;
pub(super) const MAP: u8 = 5;

/// Turns JSON into CBOR that describes itself.
///
/// # Errors
/// For JSON that does not parse.
pub fn from_json(json: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(json.len());
    out.extend_from_slice(MAGIC);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Item(&mut out).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(out)
}

/// Appends the head of an item.
pub(super) fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    let bytes = value.to_be_bytes();
    match value {
        0..=23 => out.push(major | bytes[7]),
        24..=0xff => out.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_head(out, BYTES, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Puts before the members of a collection, which begin behind one byte at `start`, how many
/// they are.
fn close(out: &mut Vec<u8>, start: usize, major: u8, count: u64) {
    let mut head = Vec::with_capacity(9);
    put_head(&mut head, major, count);
    let end = out.len();
    out.resize(end + head.len() - 1, 0);
    out.copy_within(start + 1..end, start + head.len());
    out[start..start + head.len()].copy_from_slice(&head);
}

struct Item<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(0xf6);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push(if value { 0xf5 } else { 0xf4 });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        if value < 0 {
            put_head(self.0, NEGATIVE, !value.cast_unsigned());
        } else {
            put_head(self.0, UNSIGNED, value.cast_unsigned());
        }
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        put_head(self.0, UNSIGNED, value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        let short = value as f32;
        if f64::from(short) == value {
            self.0.push(0xfa);
            self.0.extend_from_slice(&short.to_be_bytes());
        } else {
            self.0.push(0xfb);
            self.0.extend_from_slice(&value.to_be_bytes());
        }
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        put_string(self.0, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let start = self.0.len();
        self.0.push(0);
        let mut count = 0;
        while items.next_element_seed(Item(self.0))?.is_some() {
            count += 1;
        }
        close(self.0, start, ARRAY, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let start = self.0.len();
        self.0.push(0);
        let mut count = 0;
        // A key is written as any string is.
        while map.next_key_seed(Item(self.0))?.is_some() {
            map.next_value_seed(Item(self.0))?;
            count += 1;
        }
        close(self.0, start, MAP, count);
        Ok(())
    }
}
