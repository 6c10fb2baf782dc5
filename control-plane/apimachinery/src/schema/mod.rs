//! The structure of objects: what their lists and maps are to those who merge them.
//!
//! One table holds the facts of all built-in types ([`Schema::built_in`]): list types and keys,
//! map types, patch strategies and merge keys. Strategic merge patch, server-side apply and the
//! extensions in OpenAPI read it. A [`Schema`] can also be made of another table; a type of
//! which nothing is known is [`Node::untyped`].
//!
//! Deliberately absent: the types of scalars. Decoding an object finds what is wrong with them.

mod parse;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::gvk::GroupVersionKind;

/// Types that refer to each other.
#[derive(Debug)]
pub struct Schema {
    types: Vec<Type>,
    names: HashMap<Box<str>, TypeId>,
    kinds: HashMap<Box<str>, TypeId>,
}

type TypeId = usize;

/// The first types of every schema.
const SCALAR: TypeId = 0;
const UNTYPED: TypeId = 1;

#[derive(Debug)]
enum Type {
    Scalar,
    /// Told from the value: objects are granular, lists atomic.
    Untyped,
    List {
        items: TypeId,
        list: ListType,
    },
    Map {
        values: TypeId,
        atomic: bool,
    },
    Struct {
        name: Box<str>,
        atomic: bool,
        fields: Vec<(Box<str>, Field)>,
    },
    /// A struct that is atomic, or is not, in this place.
    Here {
        of: TypeId,
        atomic: bool,
    },
}

#[derive(Debug)]
struct Field {
    of: TypeId,
    always: bool,
    patch: Patch,
}

/// What makes the items of a list distinct (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq)]
pub enum ListType {
    /// Nothing: the list is one value.
    Atomic,
    /// Their value.
    Set,
    /// The values of these members.
    Map(Vec<Key>),
}

/// A member that tells the items of a list apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its name.
    pub name: Box<str>,
    /// What it is where an item lacks it.
    pub default: Option<Value>,
}

/// What a strategic merge patch does with a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Whether the items of a list are merged; else the list of the patch replaces it.
    pub merge: bool,
    /// The member by whose value items are merged; `None` where they are scalars.
    pub merge_key: Option<Box<str>>,
    /// Whether the patch names the members of the object, or of each item, that stay
    /// (`$retainKeys`).
    pub retain_keys: bool,
    /// Whether an object of the patch replaces the one that is there, with which it would else be
    /// merged.
    pub replace: bool,
}

/// A type in its schema.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    schema: &'a Schema,
    of: TypeId,
}

/// What a type is.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// A value without parts.
    Scalar,
    /// A list.
    List {
        /// The type of the items.
        items: Node<'a>,
        /// What makes them distinct.
        list: &'a ListType,
    },
    /// A map from any keys.
    Map {
        /// The type of the values.
        values: Node<'a>,
        /// Whether it is one value.
        atomic: bool,
    },
    /// An object with fields.
    Struct {
        /// Whether it is one value.
        atomic: bool,
    },
}

/// A field of a type.
#[derive(Clone, Copy, Debug)]
pub struct FieldNode<'a> {
    /// Its type.
    pub node: Node<'a>,
    /// What a strategic merge patch does with it.
    pub patch: &'a Patch,
    /// Whether Kubernetes' own encoding of the object always has the field, empty or not.
    pub always: bool,
}

static NOTHING_SAID: Patch = Patch {
    merge: false,
    merge_key: None,
    retain_keys: false,
    replace: false,
};
static ATOMIC: ListType = ListType::Atomic;

impl Schema {
    /// The types of Kubernetes.
    #[must_use]
    pub fn built_in() -> &'static Self {
        static TABLE: LazyLock<Schema> =
            LazyLock::new(|| parse::parse(include_str!("kubernetes-1.37.txt")));
        &TABLE
    }

    /// The type of a kind.
    #[must_use]
    pub fn kind(&self, kind: &GroupVersionKind) -> Option<Node<'_>> {
        let key = format!("{}/{}", kind.api_version(), kind.kind);
        self.kinds.get(key.as_str()).map(|&of| self.node(of))
    }

    /// A type by the name of its OpenAPI definition.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Node<'_>> {
        self.names.get(name).map(|&of| self.node(of))
    }

    fn node(&self, of: TypeId) -> Node<'_> {
        Node { schema: self, of }
    }

    /// The schema that knows nothing.
    fn nothing() -> Self {
        Self {
            types: vec![Type::Scalar, Type::Untyped],
            names: HashMap::new(),
            kinds: HashMap::new(),
        }
    }
}

impl Node<'static> {
    /// A type of which nothing is known: objects are merged member by member, lists are atomic.
    #[must_use]
    pub fn untyped() -> Self {
        static NOTHING: LazyLock<Schema> = LazyLock::new(Schema::nothing);
        NOTHING.node(UNTYPED)
    }
}

impl<'a> Node<'a> {
    fn at(self, of: TypeId) -> Self {
        Self { of, ..self }
    }

    /// The shape that a value of this type has. A value that does not fit has the shape that it
    /// should have.
    #[must_use]
    pub fn shape(self, value: Option<&Value>) -> Shape<'a> {
        match &self.schema.types[self.of] {
            Type::Scalar => Shape::Scalar,
            Type::Untyped => match value {
                Some(Value::Array(_)) => Shape::List {
                    items: self,
                    list: &ATOMIC,
                },
                Some(Value::Object(_)) => Shape::Map {
                    values: self,
                    atomic: false,
                },
                _ => Shape::Scalar,
            },
            Type::List { items, list } => Shape::List {
                items: self.at(*items),
                list,
            },
            Type::Map { values, atomic } => Shape::Map {
                values: self.at(*values),
                atomic: *atomic,
            },
            Type::Struct { atomic, .. } | Type::Here { atomic, .. } => {
                Shape::Struct { atomic: *atomic }
            }
        }
    }

    /// Whether the shape depends on the value.
    #[must_use]
    pub fn is_untyped(self) -> bool {
        self.of == UNTYPED
    }

    /// The type itself, without what is said of it in this place alone.
    #[must_use]
    pub fn anywhere(self) -> Self {
        match &self.schema.types[self.of] {
            Type::Here { of, .. } => self.at(*of),
            _ => self,
        }
    }

    fn fields(self) -> &'a [(Box<str>, Field)] {
        match &self.schema.types[self.of] {
            Type::Struct { fields, .. } => fields,
            Type::Here { of, .. } => self.at(*of).fields(),
            _ => &[],
        }
    }

    /// The name of an object's type; empty for other types.
    #[must_use]
    pub fn name(self) -> &'a str {
        match &self.schema.types[self.of] {
            Type::Struct { name, .. } => name,
            Type::Here { of, .. } => self.at(*of).name(),
            _ => "",
        }
    }

    /// A field of an object, or a value of a map. One that the schema lacks is a scalar.
    #[must_use]
    pub fn field(self, name: &str) -> FieldNode<'a> {
        let of = match &self.schema.types[self.of] {
            Type::Map { values, .. } => *values,
            Type::Untyped => UNTYPED,
            Type::Struct { fields, .. } => {
                match fields.binary_search_by(|(field, _)| (**field).cmp(name)) {
                    Ok(index) => return self.field_node(&fields[index].1),
                    Err(_) => SCALAR,
                }
            }
            Type::Here { of, .. } => return self.at(*of).field(name),
            Type::Scalar | Type::List { .. } => SCALAR,
        };
        FieldNode {
            node: self.at(of),
            patch: &NOTHING_SAID,
            always: false,
        }
    }

    fn field_node(self, field: &'a Field) -> FieldNode<'a> {
        FieldNode {
            node: self.at(field.of),
            patch: &field.patch,
            always: field.always,
        }
    }

    /// The items of a list, or the type itself: what a strategic merge patch descends to.
    #[must_use]
    pub fn inner(self) -> Self {
        match &self.schema.types[self.of] {
            Type::List { items, .. } => self.at(*items),
            _ => self,
        }
    }

    /// The fields of an object that are no scalars, by name.
    pub fn named_fields(self) -> impl Iterator<Item = (&'a str, FieldNode<'a>)> {
        let fields = self.fields().iter();
        fields.map(move |(name, field)| (&**name, self.field_node(field)))
    }
}

#[cfg(test)]
mod tests;
