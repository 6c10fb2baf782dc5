//! What an expression may name: the variables of the place where it stands, and the functions and
//! types that all expressions have.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use super::types::{Type, split};

/// A function or an operator, one way to call it.
#[derive(Debug)]
pub(super) struct Overload {
    /// The receiver, of a method.
    pub(super) receiver: Option<Type>,
    pub(super) arguments: Vec<Type>,
    pub(super) result: Type,
}

/// The functions by name, and the members of types by type.
#[derive(Debug, Default)]
pub(super) struct Library {
    functions: HashMap<Box<str>, Vec<Overload>>,
    objects: HashMap<Arc<str>, BTreeMap<Box<str>, Type>>,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    // The table is part of the program, and a test reads all of it.
    Library::parse(include_str!("environment.txt")).unwrap_or_default()
});

impl Library {
    /// Reads the table; the line that is not of its form where there is one.
    fn parse(text: &str) -> Result<Self, &str> {
        let mut library = Self::default();
        let mut object: Option<Arc<str>> = None;
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["object", name] => {
                    library.objects.insert(name.into(), BTreeMap::new());
                    object = Some(name.into());
                }
                [member, of] if line.starts_with(' ') => {
                    let object = object.as_ref().and_then(|o| library.objects.get_mut(o));
                    let members = object.ok_or(line)?;
                    members.insert(member.into(), Type::parse(of).ok_or(line)?);
                }
                [receiver, name, arguments, result] => {
                    let overload = Overload {
                        receiver: match receiver {
                            "-" => None,
                            receiver => Some(Type::parse(receiver).ok_or(line)?),
                        },
                        arguments: match arguments {
                            "-" => Vec::new(),
                            all => {
                                let all: Option<_> =
                                    split(all).into_iter().map(Type::parse).collect();
                                all.ok_or(line)?
                            }
                        },
                        result: Type::parse(result).ok_or(line)?,
                    };
                    library
                        .functions
                        .entry(name.into())
                        .or_default()
                        .push(overload);
                }
                _ => return Err(line),
            }
        }
        Ok(library)
    }
}

/// What one expression may name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, Type>,
    composed: Option<BTreeMap<String, Type>>,
    patches: bool,
    bind: bool,
}

/// The name under which the variables of a policy are.
const COMPOSED: &str = "variables";
/// The type of an object that is to be changed, and what the types of its members begin with.
const OBJECT: &str = "Object";

impl Environment {
    /// The variables of a request under admission.
    pub(crate) fn admission() -> Self {
        Self::default()
            .with("object", Type::Dyn)
            .with("oldObject", Type::Dyn)
            .with("namespaceObject", Type::named("kubernetes.Namespace"))
            .with("request", Type::named("kubernetes.AdmissionRequest"))
    }

    /// The variables of a device.
    pub(crate) fn device() -> Self {
        let device = Type::named("kubernetes.DRADevice");
        let environment = Self::default().with("device", device);
        Self {
            bind: true,
            ..environment
        }
    }

    fn with(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.to_owned(), of);
        self
    }

    /// With the parameters of a policy, where it has some.
    pub(crate) fn params(self, present: bool) -> Self {
        if present {
            self.with("params", Type::Dyn)
        } else {
            self
        }
    }

    /// With who says what the caller may do.
    pub(crate) fn authorizer(self) -> Self {
        let check = Type::named("kubernetes.authorization.ResourceCheck");
        self.with(
            "authorizer",
            Type::named("kubernetes.authorization.Authorizer"),
        )
        .with("authorizer.requestResource", check)
    }

    /// Without: for expressions that only tell what was decided.
    pub(crate) fn without_authorizer(mut self) -> Self {
        self.variables
            .retain(|name, _| !name.starts_with("authorizer"));
        self
    }

    /// With the types of which patches are made.
    pub(crate) fn patches(mut self) -> Self {
        self.patches = true;
        self
    }

    /// With variables of a policy, of which there are none yet.
    pub(crate) fn composing(mut self) -> Self {
        self.composed.get_or_insert_default();
        self
    }

    /// Declares a variable of the policy's own.
    pub(crate) fn compose(&mut self, name: &str, of: Type) {
        let composed = self.composed.get_or_insert_default();
        composed.insert(name.to_owned(), of);
    }

    /// The type of a variable, whose name may have dots.
    pub(super) fn variable(&self, name: &str) -> Option<Type> {
        if let Some(of) = self.variables.get(name) {
            return Some(of.clone());
        }
        if name == COMPOSED && self.composed.is_some() {
            return Some(Type::named(COMPOSED));
        }
        let is_type = matches!(
            name,
            "bool"
                | "int"
                | "uint"
                | "double"
                | "string"
                | "bytes"
                | "list"
                | "map"
                | "null_type"
                | "type"
        );
        is_type.then_some(Type::Meta)
    }

    /// The ways to call a function.
    pub(super) fn overloads(&self, name: &str) -> &'static [Overload] {
        let found = LIBRARY.functions.get(name).map(Vec::as_slice);
        found.unwrap_or_default()
    }

    /// The type of a member; none where a value of the type has no such member.
    pub(super) fn member(&self, of: &str, member: &str) -> Option<Type> {
        if of == COMPOSED {
            return self.composed.as_ref()?.get(member).cloned();
        }
        if is_object(of) {
            return Some(Type::Dyn);
        }
        LIBRARY.objects.get(of)?.get(member).cloned()
    }

    /// Whether expressions can give names to values.
    pub(super) fn has_bind(&self) -> bool {
        self.bind
    }

    /// Whether expressions can make values of a type by its name.
    pub(super) fn can_make(&self, name: &str) -> bool {
        self.patches && (name == "JSONPatch" || is_object(name))
    }
}

/// Whether a type is that of an object that is to be changed, or of a part of it.
fn is_object(name: &str) -> bool {
    name.strip_prefix(OBJECT)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_is_read_and_names_only_types_that_are_there() {
        let library = Library::parse(include_str!("environment.txt")).unwrap();
        assert!(library.functions.len() > 100);
        let functions = library.functions.values().flatten();
        let types = functions
            .flat_map(|f| f.arguments.iter().chain(&f.receiver).chain([&f.result]))
            .chain(library.objects.values().flat_map(BTreeMap::values));
        let made: Vec<String> = library
            .functions
            .values()
            .flatten()
            .map(|f| f.result.to_string())
            .collect();
        for of in types {
            if let Type::Named(name) = of {
                let known = library.objects.contains_key(name)
                    || made.iter().any(|made| made.contains(&**name))
                    || &**name == "kubernetes.authorization.Authorizer";
                assert!(known, "{name}");
            }
        }
    }
}
