//! A stored object: one allocation, whatever it has.
//!
//! ```text
//! u32 key length │ key │ value
//! ```
//!
//! Its revisions are the marks of its bytes. A command that would write it carries it as a draft,
//! without any, and the state that applies the command marks that: the log, which keeps commands in
//! memory until the base has what they did, shares the bytes with the state.

use std::fmt;
use std::ops::Range;

use crate::heap::Bytes;
use crate::types::Revision;
use crate::value::{Value, ValueRef};

const HEADER: usize = 4;

/// An object in the store. Cheap to clone: a list of many is a list of references.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Bytes);

impl Record {
    /// An object with its key, the revision at which it was last written, and that at which it was
    /// created.
    #[must_use]
    pub fn new(key: &str, revision: Revision, created: Revision, value: ValueRef<'_>) -> Self {
        // Of a key of more than 4 GiB there is no room for the whole either.
        let length = (key.len() as u32).to_le_bytes();
        let parts = [&length, key.as_bytes(), value.encoded()];
        Self(Bytes::join(&parts, [revision, created]))
    }

    /// What is to be written.
    pub(crate) fn draft(key: &str, value: ValueRef<'_>) -> Self {
        Self::new(key, 0, 0, value)
    }

    /// A draft as it was written at a revision: itself, unless it was written before.
    pub(crate) fn written(&self, revision: Revision, created: Revision) -> Self {
        if self.0.mark([revision, created]) {
            return self.clone();
        }
        Self::new(self.key(), revision, created, self.value())
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
        self.0.marks()[0]
    }

    /// The revision at which it was created.
    #[must_use]
    pub fn created(&self) -> Revision {
        self.0.marks()[1]
    }

    /// What was written.
    #[must_use]
    pub fn value(&self) -> ValueRef<'_> {
        ValueRef::trusted(&self.0[self.key_range().end..])
    }

    /// The object as of another revision, that of its removal: a copy, for the one who removed it.
    /// Who watches is told of the record and of the revision, and copies nothing.
    pub(crate) fn at(&self, revision: Revision) -> Self {
        Self::new(self.key(), revision, self.created(), self.value())
    }

    /// The object with another value, as a write would leave it that does not happen.
    #[must_use]
    pub fn with(&self, value: &Value) -> Self {
        Self::new(self.key(), self.revision(), self.created(), value.get())
    }

    /// Bytes held, roughly: with what an allocation costs.
    pub(crate) fn weight(&self) -> usize {
        self.0.len() + 32
    }

    fn key_range(&self) -> Range<usize> {
        let length = self.0[..HEADER].try_into().unwrap_or_default();
        HEADER..HEADER + u32::from_le_bytes(length) as usize
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

            prop_assume!(revision > 0 && revision != later);
            let draft = Record::draft(&key, value.get());
            let written = draft.written(revision, created);
            prop_assert!(written == record && draft == record);
            // In another history of the same command.
            prop_assert_eq!(&draft.written(later, created), &moved);
            prop_assert_eq!(&written, &record);

            let other = Value::new(b"{}", &attributes);
            let changed = record.with(&other);
            prop_assert_eq!((changed.key(), changed.revision()), (&*key, revision));
            prop_assert_eq!(changed.value(), other.get());
        }
    }
}
