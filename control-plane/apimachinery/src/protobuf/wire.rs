//! The wire format of protobuf: fields with numbers, of four shapes.

use super::Error;

/// The value of a field, as far as the wire tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// Reads the fields of a message, and after an error nothing more.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next of numbers that are packed, as lists of scalars may be.
    pub(super) fn packed(&mut self) -> Option<Result<u64, Error>> {
        (!self.rest.is_empty()).then(|| self.varint())
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Error::Malformed)?;
            self.rest = rest;
            // The tenth byte has one bit left; what lies above it is cut off.
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), Error> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Error::Malformed)?;
        if number == 0 {
            return Err(Error::Malformed);
        }
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| Error::Malformed)?;
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::Malformed)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            // Groups: no message of the API ever had one.
            _ => return Err(Error::Malformed),
        };
        Ok((number, wire))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Appends a number of variable length.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How long such a number is.
pub(super) fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends the head of a field that is a number.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a field of eight bytes.
pub(super) fn put_fixed64(out: &mut Vec<u8>, number: u32, bits: u64) {
    put_varint(out, (u64::from(number) << 3) | 1);
    out.extend_from_slice(&bits.to_le_bytes());
}

/// Appends the tag of a field that has a length.
pub(super) fn put_tag(out: &mut Vec<u8>, number: u32) {
    put_varint(out, (u64::from(number) << 3) | 2);
}

/// Appends a field that has a length.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Puts before what begins at `start` its length.
pub(super) fn insert_length(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    let width = varint_len(length as u64);
    out.resize(out.len() + width, 0);
    out.copy_within(start..start + length, start + width);
    let mut value = length as u64;
    for byte in &mut out[start..start + width] {
        *byte = (value & 0x7f) as u8 | 0x80;
        value >>= 7;
    }
    out[start + width - 1] &= 0x7f;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_put_before_what_they_count() {
        for length in [0, 1, 127, 128, 300, 20_000, 3_000_000] {
            let mut out = vec![9; 3];
            out.resize(3 + length, 7);
            insert_length(&mut out, 3);
            let mut expected = vec![9; 3];
            put_varint(&mut expected, length as u64);
            assert_eq!(expected.len(), 3 + varint_len(length as u64));
            expected.resize(expected.len() + length, 7);
            assert!(out == expected, "{length}");
        }
    }
}
