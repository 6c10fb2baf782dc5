//! An encoded object with what selectors read of it, as one run of bytes.
//!
//! A cluster holds objects by the hundred thousand, and most are small: maps of strings beside
//! each of them would take more memory than the objects do. So a [`Value`] is made when the object
//! is written and read in place from then on; the same bytes are what a [`Record`](crate::Record),
//! the log and the disk hold.
//!
//! ```text
//! u32 JSON length │ u32 splice │ u32 uid │ u32 labels length │ u16 uid length │ u16 schema │
//! JSON │ uid, unless it is in the JSON │ labels │ fields
//! ```
//!
//! The uid is told by where it is, counted from the beginning of the JSON. Labels and fields are
//! pairs in the order of their keys, each string with its length before it in LEB128.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

const HEADER: usize = 20;

/// What selectors and watches read of an object, so that they never decode it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `metadata.uid`, of less than 64 KiB.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Selectable fields, by their path (`spec.nodeName`). Names are not among them: the key has
    /// those.
    pub fields: BTreeMap<String, String>,
    /// Generation of the schema that the bytes were written in.
    pub schema: u16,
    /// Offset in the bytes at which the `"resourceVersion":"…",` member is spliced in when the
    /// object is served: it is not part of what is stored.
    pub splice: u32,
}

/// An encoded object with its attributes, as it is to be written. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Arc<[u8]>);

/// A [`Value`], or what a record holds of it, to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ValueRef<'a>(&'a [u8]);

/// The bytes are no value.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("malformed value")]
pub(crate) struct Malformed;

impl Value {
    /// Joins the JSON of an object, without `metadata.resourceVersion`, and its attributes.
    #[must_use]
    pub fn new(json: &[u8], attributes: &Attributes) -> Self {
        let uid = attributes.uid.as_bytes();
        // The server makes them; none is longer.
        let uid = &uid[..uid.len().min(usize::from(u16::MAX))];
        // The metadata has it, and begins where the splice is.
        let splice = attributes.splice as usize;
        let metadata = json.get(splice..).unwrap_or_default();
        let within = memchr::memmem::find(metadata, uid)
            .map(|at| splice + at)
            .filter(|at| *at < json.len());
        let own = if within.is_some() { &[] } else { uid };
        let mut labels = Vec::new();
        put_pairs(&mut labels, &attributes.labels);
        let mut whole = Vec::with_capacity(HEADER + json.len() + own.len() + labels.len() + 64);
        put_u32(&mut whole, json.len());
        whole.extend_from_slice(&attributes.splice.to_le_bytes());
        put_u32(&mut whole, within.unwrap_or(json.len()));
        put_u32(&mut whole, labels.len());
        whole.extend_from_slice(&(uid.len() as u16).to_le_bytes());
        whole.extend_from_slice(&attributes.schema.to_le_bytes());
        whole.extend_from_slice(json);
        whole.extend_from_slice(own);
        whole.extend_from_slice(&labels);
        put_pairs(&mut whole, &attributes.fields);
        Self(whole.into())
    }

    /// To be read.
    #[must_use]
    pub fn get(&self) -> ValueRef<'_> {
        ValueRef(&self.0)
    }
}

impl<'a> ValueRef<'a> {
    /// What [`ValueRef::encoded`] gave.
    pub(crate) fn decode(encoded: &'a [u8]) -> Result<Self, Malformed> {
        let value = Self(encoded);
        let sound = encoded.len() >= HEADER
            && value.uid_range().end <= value.labels_start()
            && value.fields_start() <= encoded.len()
            && std::str::from_utf8(value.part(value.uid_range())).is_ok()
            && value.labels().is_sound()
            && value.fields().is_sound();
        sound.then_some(value).ok_or(Malformed)
    }

    /// What was found sound before.
    pub(crate) fn trusted(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    /// The value as it is written to disk and sent to peers.
    pub(crate) fn encoded(self) -> &'a [u8] {
        self.0
    }

    /// The JSON bytes, without `metadata.resourceVersion`.
    #[must_use]
    pub fn json(self) -> &'a [u8] {
        self.part(HEADER..self.json_end())
    }

    /// See [`Attributes::uid`].
    #[must_use]
    pub fn uid(self) -> &'a str {
        std::str::from_utf8(self.part(self.uid_range())).unwrap_or_default()
    }

    /// See [`Attributes::labels`].
    #[must_use]
    pub fn labels(self) -> Pairs<'a> {
        Pairs(self.part(self.labels_start()..self.fields_start()))
    }

    /// See [`Attributes::fields`].
    #[must_use]
    pub fn fields(self) -> Pairs<'a> {
        Pairs(self.part(self.fields_start()..self.0.len()))
    }

    /// See [`Attributes::schema`].
    #[must_use]
    pub fn schema(self) -> u16 {
        self.u16(18)
    }

    /// See [`Attributes::splice`].
    #[must_use]
    pub fn splice(self) -> usize {
        self.u32(4)
    }

    fn json_end(self) -> usize {
        HEADER.saturating_add(self.u32(0))
    }

    fn uid_range(self) -> Range<usize> {
        let start = HEADER.saturating_add(self.u32(8));
        start..start.saturating_add(usize::from(self.u16(16)))
    }

    fn labels_start(self) -> usize {
        let (uid, json_end) = (self.uid_range(), self.json_end());
        if uid.start < json_end {
            json_end
        } else {
            uid.end
        }
    }

    fn fields_start(self) -> usize {
        self.labels_start().saturating_add(self.u32(12))
    }

    fn part(self, range: Range<usize>) -> &'a [u8] {
        self.0.get(range).unwrap_or_default()
    }

    fn u32(self, at: usize) -> usize {
        let bytes = self.0.get(at..at + 4).and_then(|b| b.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default()) as usize
    }

    fn u16(self, at: usize) -> u16 {
        let bytes = self.0.get(at..at + 2).and_then(|b| b.try_into().ok());
        u16::from_le_bytes(bytes.unwrap_or_default())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("json", &String::from_utf8_lossy(self.json()))
            .field("uid", &self.uid())
            .field("labels", &self.labels())
            .field("fields", &self.fields())
            .field("schema", &self.schema())
            .field("splice", &self.splice())
            .finish()
    }
}

/// Strings by their keys, read in place.
#[derive(Clone, Copy)]
pub struct Pairs<'a>(&'a [u8]);

impl<'a> Pairs<'a> {
    /// The string of a key. There are few of them: a look through all is faster than an index.
    #[must_use]
    pub fn get(mut self, key: &str) -> Option<&'a str> {
        self.find(|(found, _)| *found == key)
            .map(|(_, value)| value)
    }

    /// Whether the bytes are pairs to their end.
    fn is_sound(mut self) -> bool {
        self.by_ref().for_each(drop);
        self.0.is_empty()
    }
}

/// The string at the beginning, and what follows it.
fn take_string(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let mut length = 0_usize;
    let mut rest = bytes;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (string, after) = rest.split_at_checked(length)?;
            return Some((std::str::from_utf8(string).ok()?, after));
        }
    }
    None
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, after) = take_string(self.0)?;
        let (value, after) = take_string(after)?;
        self.0 = after;
        Some((key, value))
    }
}

impl fmt::Debug for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(*self).finish()
    }
}

fn put_u32(out: &mut Vec<u8>, length: usize) {
    // Values are bounded far below 4 GiB.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
}

fn put_pairs(out: &mut Vec<u8>, pairs: &BTreeMap<String, String>) {
    for string in pairs.iter().flat_map(|(key, value)| [key, value]) {
        let mut length = string.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(string.as_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            json in ".{0,300}",
            uid in ".{0,40}",
            labels in proptest::collection::btree_map(".{0,9}", ".{0,200}", 0..5),
            fields in proptest::collection::btree_map("[a-z.]{1,9}", ".{0,20000}", 0..3),
            (schema, splice) in any::<(u16, u32)>(),
        ) {
            let given = Attributes { uid, labels, fields, schema, splice };
            let made = Value::new(json.as_bytes(), &given);
            let value = ValueRef::decode(made.get().encoded()).unwrap();
            prop_assert_eq!(value.json(), json.as_bytes());
            prop_assert_eq!(value.splice(), splice as usize);
            let own = |pairs: Pairs<'_>| pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            let got = Attributes {
                uid: value.uid().to_owned(),
                labels: own(value.labels()),
                fields: own(value.fields()),
                schema: value.schema(),
                splice,
            };
            for (key, label) in &given.labels {
                prop_assert_eq!(value.labels().get(key), Some(label.as_str()));
            }
            prop_assert_eq!(got, given);
        }

        #[test]
        fn other_bytes_are_refused_or_read_within_their_bounds(bytes: Vec<u8>) {
            if let Ok(value) = ValueRef::decode(&bytes) {
                let _ = (value.json().len(), value.uid(), format!("{value:?}"));
            }
        }

        #[test]
        fn a_value_cut_off_is_refused(cut in 1..90_usize) {
            let attributes = Attributes {
                uid: "u".repeat(36),
                labels: [("app".to_owned(), "web".to_owned())].into(),
                fields: [("spec.nodeName".to_owned(), "n1".to_owned())].into(),
                ..Attributes::default()
            };
            let value = Value::new(b"{}", &attributes);
            let whole = value.get().encoded();
            // Without its last pair it is another value.
            let kept = whole.len().saturating_sub(cut);
            let fields = whole.len() - ("spec.nodeName".len() + "n1".len() + 2);
            prop_assume!(kept != fields);
            prop_assert!(ValueRef::decode(&whole[..kept]).is_err());
        }

        #[test]
        fn a_uid_that_the_json_has_takes_no_room(before in ".{0,50}", after in ".{0,50}") {
            let uid = "8f14e45f-ceea-467f-9575-6b0e2a7b5f0c";
            let attributes = Attributes {
                uid: uid.to_owned(),
                labels: [("app".to_owned(), "web".to_owned())].into(),
                ..Attributes::default()
            };
            let json = format!("{before}{uid}{after}");
            let value = Value::new(json.as_bytes(), &attributes);
            let value = value.get();
            prop_assert_eq!((value.uid(), value.labels().get("app")), (uid, Some("web")));
            prop_assert_eq!(value.encoded().len(), HEADER + json.len() + "app".len() + "web".len() + 2);
        }
    }
}
