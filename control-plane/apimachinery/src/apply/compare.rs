//! What changed between two states of an object.

use std::collections::BTreeMap;
use std::iter::Peekable;

use serde_json::{Map, Value};

use super::set::{Node, Set};
use super::{PathElement, TypeError, elements, implied, list, map, path};
use crate::schema::{ListType, Node as Type, Shape};

/// The fields in which two objects differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Those that only the old object has.
    pub removed: Set,
    /// Those that both have, with other values.
    pub modified: Set,
    /// Those that only the new object has.
    pub added: Set,
}

impl Comparison {
    /// The comparison with what is left of each of its sets.
    #[must_use]
    pub fn map(self, left: impl Fn(Set) -> Set) -> Self {
        Self {
            removed: left(self.removed),
            modified: left(self.modified),
            added: left(self.added),
        }
    }
}

/// Which of two states has been encoded whole, with the fields that Kubernetes' own encoding always
/// has. A configuration has not, nor what it was merged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The old one.
    pub old: bool,
    /// The new one.
    pub new: bool,
}

impl Whole {
    /// Both.
    pub const BOTH: Self = Self {
        old: true,
        new: true,
    };
    /// Only the old one.
    pub const OLD: Self = Self {
        old: true,
        new: false,
    };
    /// Only the new one.
    pub const NEW: Self = Self {
        old: false,
        new: true,
    };
}

/// Compares two states of an object.
///
/// # Errors
/// Where the items of a list cannot be told apart.
pub fn compare(
    old: &Value,
    new: &Value,
    of: Type<'_>,
    whole: Whole,
) -> Result<Comparison, TypeError> {
    let diff = Walk(whole).values(Some(old), Some(new), of)?;
    Ok(Comparison {
        removed: diff.removed.children,
        modified: diff.modified.children,
        added: diff.added.children,
    })
}

/// The differences of a value, and below it.
#[derive(Default)]
struct Diff {
    removed: Node,
    modified: Node,
    added: Node,
}

impl Diff {
    fn push(&mut self, element: &dyn Fn() -> PathElement, below: Self) {
        self.removed.children.push(element, below.removed);
        self.modified.children.push(element, below.modified);
        self.added.children.push(element, below.added);
    }
}

/// A comparison that is under way.
#[derive(Clone, Copy)]
struct Walk(Whole);

impl Walk {
    fn values(
        self,
        old: Option<&Value>,
        new: Option<&Value>,
        of: Type<'_>,
    ) -> Result<Diff, TypeError> {
        let mut diff = Diff::default();
        let shape = of.shape(new.or(old));
        if of.is_untyped() && old.is_some() && new.is_some() {
            let before = of.shape(old);
            if std::mem::discriminant(&before) != std::mem::discriminant(&shape) {
                self.step(before, old, new, of, &mut diff)?;
            }
        }
        let whole = self.step(shape, old, new, of, &mut diff)?;
        if !whole {
            if old.is_none() {
                diff.added.member = true;
            } else if new.is_none() {
                diff.removed.member = true;
            }
        }
        Ok(diff)
    }

    /// Compares values of a shape; true where they are compared as wholes.
    fn step(
        self,
        shape: Shape<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
        of: Type<'_>,
        diff: &mut Diff,
    ) -> Result<bool, TypeError> {
        match shape {
            Shape::List { items, list: kind } => {
                let (before, after) = (list(old), list(new));
                // Two empty lists are wholes, so that an empty one and null differ.
                if *kind != ListType::Atomic && !(before.is_empty() && after.is_empty()) {
                    self.lists(before, after, items, kind, diff)?;
                    return Ok(false);
                }
            }
            Shape::Map { atomic, .. } | Shape::Struct { atomic } => {
                let (before, after) = (map(old), map(new));
                if !atomic && (before.is_some() || after.is_some()) {
                    let absent = (old.is_none(), new.is_none());
                    self.maps(before, after, absent, of, diff)?;
                    return Ok(false);
                }
            }
            Shape::Scalar => {}
        }
        match (old, new) {
            (None, _) => diff.added.member = true,
            (_, None) => diff.removed.member = true,
            (Some(old), Some(new)) => diff.modified.member |= !path::equal(old, new),
        }
        Ok(true)
    }

    fn maps(
        self,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
        (no_old, no_new): (bool, bool),
        of: Type<'_>,
        diff: &mut Diff,
    ) -> Result<(), TypeError> {
        let mut left = old.into_iter().flatten().peekable();
        let mut right = new.into_iter().flatten().peekable();
        while let Some((name, mut before, mut after)) = next(&mut left, &mut right) {
            let field = of.field(name);
            if field.always {
                before = before.or_else(|| (!no_old && self.0.old).then(|| implied(field.node)));
                after = after.or_else(|| (!no_new && self.0.new).then(|| implied(field.node)));
            }
            let below = self
                .values(before, after, field.node)
                .map_err(|error| error.below(PathElement::field(name)))?;
            diff.push(&|| PathElement::field(name), below);
        }
        if no_old == no_new {
            return Ok(());
        }
        let side = if no_old {
            &mut diff.added
        } else {
            &mut diff.removed
        };
        for (name, _) in of.named_fields().filter(|(_, field)| field.always) {
            if !old.or(new).is_some_and(|fields| fields.contains_key(name)) {
                side.children
                    .push(|| PathElement::field(name), Node::member());
            }
        }
        Ok(())
    }

    fn lists(
        self,
        old: &[Value],
        new: &[Value],
        items: Type<'_>,
        kind: &ListType,
        diff: &mut Diff,
    ) -> Result<(), TypeError> {
        let mut both: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (element, item) in elements(kind, old)?.into_iter().zip(old) {
            both.entry(element).or_default().0.push(item);
        }
        for (element, item) in elements(kind, new)?.into_iter().zip(new) {
            both.entry(element).or_default().1.push(item);
        }
        for (element, (before, after)) in both {
            let one = |before: Option<&Value>, after: Option<&Value>| {
                self.values(before, after, items)
                    .map_err(|error| error.below(&element))
            };
            let mut below = match (before.as_slice(), after.as_slice()) {
                ([] | [_], [] | [_]) => one(before.first().copied(), after.first().copied())?,
                // Items that are there more than once are one value, and their parts are nobody's.
                ([_, _, ..], [_, _, ..]) => Diff::default(),
                ([_, _, ..], [after]) => one(None, Some(after))?,
                ([before], [_, _, ..]) => one(Some(before), None)?,
                ([_, _, ..], []) | ([], [_, _, ..]) => Diff::default(),
            };
            match (before.len() > 1, after.len() > 1) {
                (true, true) => {
                    let same = before.len() == after.len()
                        && before.iter().zip(&after).all(|(a, b)| path::equal(a, b));
                    below.modified.member |= !same;
                }
                (true, false) => below.removed.member = true,
                (false, true) => below.added.member = true,
                (false, false) => {}
            }
            diff.push(&|| element.clone(), below);
        }
        Ok(())
    }
}

type Entry<'a> = (&'a String, &'a Value);

/// The next key of either map, with its values.
fn next<'a>(
    left: &mut Peekable<impl Iterator<Item = Entry<'a>>>,
    right: &mut Peekable<impl Iterator<Item = Entry<'a>>>,
) -> Option<(&'a str, Option<&'a Value>, Option<&'a Value>)> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (left.peek(), right.peek()) {
        (None, None) => return None,
        (Some(_), None) => Less,
        (None, Some(_)) => Greater,
        (Some((a, _)), Some((b, _))) => a.cmp(b),
    };
    let old = (order != Greater).then(|| left.next()).flatten();
    let new = (order != Less).then(|| right.next()).flatten();
    debug_assert!(order != Equal || old.map(|(k, _)| k) == new.map(|(k, _)| k));
    let (name, _) = old.or(new)?;
    Some((
        name,
        old.map(|(_, value)| value),
        new.map(|(_, value)| value),
    ))
}
