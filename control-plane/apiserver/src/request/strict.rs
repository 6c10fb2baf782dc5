//! Field validation: which fields of a body the schema does not know, and which come twice.
//!
//! The schemas of all kinds are compiled once into a small graph without descriptions, and a
//! body is walked along it while it is parsed.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::policy::v1::Eviction;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::registry::erased::Kind;

/// At most so many faults are told of.
const MAX_FAULTS: usize = 32;

/// Bytes of the path of a fault: a key may be as long as a body, and each fault in it would have it.
const LONGEST_PATH: usize = 4 * 1024;

/// The name under which the schema of a JSON patch is found.
pub const JSON_PATCH: &str = "JSONPatch";

type Id = usize;

/// What a value may hold.
#[derive(Debug)]
enum Node {
    /// Anything.
    Any,
    /// These fields and no others.
    Fields(BTreeMap<Box<str>, Id>),
    /// Any keys, with such values.
    Map(Id),
    /// Such items.
    List(Id),
}

/// The schemas of all kinds.
#[derive(Debug)]
pub struct Schemas {
    nodes: Vec<Node>,
    roots: HashMap<String, Id>,
}

impl Schemas {
    /// Compiles the schemas of these kinds, and of what their subresources take.
    #[must_use]
    pub fn compile(kinds: &[Arc<dyn Kind>]) -> Self {
        let mut generator = SchemaSettings::openapi3().into_generator();
        let mut names: Vec<String> = kinds
            .iter()
            .map(|kind| {
                kind.schema(&mut generator);
                kind.schema_name()
            })
            .collect();
        // They are no kinds of their own, but what subresources take.
        generator.subschema_for::<TokenRequest>();
        generator.subschema_for::<Scale>();
        generator.subschema_for::<Eviction>();
        let of_subresources = [
            TokenRequest::schema_name(),
            Scale::schema_name(),
            Eviction::schema_name(),
        ];
        names.extend(of_subresources.map(Cow::into_owned));
        let definitions = generator.take_definitions(false);
        let mut compiler = Compiler {
            definitions: &definitions,
            nodes: vec![Node::Any],
            named: HashMap::new(),
        };
        let mut roots: HashMap<String, Id> = names
            .into_iter()
            .map(|name| (name.clone(), compiler.named(&name)))
            .collect();
        let mut nodes = compiler.nodes;
        let operation: [(Box<str>, Id); 4] =
            ["op", "path", "from", "value"].map(|field| (field.into(), 0));
        nodes.push(Node::Fields(operation.into()));
        nodes.push(Node::List(nodes.len() - 1));
        roots.insert(JSON_PATCH.to_owned(), nodes.len() - 1);
        Self { nodes, roots }
    }

    /// The faults of a body, as `unknown field "spec.x"` and `duplicate field "spec.y"`. JSON
    /// that does not parse has none here: decoding tells of it.
    #[must_use]
    pub fn faults(&self, schema: &str, json: &[u8]) -> Vec<String> {
        let mut walk = Walk {
            nodes: &self.nodes,
            path: String::new(),
            faults: Vec::new(),
        };
        let node = self.roots.get(schema).copied().unwrap_or(0);
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        // A syntax error ends the walk; what was found until then still stands.
        let _ = Step {
            walk: &mut walk,
            node,
        }
        .deserialize(&mut deserializer);
        walk.faults
    }
}

struct Compiler<'a> {
    definitions: &'a serde_json::Map<String, Value>,
    nodes: Vec<Node>,
    named: HashMap<String, Id>,
}

impl Compiler<'_> {
    fn named(&mut self, name: &str) -> Id {
        if let Some(&id) = self.named.get(name) {
            return id;
        }
        // Reserved before its fields are compiled, because schemas may be recursive.
        let id = self.nodes.len();
        self.nodes.push(Node::Any);
        self.named.insert(name.to_owned(), id);
        if let Some(schema) = self.definitions.get(name) {
            let node = self.node(schema);
            self.nodes[id] = node;
        }
        id
    }

    fn id(&mut self, schema: &Value) -> Id {
        let reference = schema["$ref"]
            .as_str()
            .or_else(|| schema["allOf"][0]["$ref"].as_str());
        if let Some(reference) = reference {
            let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
            return self.named(&name);
        }
        match self.node(schema) {
            Node::Any => 0,
            node => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    fn node(&mut self, schema: &Value) -> Node {
        if let Some(properties) = schema["properties"].as_object() {
            let fields = properties
                .iter()
                .map(|(name, schema)| (name.as_str().into(), self.id(schema)));
            return Node::Fields(fields.collect());
        }
        if schema["additionalProperties"].is_object() {
            return Node::Map(self.id(&schema["additionalProperties"]));
        }
        if schema["items"].is_object() {
            return Node::List(self.id(&schema["items"]));
        }
        Node::Any
    }
}

struct Walk<'a> {
    nodes: &'a [Node],
    path: String,
    faults: Vec<String>,
}

impl Walk<'_> {
    fn fault(&mut self, sort: &str) {
        if self.faults.len() < MAX_FAULTS {
            let end = self.path.floor_char_boundary(LONGEST_PATH);
            let cut = if end < self.path.len() { "..." } else { "" };
            let path = format!("{}{cut}", &self.path[..end]);
            self.faults.push(format!("{sort} field {path:?}"));
        }
    }
}

struct Step<'a, 'n> {
    walk: &'a mut Walk<'n>,
    node: Id,
}

impl<'de> DeserializeSeed<'de> for Step<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<E>(self, _: $type) -> Result<(), E> { Ok(()) })*
    };
}

impl<'de> Visitor<'de> for Step<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { walk, node } = self;
        let item = if let Node::List(item) = walk.nodes[node] {
            item
        } else {
            0
        };
        let length = walk.path.len();
        for index in 0.. {
            walk.path.push_str(&format!("[{index}]"));
            let more = items.next_element_seed(Step { walk, node: item })?;
            walk.path.truncate(length);
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { walk, node } = self;
        let mut seen = HashSet::new();
        let length = walk.path.len();
        while let Some(key) = entries.next_key_seed(Name)? {
            if length > 0 {
                walk.path.push('.');
            }
            walk.path.push_str(&key);
            let value = match &walk.nodes[node] {
                Node::Any | Node::List(_) => Some(0),
                Node::Map(value) => Some(*value),
                Node::Fields(fields) => fields.get(&*key).copied(),
            };
            match value {
                Some(value) => entries.next_value_seed(Step { walk, node: value })?,
                None => {
                    walk.fault("unknown");
                    entries.next_value::<IgnoredAny>()?;
                }
            }
            if !seen.insert(key) {
                walk.fault("duplicate");
            }
            walk.path.truncate(length);
        }
        Ok(())
    }
}

/// Reads the name of a member, of which a copy is made only where it is written with escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_duplicate_fields_are_named_by_path() {
        let schemas = Schemas::compile(&crate::registry::kinds::all());
        let name = "io.k8s.api.core.v1.ConfigMap";
        let cases: [(&str, &[&str]); 5] = [
            (
                r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"any":"x"},"metadata":{"labels":{"a":"b"}}}"#,
                &[],
            ),
            (
                r#"{"x":1,"metadata":{"nmae":"a"}}"#,
                &["unknown field \"x\"", "unknown field \"metadata.nmae\""],
            ),
            (
                r#"{"data":{"a":"1","\u0061":"2"}}"#,
                &["duplicate field \"data.a\""],
            ),
            (
                r#"{"metadata":{"ownerReferences":[{"kind":"a"},{"knid":"a"}]}}"#,
                &["unknown field \"metadata.ownerReferences[1].knid\""],
            ),
            (r#"{"x":"#, &["unknown field \"x\""]),
        ];
        for (json, want) in cases {
            assert_eq!(schemas.faults(name, json.as_bytes()), want, "{json}");
        }
        let patch = r#"[{"op":"add","path":"/a","value":{"x":1}},{"op":"remove","path":"/a","path":"/b","form":"/c"}]"#;
        let faults = schemas.faults(JSON_PATCH, patch.as_bytes());
        let want = ["duplicate field \"[1].path\"", "unknown field \"[1].form\""];
        assert_eq!(faults, want);
    }

    #[test]
    fn faults_are_told_of_in_few_words() {
        let schemas = Schemas::compile(&crate::registry::kinds::all());
        let name = "io.k8s.api.core.v1.ConfigMap";
        // Each character is one of two bytes, and the cut is not within one.
        let key = "\u{e9}".repeat(1_000_000);
        let twice: Vec<String> = (0..40).map(|_| "\"a\":1".to_owned()).collect();
        let json = format!("{{\"data\":{{\"{key}\":{{{}}}}}}}", twice.join(","));
        let faults = schemas.faults(name, json.as_bytes());
        assert_eq!(faults.len(), MAX_FAULTS);
        for fault in faults {
            assert!(fault.starts_with("duplicate field \"data.\u{e9}"));
            assert!(fault.ends_with("\u{e9}...\""));
            assert!(fault.len() < LONGEST_PATH + 100);
        }
    }
}
