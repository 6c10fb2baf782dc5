//! What Go leaves out of JSON: the empty values of fields of whose types it says so.
//!
//! To the types of Kubernetes `hostNetwork: false`, `subPath: ""` and `labels: {}` are the same as
//! nothing, and gone once they were read. Types here tell them from nothing. So they are taken out
//! of what clients send before it is decoded, of every kind in this one place: an object would else
//! change whenever a client of Kubernetes writes it back, what may not change would be refused, and
//! managers would have fields that are not there. Where a zero says something (`replicas: 0`, which
//! is a pointer in Go) it stays, as does the zero of a field that Go always writes
//! (`restartCount: 0`).
//!
//! The bytes are looked through once, and most objects pass without a copy. A name that is written
//! with escapes is not known, and what is no JSON is left to who decodes it. A few types here demand
//! a field that Go leaves out (`name` of a reference to a local object): that is written empty.

use std::borrow::Cow;
use std::ops::Range;

use super::Kind;
use super::schema::{Field, Id, Omit, Shape, Step, TABLE, Type};
use crate::json::end_of_string;

/// Fields whose empty lists say something: that managers are to be forgotten, and that there are no
/// policies, which is refused where none that are given are defaulted. Neither is ever stored.
const TOLD: [&str; 2] = ["managedFields", "policies"];

/// Messages within messages, which are no deeper than `serde_json` reads.
const MAX_DEPTH: usize = 128;

impl Kind {
    /// The JSON of an object of this kind, in which each value that Go would leave out is null.
    ///
    /// It is not cut out: of a member that comes twice the last one counts, empty or not.
    #[must_use]
    pub fn without_omitted<'a>(&self, json: &'a [u8]) -> Cow<'a, [u8]> {
        let mut scan = Scan {
            json,
            at: 0,
            omitted: Vec::new(),
        };
        match scan.message(self.id, MAX_DEPTH) {
            Some(()) if !scan.omitted.is_empty() => Cow::Owned(nulled(json, &scan.omitted)),
            _ => Cow::Borrowed(json),
        }
    }
}

/// The bytes with null in these places, which are in their order.
fn nulled(json: &[u8], places: &[Range<usize>]) -> Vec<u8> {
    const NULL: &[u8] = b"null";
    let mut out = Vec::with_capacity(json.len() + NULL.len() * places.len());
    let mut end = 0;
    for place in places {
        out.extend_from_slice(json.get(end..place.start).unwrap_or_default());
        out.extend_from_slice(NULL);
        end = place.end;
    }
    out.extend_from_slice(json.get(end..).unwrap_or_default());
    out
}

/// Whether a field with this value, as JSON has it, is left out.
fn is_omitted(field: Field, value: &[u8]) -> bool {
    let empty = match (field.shape, value) {
        (Shape::List, [b'[', inside @ .., b']']) | (Shape::Map, [b'{', inside @ .., b'}']) => {
            inside.iter().all(|byte| is_space(*byte))
        }
        // What is a struct in Go is never empty: a quantity, say, or a port that may have a name.
        (Shape::One, _) => match field.kind {
            Type::String | Type::Bytes => value == b"\"\"",
            Type::Bool => value == b"false",
            Type::Int => value == b"0",
            _ => false,
        },
        _ => false,
    };
    empty && field.omit == Omit::Empty && !TOLD.contains(&field.name)
}

/// Whether JSON may have this byte between its tokens.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A way through JSON along the table. Its steps are `None` where the bytes are no JSON.
struct Scan<'a> {
    json: &'a [u8],
    at: usize,
    /// Where the values are that Go would leave out.
    omitted: Vec<Range<usize>>,
}

impl<'a> Scan<'a> {
    fn message(&mut self, id: Id, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let message = TABLE.message(id);
        self.members(|scan, name| {
            let name = std::str::from_utf8(name).ok()?;
            let step = message.step(name).map(usize::from);
            match step.and_then(|at| message.steps.get(at)) {
                Some(Step::Field(field)) => scan.field(*field, depth),
                _ => scan.skip(),
            }
        })
    }

    fn field(&mut self, field: Field, depth: usize) -> Option<()> {
        let begin = self.at;
        match (field.kind, field.shape, self.peek()?) {
            (Type::Message(id), Shape::One | Shape::Optional, b'{') => self.message(id, depth)?,
            (Type::Message(id), Shape::List, b'[') => self.items(|scan| scan.item(id, depth))?,
            (Type::Message(id), Shape::Map, b'{') => {
                self.members(|scan, _| scan.item(id, depth))?;
            }
            _ => self.skip()?,
        }
        let place = begin..self.at;
        if is_omitted(field, self.json.get(place.clone())?) {
            self.omitted.push(place);
        }
        Some(())
    }

    fn item(&mut self, id: Id, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.message(id, depth),
            _ => self.skip(),
        }
    }

    /// Passes an object; `each` passes the value behind a name.
    fn members(&mut self, mut each: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.token(b'{')?;
        if self.token(b'}').is_some() {
            return Some(());
        }
        loop {
            self.spaces();
            let name = self.string()?;
            self.token(b':')?;
            self.spaces();
            each(self, name)?;
            if self.token(b',').is_none() {
                return self.token(b'}');
            }
        }
    }

    /// Passes a list; `each` passes an item.
    fn items(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.token(b'[')?;
        if self.token(b']').is_some() {
            return Some(());
        }
        loop {
            self.spaces();
            each(self)?;
            if self.token(b',').is_none() {
                return self.token(b']');
            }
        }
    }

    /// Passes any value, without a look at what is in it.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                _ if depth == 0 => self.scalar(),
                _ => self.at += 1,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Passes a number, a boolean or a null.
    fn scalar(&mut self) {
        let ends = |byte| is_space(byte) || matches!(byte, b',' | b']' | b'}');
        while self.peek().is_some_and(|byte| !ends(byte)) {
            self.at += 1;
        }
    }

    /// Passes a string, and gives what is between its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        if self.peek()? != b'"' {
            return None;
        }
        let end = end_of_string(self.json, self.at)?;
        let text = self.json.get(self.at + 1..end)?;
        self.at = end + 1;
        Some(text)
    }

    /// Passes this byte and spaces before it, if it comes next.
    fn token(&mut self, byte: u8) -> Option<()> {
        self.spaces();
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "omitted_tests.rs"]
mod tests;
