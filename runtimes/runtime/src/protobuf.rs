//! Fields of Protocol Buffers on the wire (the encoding of protobuf.dev), as far as gRPC with other
//! programs needs them. What messages mean is their users' business.

use bytes::BufMut;

/// What a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, a truth value, or a value of an enumeration.
    Number(u64),
    /// A text, bytes, a message, or numbers one after the other.
    Bytes(&'a [u8]),
    /// Numbers of a fixed length, which nothing here has.
    Fixed,
}

/// Takes the next field off a message: its number and what it has; none if that is no field.
pub fn field<'a>(message: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let tag = varint(message)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(message)?),
        1 => skip(message, 8)?,
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            Value::Bytes(message.split_off(..length)?)
        }
        5 => skip(message, 4)?,
        _ => return None,
    };
    Some((u32::try_from(tag >> 3).ok()?, value))
}

fn skip<'a>(message: &mut &'a [u8], length: usize) -> Option<Value<'a>> {
    message.split_off(..length)?;
    Some(Value::Fixed)
}

/// Takes a number off.
pub fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *from.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes a number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes a field of a number.
pub fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Writes a field of bytes.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, (u64::from(number) << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_and_read() {
        let mut out = Vec::new();
        put_number(&mut out, 1, 300);
        put_bytes(&mut out, 18, b"hi");
        assert_eq!(out, b"\x08\xac\x02\x92\x01\x02hi");
        let mut message = &out[..];
        assert_eq!(field(&mut message), Some((1, Value::Number(300))));
        assert_eq!(field(&mut message), Some((18, Value::Bytes(b"hi"))));
        assert!(message.is_empty());
    }

    #[test]
    fn what_is_no_field_is_none() {
        for message in [
            &b"\x08"[..],
            b"\x12\x09hi",
            b"\x0b",
            b"\x1d\0\0",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(field(&mut &message[..]), None, "{message:?}");
        }
        let mut fixed = &b"\x1d\0\0\0\0\x21\0\0\0\0\0\0\0\0"[..];
        assert_eq!(field(&mut fixed), Some((3, Value::Fixed)));
        assert_eq!(field(&mut fixed), Some((4, Value::Fixed)));
    }
}
