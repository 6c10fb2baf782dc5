//! Sets of fields.
//!
//! A set is a tree of path elements in canonical order. A field can be in the set without those
//! below it, and those below without it. No node is empty.

use std::cmp::Ordering;

use super::path::{Path, PathElement};
use crate::schema::{Node as Type, Shape};

/// A set of fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) nodes: Vec<(PathElement, Node)>,
}

/// Whether a field is in the set, and which below it are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) member: bool,
    pub(super) children: Set,
}

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub(super) fn member() -> Self {
        Self {
            member: true,
            children: Set::default(),
        }
    }
}

impl Set {
    /// A set of these fields.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p [&'p str]>) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Path = path.iter().map(|name| PathElement::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    /// Whether there is no field in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many fields are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        let nodes = self.nodes.iter();
        nodes
            .map(|(_, node)| usize::from(node.member) + node.children.len())
            .sum()
    }

    fn find(&self, element: &PathElement) -> Result<usize, usize> {
        self.nodes.binary_search_by(|(other, _)| other.cmp(element))
    }

    /// What is known of a field of an object or a key of a map.
    pub(super) fn named(&self, name: &str) -> Option<&Node> {
        let found = self.nodes.binary_search_by(|(other, _)| match other {
            PathElement::Field(other) => (**other).cmp(name),
            // Names come first.
            _ => Ordering::Greater,
        });
        found.ok().map(|index| &self.nodes[index].1)
    }

    pub(super) fn node(&self, element: &PathElement) -> Option<&Node> {
        self.find(element).ok().map(|index| &self.nodes[index].1)
    }

    /// Adds a field; the root itself is never in a set.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((element, rest)) = path.split_first() else {
            return;
        };
        let index = match self.find(element) {
            Ok(index) => index,
            Err(index) => {
                self.nodes.insert(index, (element.clone(), Node::default()));
                index
            }
        };
        let node = &mut self.nodes[index].1;
        if rest.is_empty() {
            node.member = true;
        } else {
            node.children.insert(rest);
        }
    }

    /// Adds what is not empty. Quick where elements come in their order.
    pub(super) fn push(&mut self, element: impl FnOnce() -> PathElement, node: Node) {
        if node.is_empty() {
            return;
        }
        let element = element();
        if self.nodes.last().is_none_or(|(last, _)| *last < element) {
            self.nodes.push((element, node));
            return;
        }
        match self.find(&element) {
            Ok(index) => {
                let old = &mut self.nodes[index].1;
                old.member |= node.member;
                let children = std::mem::take(&mut old.children);
                old.children = children.union(node.children);
            }
            Err(index) => self.nodes.insert(index, (element, node)),
        }
    }

    /// Whether the field is in it.
    #[must_use]
    pub fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [element] => self.node(element).is_some_and(|node| node.member),
            [element, rest @ ..] => self
                .node(element)
                .is_some_and(|node| node.children.contains(rest)),
        }
    }

    /// Whether every field of it is in the other set too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.nodes.iter().all(|(element, node)| {
            other.node(element).is_some_and(|found| {
                (found.member || !node.member) && node.children.is_subset(&found.children)
            })
        })
    }

    /// The fields below an element.
    #[must_use]
    pub fn below(&self, element: &PathElement) -> Option<&Self> {
        let node = self.node(element)?;
        (!node.children.is_empty()).then_some(&node.children)
    }

    /// The fields of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (
            self.nodes.into_iter().peekable(),
            other.nodes.into_iter().peekable(),
        );
        while let (Some((a, _)), Some((b, _))) = (left.peek(), right.peek()) {
            match a.cmp(b) {
                Ordering::Less => nodes.extend(left.next()),
                Ordering::Greater => nodes.extend(right.next()),
                Ordering::Equal => {
                    if let (Some((element, a)), Some((_, b))) = (left.next(), right.next()) {
                        let node = Node {
                            member: a.member || b.member,
                            children: a.children.union(b.children),
                        };
                        nodes.push((element, node));
                    }
                }
            }
        }
        nodes.extend(left);
        nodes.extend(right);
        Self { nodes }
    }

    /// The fields of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut nodes = Vec::new();
        for (element, a) in &self.nodes {
            let Some(b) = other.node(element) else {
                continue;
            };
            let node = Node {
                member: a.member && b.member,
                children: a.children.intersection(&b.children),
            };
            if !node.is_empty() {
                nodes.push((element.clone(), node));
            }
        }
        Self { nodes }
    }

    /// The fields that the other set has not.
    #[must_use]
    pub fn difference(self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// The fields that the other set has not, and that are not below one that it has.
    #[must_use]
    pub fn recursive_difference(self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(mut self, other: &Self, recursive: bool) -> Self {
        if other.is_empty() {
            return self;
        }
        self.nodes.retain_mut(|(element, node)| {
            let Some(gone) = other.node(element) else {
                return true;
            };
            if gone.member && recursive {
                return false;
            }
            node.member &= !gone.member;
            let children = std::mem::take(&mut node.children);
            node.children = children.without(&gone.children, recursive);
            !node.is_empty()
        });
        self
    }

    /// The fields at these paths and below them; `*` in a path is any step.
    #[must_use]
    pub fn at_or_below(self, paths: &[&[&str]]) -> Self {
        let mut nodes = Vec::new();
        for (element, node) in self.nodes {
            let below = paths.iter().filter_map(|path| {
                let (first, below) = path.split_first()?;
                element.is(first).then_some(below)
            });
            let below: Vec<&[&str]> = below.collect();
            let node = if below.iter().any(|path| path.is_empty()) {
                node
            } else {
                Node {
                    member: false,
                    children: node.children.at_or_below(&below),
                }
            };
            if !node.is_empty() {
                nodes.push((element, node));
            }
        }
        Self { nodes }
    }

    /// The fields below which no other is in the set.
    #[must_use]
    pub fn leaves(mut self) -> Self {
        for (_, node) in &mut self.nodes {
            node.member &= node.children.is_empty();
            node.children = std::mem::take(&mut node.children).leaves();
        }
        self
    }

    /// The set with every field of an object of this type that has others below it. Fields of
    /// objects, unlike keys of maps and items of lists, exist whether or not anybody names them.
    #[must_use]
    pub fn with_named_fields(mut self, of: Type<'_>) -> Self {
        let shape = of.shape(None);
        for (element, node) in &mut self.nodes {
            if node.children.is_empty() {
                continue;
            }
            let inner = match (element, shape) {
                (PathElement::Field(name), Shape::Struct { .. }) => {
                    node.member = true;
                    of.field(name).node
                }
                (PathElement::Field(_), Shape::Map { values, .. }) => values,
                (PathElement::Key(_), Shape::List { items, .. }) => items,
                _ => Type::untyped(),
            };
            node.children = std::mem::take(&mut node.children).with_named_fields(inner);
        }
        self
    }

    /// The set for types of which some have become atomic since it was made: who had a part has
    /// the whole.
    #[must_use]
    pub fn reconciled(mut self, of: Type<'_>) -> Self {
        for (element, node) in &mut self.nodes {
            if node.children.is_empty() {
                continue;
            }
            let inner = match (element, of.shape(None)) {
                (PathElement::Field(name), Shape::Struct { .. }) => of.field(name).node,
                (PathElement::Field(_), Shape::Map { values, .. }) => values,
                (_, Shape::List { items, .. }) => items,
                _ => continue,
            };
            let atomic = match inner.shape(None) {
                Shape::List { list, .. } => *list == crate::schema::ListType::Atomic,
                Shape::Map { atomic, .. } | Shape::Struct { atomic } => atomic,
                Shape::Scalar => false,
            };
            if atomic {
                *node = Node::member();
            } else {
                node.children = std::mem::take(&mut node.children).reconciled(inner);
            }
        }
        self
    }

    /// Calls the function with every field, in their order: fields before those below any.
    pub fn each(&self, visit: &mut dyn FnMut(&[PathElement])) {
        self.each_below(&mut Path::new(), visit);
    }

    fn each_below(&self, path: &mut Path, visit: &mut dyn FnMut(&[PathElement])) {
        for (element, node) in &self.nodes {
            if node.member {
                path.push(element.clone());
                visit(path);
                path.pop();
            }
        }
        for (element, node) in &self.nodes {
            if !node.children.is_empty() {
                path.push(element.clone());
                node.children.each_below(path, visit);
                path.pop();
            }
        }
    }
}
