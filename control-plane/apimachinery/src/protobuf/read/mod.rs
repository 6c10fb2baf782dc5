//! From protobuf to JSON: the JSON that Go makes of the object that it reads from the same
//! bytes. Fields are written in the order of their numbers.
//!
//! This module reads messages, `value` what their fields hold.
//!
//! Input is hostile: nesting and the size of the output are bounded, fields may come in any
//! order and more than once, and what is not known is skipped.

mod value;

use super::Error;
use super::schema::{Field, Id, Message, Omit, Shape, TABLE, Type};
use super::wire::{Reader, Wire};

/// Messages are nested at most so deep; no type of the API comes near, but for JSON schemas.
const MAX_DEPTH: usize = 100;

/// A message is decoded into this.
pub(super) struct Decoder<'a> {
    pub out: Vec<u8>,
    /// `out` becomes hardly larger than this.
    limit: usize,
    /// Bytes that were put together from pieces.
    pieces: usize,
    /// Fields of the messages that are being decoded, by their index in the table.
    entries: Vec<(usize, Wire<'a>)>,
}

/// Where an object stands in its members.
struct Members {
    empty: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            out: Vec::new(),
            limit,
            pieces: 0,
            entries: Vec::new(),
        }
    }

    /// Writes the object of a kind.
    pub(super) fn object(
        &mut self,
        api_version: &str,
        kind: &str,
        id: Id,
        bytes: &'a [u8],
        depth: usize,
    ) -> Result<(), Error> {
        let mut members = Members { empty: true };
        self.out.push(b'{');
        for (name, value) in [("kind", kind), ("apiVersion", api_version)] {
            self.name(name, &mut members);
            self.string(value);
        }
        self.fields(id, bytes, &mut members, depth)?;
        self.out.push(b'}');
        Ok(())
    }

    fn name(&mut self, name: &str, members: &mut Members) {
        if !members.empty {
            self.out.push(b',');
        }
        members.empty = false;
        // Names of the table need no escapes.
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn string(&mut self, text: &str) {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut self.out, text);
    }

    /// Sorts the fields of a message; they lie at the end of `entries`, from the returned index.
    fn gather(&mut self, message: &Message, bytes: &'a [u8]) -> Result<usize, Error> {
        let base = self.entries.len();
        let (mut last, mut sorted) = (0, true);
        for field in Reader::new(bytes) {
            let (number, wire) = field?;
            if let Some(index) = message.index(number, last) {
                sorted &= index >= last;
                last = index;
                self.entries.push((index, wire));
            }
        }
        if !sorted {
            self.entries[base..].sort_by_key(|(index, _)| *index);
        }
        Ok(base)
    }

    fn message(&mut self, id: Id, bytes: &'a [u8], depth: usize) -> Result<(), Error> {
        if TABLE.message(id).union {
            return self.union(id, bytes, depth);
        }
        self.out.push(b'{');
        self.fields(id, bytes, &mut Members { empty: true }, depth)?;
        self.out.push(b'}');
        Ok(())
    }

    fn fields(
        &mut self,
        id: Id,
        bytes: &'a [u8],
        members: &mut Members,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        if self.out.len() > self.limit {
            return Err(Error::TooLarge(self.limit));
        }
        let message = TABLE.message(id);
        let base = self.gather(message, bytes)?;
        let mut at = base;
        for (index, field) in message.fields.iter().enumerate() {
            let begin = at;
            while self.entries.get(at).is_some_and(|(i, _)| *i == index) {
                at += 1;
            }
            self.field(field, begin..at, members, depth)?;
        }
        self.entries.truncate(base);
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        run: std::ops::Range<usize>,
        members: &mut Members,
        depth: usize,
    ) -> Result<(), Error> {
        if let (Type::Message(inner), true) = (field.kind, field.inlined()) {
            return match self.entries.get(run.clone()).unwrap_or_default() {
                [] => self.fields(inner, &[], members, depth + 1),
                [(_, Wire::Bytes(bytes))] => self.fields(inner, bytes, members, depth + 1),
                _ => self.merged(run, |merged, bytes| {
                    merged.fields(inner, bytes, members, depth + 1)
                }),
            };
        }
        if run.is_empty() {
            let absent = match field.shape {
                // What Go's JSON never finds empty: structs, unless they are zero times.
                Shape::One => match field.kind {
                    Type::String | Type::Bool | Type::Int | Type::Double => {
                        field.omit != Omit::Nothing
                    }
                    Type::Bytes | Type::Items => field.omit != Omit::Nothing,
                    _ => field.omit == Omit::Zero,
                },
                _ => field.omit != Omit::Nothing,
            };
            if absent {
                return Ok(());
            }
            self.name(field.name, members);
            return match field.shape {
                Shape::One => self.zero(field.kind, depth),
                _ => {
                    self.out.extend_from_slice(b"null");
                    Ok(())
                }
            };
        }
        let before = self.out.len();
        let was_empty = members.empty;
        self.name(field.name, members);
        let keep = match field.shape {
            Shape::List => self.list(field.kind, run, depth).map(|()| true)?,
            Shape::Map => self.map(field.kind, run, depth).map(|()| true)?,
            Shape::One | Shape::Optional => {
                let zero = self.single(field.kind, run, depth)?;
                let omitted = match field.omit {
                    Omit::Nothing => false,
                    // For Go no struct is empty.
                    Omit::Empty => zero && field.kind != Type::Time,
                    Omit::Zero => zero,
                };
                field.shape == Shape::Optional || !omitted
            }
        };
        if !keep {
            self.out.truncate(before);
            members.empty = was_empty;
        }
        Ok(())
    }

    /// What came in several pieces is the same as the pieces one behind the other.
    fn merged(
        &mut self,
        run: std::ops::Range<usize>,
        with: impl for<'b> FnOnce(&mut Decoder<'b>, &'b [u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut whole = Vec::new();
        for (_, wire) in &self.entries[run] {
            let Wire::Bytes(bytes) = wire else {
                return Err(Error::Malformed);
            };
            whole.extend_from_slice(bytes);
        }
        // What is nested may come in pieces at every level.
        self.pieces += whole.len();
        if self.pieces > self.limit {
            return Err(Error::TooLarge(self.limit));
        }
        let mut inner = Decoder {
            out: std::mem::take(&mut self.out),
            limit: self.limit,
            pieces: self.pieces,
            entries: Vec::new(),
        };
        let done = with(&mut inner, &whole);
        self.pieces = inner.pieces;
        self.out = inner.out;
        done
    }

    /// A field of one value; returns whether it is what `omitempty` (of a time `omitzero`)
    /// leaves out.
    fn single(
        &mut self,
        kind: Type,
        run: std::ops::Range<usize>,
        depth: usize,
    ) -> Result<bool, Error> {
        let (_, last) = self.entries[run.end - 1];
        match kind {
            Type::Message(id) if run.len() > 1 => {
                self.merged(run, |merged, bytes| merged.message(id, bytes, depth + 1))?;
                Ok(false)
            }
            // The last one counts.
            _ => self.value(kind, last, depth),
        }
    }

    fn list(&mut self, kind: Type, run: std::ops::Range<usize>, depth: usize) -> Result<(), Error> {
        self.out.push(b'[');
        let mut first = true;
        for at in run {
            let (_, wire) = self.entries[at];
            match (kind, wire) {
                (Type::Int | Type::Bool, Wire::Bytes(packed)) => {
                    let mut packed = Reader::new(packed);
                    while let Some(number) = packed.packed() {
                        self.comma(&mut first);
                        self.value(kind, Wire::Varint(number?), depth)?;
                    }
                }
                _ => {
                    self.comma(&mut first);
                    self.value(kind, wire, depth)?;
                }
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn comma(&mut self, first: &mut bool) {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
    }

    fn map(&mut self, kind: Type, run: std::ops::Range<usize>, depth: usize) -> Result<(), Error> {
        let mut pairs = Vec::with_capacity(run.len());
        for (_, wire) in &self.entries[run] {
            let Wire::Bytes(entry) = *wire else {
                return Err(Error::Malformed);
            };
            let (mut key, mut value) = ("", None);
            for field in Reader::new(entry) {
                match field? {
                    (1, Wire::Bytes(bytes)) => key = text(bytes)?,
                    (2, wire) => value = Some(wire),
                    _ => {}
                }
            }
            pairs.push((key, value));
        }
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            pairs.sort_by_key(|(key, _)| *key);
        }
        self.out.push(b'{');
        let mut first = true;
        for (at, (key, value)) in pairs.iter().enumerate() {
            // Of a key that comes twice the last counts.
            if pairs.get(at + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            self.comma(&mut first);
            self.string(key);
            self.out.push(b':');
            match value {
                Some(wire) => self.value(kind, *wire, depth).map(|_| ())?,
                // In a map Go makes empty slices, and no nil ones.
                None if kind == Type::Bytes => self.out.extend_from_slice(b"\"\""),
                None if kind == Type::Items => self.out.extend_from_slice(b"[]"),
                None => self.zero(kind, depth)?,
            }
        }
        self.out.push(b'}');
        Ok(())
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::NotText)
}
