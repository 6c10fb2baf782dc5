//! Protobuf bodies, which typed Go clients send (client-go since 1.32, and with it
//! `kubectl create deployment` and controllers written in Go).
//!
//! A body becomes the JSON that the same client would have sent. Field numbers, JSON names and
//! types stand in a table (`kubernetes-1.37.txt`), read at the first such body. Answers are
//! JSON: every client that sends protobuf accepts that beside it.
//!
//! Source of the format: the API reference's page on protobuf encoding (magic number `k8s\0`,
//! then `runtime.Unknown`).

mod schema;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_apimachinery::status::Status;
use serde_json::{Map, Value, json};

use schema::{Field, Message, TABLE, Type};
use wire::{Reader, Wire};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Messages are nested at most so deep; no type of the API comes near, but for JSON schemas.
const MAX_DEPTH: usize = 64;

/// What is wrong with a body.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the body does not begin with the magic number of Kubernetes protobuf")]
    Magic,
    #[error("the body ends in the middle of a field, or a field is malformed")]
    Malformed,
    #[error("messages are nested too deeply")]
    TooDeep,
    #[error("no kind {kind:?} of {api_version:?} is known in protobuf; send JSON")]
    UnknownKind { api_version: String, kind: String },
    #[error("the object is compressed or encoded in a way that is not read: {0:?}")]
    Encoding(String),
}

/// Turns a protobuf body into JSON.
///
/// # Errors
/// 400 for what cannot be read.
pub fn to_json(body: &[u8]) -> Result<Vec<u8>, Status> {
    let value = decode(body).map_err(|error| {
        Status::bad_request(format!("the protobuf body cannot be decoded: {error}"))
    })?;
    serde_json::to_vec(&value).map_err(Status::bad_request)
}

/// `runtime.Unknown`: an object with its type beside it.
fn decode(body: &[u8]) -> Result<Value, Error> {
    let body = body.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    let mut encoding = String::new();
    for field in Reader::new(body) {
        match field? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(bytes)) => encoding = text(bytes)?,
            _ => {}
        }
    }
    if !encoding.is_empty() {
        return Err(Error::Encoding(encoding));
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Reader::new(type_meta) {
        match field? {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
            _ => {}
        }
    }
    let message = TABLE
        .kind(&api_version, &kind)
        .ok_or_else(|| Error::UnknownKind {
            api_version: api_version.clone(),
            kind: kind.clone(),
        })?;
    let mut object = Map::new();
    decode_message(message, raw, &mut object, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Malformed)
}

fn decode_message(
    message: &Message,
    bytes: &[u8],
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    for field in Reader::new(bytes) {
        let (number, wire) = field?;
        let Some(field) = message.field(number) else {
            continue;
        };
        if field.inlined() {
            if let (Type::Message(inner), Wire::Bytes(bytes)) = (&field.kind, wire) {
                decode_message(TABLE.message(*inner), bytes, into, depth + 1)?;
            }
            continue;
        }
        decode_field(field, wire, into, depth)?;
    }
    Ok(())
}

fn decode_field(
    field: &Field,
    wire: Wire<'_>,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    let name = || field.name.to_owned();
    match &field.kind {
        Type::List(item) => {
            let list = into.entry(name()).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(decode_value(item, wire, depth)?);
            }
        }
        Type::Map(item) => {
            let Wire::Bytes(entry) = wire else {
                return Err(Error::Malformed);
            };
            let (mut key, mut value) = (String::new(), None);
            for field in Reader::new(entry) {
                match field? {
                    (1, Wire::Bytes(bytes)) => key = text(bytes)?,
                    (2, wire) => value = Some(decode_value(item, wire, depth)?),
                    _ => {}
                }
            }
            let map = into.entry(name()).or_insert_with(|| json!({}));
            if let Value::Object(map) = map {
                map.insert(key, value.unwrap_or_else(|| empty(item)));
            }
        }
        scalar => {
            let value = decode_value(scalar, wire, depth)?;
            // What Go's JSON leaves out is left out here too: absent and empty differ.
            if !(value.is_null() || (field.omit_empty && is_empty(&value))) {
                into.insert(name(), value);
            }
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

/// The value of a map's entry that names none.
fn empty(kind: &Type) -> Value {
    match kind {
        Type::String | Type::Bytes | Type::Quantity => "".into(),
        Type::Bool => false.into(),
        Type::Int | Type::Double => 0.into(),
        Type::List(_) | Type::Items => json!([]),
        _ => json!({}),
    }
}

fn decode_value(kind: &Type, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
    Ok(match (kind, wire) {
        (Type::String, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Type::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Type::Bool, Wire::Varint(number)) => (number != 0).into(),
        // Negative numbers are sign-extended to 64 bits.
        (Type::Int, Wire::Varint(number)) => number.cast_signed().into(),
        (Type::Double, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Type::Message(message), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            decode_message(TABLE.message(*message), bytes, &mut object, depth + 1)?;
            Value::Object(object)
        }
        (Type::Time, Wire::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%SZ")?,
        (Type::MicroTime, Wire::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
        (Type::Quantity, Wire::Bytes(bytes)) => {
            one_of(bytes)?.map_or_else(|| "0".into(), Value::from)
        }
        (Type::Duration, Wire::Bytes(bytes)) => duration(bytes)?,
        (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Type::Json, Wire::Bytes(bytes)) => match one_of(bytes)? {
            Some(text) => serde_json::from_str(&text).map_err(|_| Error::Malformed)?,
            None => Value::Null,
        },
        (Type::Items, Wire::Bytes(bytes)) => {
            let mut items = Vec::new();
            for field in Reader::new(bytes) {
                if let (1, Wire::Bytes(item)) = field? {
                    items.push(Value::from(text(item)?));
                }
            }
            items.into()
        }
        // A list of lists does not occur.
        _ => return Err(Error::Malformed),
    })
}

/// The string that is the first field of a message.
fn one_of(bytes: &[u8]) -> Result<Option<String>, Error> {
    let mut found = None;
    for field in Reader::new(bytes) {
        if let (1, Wire::Bytes(bytes)) = field? {
            found = Some(text(bytes)?);
        }
    }
    Ok(found)
}

fn time(bytes: &[u8], format: &str) -> Result<Value, Error> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    for field in Reader::new(bytes) {
        match field? {
            (1, Wire::Varint(number)) => seconds = number.cast_signed(),
            (2, Wire::Varint(number)) => {
                nanos = i32::try_from(number.cast_signed()).map_err(|_| Error::Malformed)?
            }
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| Error::Malformed)?;
    jiff::fmt::strtime::format(format, time)
        .map(Value::from)
        .map_err(|_| Error::Malformed)
}

fn duration(bytes: &[u8]) -> Result<Value, Error> {
    let mut nanos = 0_i64;
    for field in Reader::new(bytes) {
        if let (1, Wire::Varint(number)) = field? {
            nanos = number.cast_signed();
        }
    }
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    Ok(if rest == 0 {
        format!("{whole}s").into()
    } else {
        format!("{nanos}ns").into()
    })
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    for field in Reader::new(bytes) {
        match field? {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => string = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text {
        string.into()
    } else {
        number.into()
    })
}

#[cfg(test)]
mod tests;
