//! A stored object: one allocation, whatever it has.
//!
//! ```text
//! u64 revision │ u64 created │ u32 key length │ key │ value
//! ```

use std::fmt;
use std::ops::Range;

use crate::heap::Bytes;
use crate::types::Revision;
use crate::value::{Value, ValueRef};

const HEADER: usize = 20;

/// An object in the store. Cheap to clone: a list of many is a list of references.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Bytes);

impl Record {
    /// An object with its key, the revision at which it was last written, and that at which it was
    /// created.
    #[must_use]
    pub fn new(key: &str, revision: Revision, created: Revision, value: ValueRef<'_>) -> Self {
        let (revision, created) = (revision.to_le_bytes(), created.to_le_bytes());
        // Of a key of more than 4 GiB there is no room for the whole either.
        let length = (key.len() as u32).to_le_bytes();
        let key = key.as_bytes();
        let parts = [&revision[..], &created, &length, key, value.encoded()];
        Self(Bytes::join(&parts))
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &str {
        let key = &self.0[self.key_range()];
        // SAFETY: these are the bytes that `new` was given as a `str`.
        unsafe { std::str::from_utf8_unchecked(key) }
    }

    /// The revision at which it was last written.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.u64(0)
    }

    /// The revision at which it was created.
    #[must_use]
    pub fn created(&self) -> Revision {
        self.u64(8)
    }

    /// What was written.
    #[must_use]
    pub fn value(&self) -> ValueRef<'_> {
        ValueRef::trusted(&self.0[self.key_range().end..])
    }

    /// The object as of another revision: that of its removal, or of what made it leave a
    /// selection.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Self {
        Self::new(self.key(), revision, self.created(), self.value())
    }

    /// The object with another value, as a write would leave it that does not happen.
    #[must_use]
    pub fn with(&self, value: &Value) -> Self {
        Self::new(self.key(), self.revision(), self.created(), value.get())
    }

    /// Bytes held, roughly: with what an allocation costs.
    pub(crate) fn weight(&self) -> usize {
        self.0.len() + 16
    }

    fn key_range(&self) -> Range<usize> {
        HEADER..HEADER + u32::from_le_bytes(self.array(16)) as usize
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().unwrap_or([0; N])
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key())
            .field("revision", &self.revision())
            .field("created", &self.created())
            .field("value", &self.value())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::Attributes;

    proptest! {
        #[test]
        fn a_record_is_what_it_was_made_of(
            key in ".{0,80}",
            json in ".{0,300}",
            uid in "[0-9a-f]{0,36}",
            (revision, created, later) in any::<(u64, u64, u64)>(),
        ) {
            let attributes = Attributes { uid, ..Attributes::default() };
            let value = Value::new(json.as_bytes(), &attributes);
            let record = Record::new(&key, revision, created, value.get());
            prop_assert_eq!((record.key(), record.value()), (&*key, value.get()));
            prop_assert_eq!((record.revision(), record.created()), (revision, created));
            prop_assert_eq!(record.value().uid(), &*attributes.uid);

            let moved = record.at(later);
            prop_assert_eq!((moved.revision(), moved.created()), (later, created));
            prop_assert_eq!(&moved.at(revision), &record);

            let other = Value::new(b"{}", &attributes);
            let changed = record.with(&other);
            prop_assert_eq!((changed.key(), changed.revision()), (&*key, revision));
            prop_assert_eq!(changed.value(), other.get());
        }
    }
}
