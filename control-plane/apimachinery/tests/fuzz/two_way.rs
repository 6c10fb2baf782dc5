//! The strategic merge patch that makes one object another, as kubectl computes it: for lists
//! that are merged the items that differ, those that go, and the order.

use coracle_apimachinery::schema::{FieldNode, Node};
use serde_json::{Map, Value, json};

/// The patch from one object to another; neither has nulls, nor items with the same key.
pub(crate) fn diff(
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    of: Node<'_>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, new) in to {
        let field = of.field(name);
        match (from.get(name), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                let mut below = diff(old, new, field.node);
                if field.patch.retain_keys {
                    below.insert("$retainKeys".to_owned(), new.keys().cloned().collect());
                }
                patch.insert(name.clone(), below.into());
            }
            (Some(Value::Array(old)), Value::Array(new)) if field.patch.merge => {
                lists(name, old, new, field, &mut patch);
            }
            _ => {
                patch.insert(name.clone(), new.clone());
            }
        }
    }
    patch
}

fn lists(
    name: &str,
    old: &[Value],
    new: &[Value],
    field: FieldNode<'_>,
    patch: &mut Map<String, Value>,
) {
    let order = format!("$setElementOrder/{name}");
    let Some(key) = field.patch.merge_key.as_deref() else {
        let added: Vec<Value> = new
            .iter()
            .filter(|item| !old.contains(item))
            .cloned()
            .collect();
        let gone: Vec<Value> = old
            .iter()
            .filter(|item| !new.contains(item))
            .cloned()
            .collect();
        if !added.is_empty() {
            patch.insert(name.to_owned(), added.into());
        }
        if !gone.is_empty() {
            patch.insert(format!("$deleteFromPrimitiveList/{name}"), gone.into());
        }
        patch.insert(order, new.to_vec().into());
        return;
    };
    let mut items = Vec::new();
    for item in new {
        match old.iter().find(|known| known[key] == item[key]) {
            Some(known) if known == item => {}
            Some(known) => {
                let (known, wanted) = (known.as_object().unwrap(), item.as_object().unwrap());
                let mut below = diff(known, wanted, field.node.inner());
                if field.patch.retain_keys {
                    below.insert("$retainKeys".to_owned(), wanted.keys().cloned().collect());
                }
                below.insert(key.to_owned(), item[key].clone());
                items.push(Value::Object(below));
            }
            None => items.push(item.clone()),
        }
    }
    for gone in old
        .iter()
        .filter(|known| !new.iter().any(|item| item[key] == known[key]))
    {
        items.push(json!({"$patch": "delete", key: gone[key]}));
    }
    if !items.is_empty() {
        patch.insert(name.to_owned(), items.into());
    }
    let keys = new.iter().map(|item| json!({key: item[key]}));
    patch.insert(order, keys.collect());
}
