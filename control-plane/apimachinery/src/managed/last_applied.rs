//! Objects that kubectl applied on its own side before it applies them on the server's: the
//! annotation that it left says which fields are its own already.

use serde_json::Value;

use super::{Conflict, Conflicts, Write};
use crate::apply::{Set, Whole, compare, field_set};

/// The manager by which kubectl applies. Another name opts out of all this.
pub const KUBECTL: &str = "kubectl";

/// Where `kubectl apply` keeps what it applied.
pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Bytes that annotations may have together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    let text = object["metadata"]["annotations"][ANNOTATION].as_str()?;
    (!text.is_empty()).then_some(text)
}

/// The fields that were applied by kubectl's client side and have not changed since.
fn own(live: &Value, write: &Write<'_>) -> Option<Set> {
    let applied: Value = serde_json::from_str(annotation(live)?).ok()?;
    if applied["apiVersion"] != write.api_version {
        return None;
    }
    let fields = field_set(&applied, write.structure).ok()?;
    let since = compare(&applied, live, write.structure, Whole::NEW).ok()?;
    Some(
        fields
            .difference(&since.modified)
            .difference(&since.added)
            .difference(&since.removed),
    )
}

/// The conflicts that are not with what kubectl itself applied; `None` where there are none.
pub(super) fn not_own(live: &Value, write: &Write<'_>, conflicts: Conflicts) -> Option<Conflicts> {
    let Some(own) = own(live, write) else {
        return Some(conflicts);
    };
    let foreign = |conflict: &Conflict| !own.contains(&conflict.path);
    let left: Vec<Conflict> = conflicts.0.into_iter().filter(foreign).collect();
    (!left.is_empty()).then_some(Conflicts(left))
}

/// The object with its annotation brought up to date, if it has one: who goes back to applying on
/// the client's side finds what was applied last.
pub(super) fn refreshed(mut object: Value, config: &Value) -> Value {
    if annotation(&object).is_none() {
        return object;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(ANNOTATION);
        if annotations.is_empty()
            && let Some(Value::Object(meta)) = config.pointer_mut("/metadata")
        {
            meta.remove("annotations");
        }
    }
    // With a line's end, as kubectl writes it.
    let text = format!("{config}\n");
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        annotations.insert(ANNOTATION.to_owned(), text.into());
        let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
        if annotations.iter().map(size).sum::<usize>() > MAX_ANNOTATIONS {
            annotations.remove(ANNOTATION);
        }
    }
    object
}
