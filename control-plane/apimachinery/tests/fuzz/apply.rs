//! Server-side apply: whoever writes what in whichever order, managed fields stay true.
//!
//! Lists and maps that are there and empty are an exception, here as in Kubernetes, with which
//! `tests/clients/go/wire` compares such histories: whoever says `containers: []` manages the list as
//! a whole. A second apply of the same then finds items that are others', which the first one left,
//! and may conflict with them or take what is empty away. So half of the histories have none.

use coracle_apimachinery::apply::{
    PathElement, Set, Whole, compare, field_set, mentioned, merge, path, validate,
};
use coracle_apimachinery::managed::{
    self, Applied, Error, Manager, Managers, Operation, Versions, Write,
};
use coracle_apimachinery::schema::{Node, Shape};
use serde_json::{Map, Value, json};

use crate::draw::{Draw, text_of};
use crate::fuzz;
use crate::objects::{Kind, without_nulls};
use crate::reference::merge_patch;

/// Only one version is served.
struct One;

impl Versions for One {
    fn structure(&self, _: &str) -> Option<Node<'_>> {
        None
    }

    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Value> {
        None
    }
}

/// An object that is written, and who has which of its fields.
struct History {
    kind: Kind,
    live: Value,
    managers: Managers,
    now: i64,
    /// Nobody writes a list or a map that is empty.
    is_full: bool,
}

/// A value without lists and maps that are empty, or would be then.
fn without_empties(value: Value) -> Value {
    let is_full = |value: &Value| match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    };
    match value {
        Value::Array(items) => {
            let items = items.into_iter().map(without_empties);
            items.filter(is_full).collect()
        }
        Value::Object(members) => {
            let members = members.into_iter();
            let members = members.map(|(name, value)| (name, without_empties(value)));
            Value::Object(members.filter(|(_, value)| is_full(value)).collect())
        }
        scalar => scalar,
    }
}

fn set(paths: &[&[&str]]) -> Set {
    Set::of(paths.iter().copied())
}

/// The main resource does not write the status, and the status nothing else.
fn reset(subresource: &str) -> Set {
    match subresource {
        "status" => set(&[&["spec"], &["metadata", "labels"], &["data"]]),
        _ => set(&[&["status"]]),
    }
}

fn with_write<R>(
    history: &History,
    manager: &str,
    subresource: &str,
    run: impl FnOnce(&Write<'_>) -> R,
) -> R {
    run(&Write {
        api_version: &history.kind.gvk.api_version(),
        structure: history.kind.structure(),
        versions: &One,
        reset: &reset(subresource),
        only: None,
        manager,
        subresource,
        now: jiff::Timestamp::from_second(history.now).unwrap(),
    })
}

/// What of an object anybody may manage.
fn manageable(fields: Set) -> Set {
    let mut unmanaged = set(&[&["apiVersion"], &["kind"], &["metadata"]]);
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        unmanaged = unmanaged.union(set(&[&["metadata", name]]));
    }
    fields.difference(&unmanaged)
}

/// Whether an object has a field, empty or not, or Kubernetes' own encoding would show it.
fn is_there(value: &Value, path: &[PathElement], of: Node<'_>) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return true;
    };
    let mut items = value.as_array().into_iter().flatten();
    match first {
        PathElement::Field(name) => {
            let field = of.field(name);
            match value.get(&**name) {
                Some(below) => is_there(below, rest, field.node),
                // Of a list or a map of which nothing is left, whoever had it still has it whole.
                None if rest.is_empty() => {
                    field.always || !matches!(field.node.shape(None), Shape::Scalar)
                }
                None => is_there(&Value::Null, rest, field.node),
            }
        }
        PathElement::Key(keys) => items
            .filter(|item| {
                keys.iter()
                    .all(|(key, value)| item.get(&**key).is_none_or(|of| of == value))
            })
            .any(|item| is_there(item, rest, of.inner())),
        PathElement::Value(value) => items.any(|item| item == value),
        PathElement::Index(_) => false,
    }
}

impl History {
    fn apply(
        &self,
        config: &Value,
        manager: &str,
        subresource: &str,
        force: bool,
    ) -> Result<Applied, Error> {
        with_write(self, manager, subresource, |write| {
            let (live, managers) = (self.live.clone(), self.managers.clone());
            managed::apply(live, config, managers, write, force)
        })
    }

    fn applier(manager: &str, subresource: &str) -> Manager {
        Manager {
            name: manager.to_owned(),
            operation: Operation::Apply,
            api_version: String::new(),
            subresource: subresource.to_owned(),
        }
    }

    /// What is written of something that was drawn.
    fn written(&self, drawn: Value) -> Value {
        if self.is_full {
            without_empties(drawn)
        } else {
            drawn
        }
    }

    fn accept(&mut self, applied: Applied) {
        self.live = without_nulls(applied.object);
        self.managers = applied.managers;
    }

    /// A comparison of what a configuration mentions tells all that merging it changes.
    fn changes_what_is_mentioned(&self, config: &Value) {
        let (live, structure) = (&self.live, self.kind.structure());
        let merged = merge(live.clone(), config, structure).unwrap();
        let part = |object: &Value| mentioned(object, config, structure);
        let (before, after) = (part(live), part(&merged));
        let diff = |old, new| compare(old, new, structure, Whole::OLD).unwrap();
        let what = format!("{config} to {live}");
        assert_eq!(diff(&before, &after), diff(live, &merged), "{what}");
        let unchanged = path::equal(live, &merged);
        assert_eq!(path::equal(&before, &after), unchanged, "{what}");
    }

    /// A configuration, and what must be so whether or not it is taken.
    fn applies(&mut self, draw: &mut Draw<'_>) {
        let manager = *draw.pick(&["x", "y", "z"]);
        let subresource = if draw.once_in(5) { "status" } else { "" };
        let structure = self.kind.structure();
        let config = match draw.below(6) {
            0 => json!({"apiVersion": self.kind.gvk.api_version(), "kind": self.kind.gvk.kind}),
            1 => self.kind.object(draw),
            _ => self.kind.tidy_object(draw),
        };
        let config = self.written(config);
        let sound = validate(&config, structure, false).is_empty()
            && validate(&self.live, structure, true).is_empty();
        let what = format!("{config} by {manager} to {}", self.live);
        if sound {
            self.changes_what_is_mentioned(&config);
        }
        let applied = match self.apply(&config, manager, subresource, false) {
            Err(Error::Config(_) | Error::Live(_)) => return assert!(!sound, "{what}"),
            Ok(applied) => applied,
            Err(Error::Conflicts(conflicts)) => {
                let fields = conflicts.fields();
                assert!(!fields.is_empty());
                for conflict in &conflicts.0 {
                    assert!(
                        conflict.manager != Self::applier(manager, subresource),
                        "{what}: {conflicts}"
                    );
                    let entry = self.managers.get(&conflict.manager);
                    // Who had it before anybody applied has no entry yet.
                    let known = entry.is_none_or(|entry| entry.fields.contains(&conflict.path));
                    assert!(known, "{what}: {conflicts}");
                }
                let forced = self.apply(&config, manager, subresource, true).unwrap();
                for (other, entry) in forced.managers.iter() {
                    let kept = entry.fields.intersection(&fields);
                    assert!(
                        *other == Self::applier(manager, subresource) || kept.is_empty(),
                        "{what}: {other} keeps {}",
                        kept.to_json()
                    );
                }
                forced
            }
        };
        let own = applied.managers.get(&Self::applier(manager, subresource));
        let own = own.map(|entry| entry.fields.clone()).unwrap_or_default();
        let said = manageable(
            field_set(&config, structure)
                .unwrap()
                .recursive_difference(&reset(subresource)),
        );
        assert_eq!(own.to_json(), said.to_json(), "{what}");
        self.accept(applied);
        self.now += 1;
        if !self.is_full {
            return;
        }
        // The same once more changes nothing, its time neither.
        let again = self.apply(&config, manager, subresource, false);
        let again = again.unwrap_or_else(|error| panic!("{what} again: {error}"));
        assert_eq!(without_nulls(again.object), self.live, "{what} again");
        // An object that nobody manages is one that nobody has applied yet: it begins anew.
        if self.managers.iter().next().is_some() {
            assert_eq!(again.managers, self.managers, "{what} again");
        }
    }

    /// A write that is no apply.
    fn updates(&mut self, draw: &mut Draw<'_>) {
        let manager = *draw.pick(&["x", "u", ""]);
        let change = self.kind.tidy_object(draw);
        let mut new = match draw.below(3) {
            0 => change,
            _ => merge_patch(self.live.clone(), &change),
        };
        // A write of the object leaves its status as it is.
        if let Some(members) = new.as_object_mut() {
            match self.live.get("status") {
                Some(status) => members.insert("status".to_owned(), status.clone()),
                None => members.remove("status"),
            };
        }
        let new = self.written(new);
        let (structure, old) = (self.kind.structure(), self.live.clone());
        let mut managers = self.managers.clone();
        let outcome = with_write(self, manager, "", |write| {
            managed::update(&mut managers, &old, &new, write)
        });
        let what = format!("{new} by {manager} to {old}");
        let changed = match (outcome, compare(&old, &new, structure, Whole::BOTH)) {
            (Ok(()), Ok(changed)) => changed,
            _ => {
                let sound = validate(&new, structure, true).is_empty()
                    && validate(&old, structure, true).is_empty();
                return assert!(!sound, "{what}");
            }
        };
        let taken =
            manageable(changed.modified.union(changed.added)).recursive_difference(&reset(""));
        let tracked = !self.managers.is_empty() || old["metadata"]["uid"].is_null();
        let writer = if manager.is_empty() {
            "unknown"
        } else {
            manager
        };
        for (other, entry) in managers.iter() {
            let mine = other.name == writer
                && other.operation == Operation::Update
                && other.subresource.is_empty();
            let both = entry.fields.intersection(&taken);
            if mine {
                assert_eq!(both.to_json(), taken.to_json(), "{what}");
            } else if tracked && other.name != "ancient-changes" {
                assert!(both.is_empty(), "{what}: {other} keeps {}", both.to_json());
            }
        }
        self.live = new;
        self.managers = managers;
    }

    /// Nobody has what is not there, and what is written of managers is read as it was.
    fn check(&self) {
        for (manager, entry) in self.managers.iter() {
            let mut gone = Vec::new();
            entry.fields.each(&mut |path| {
                if !is_there(&self.live, path, self.kind.structure()) {
                    gone.push(path.iter().map(PathElement::to_string).collect::<String>());
                }
            });
            let known = gone.is_empty() || !self.is_full;
            assert!(known, "{manager} has {gone:?} of {}", self.live);
            let read = Set::from_fields(&entry.fields.to_fields()).unwrap();
            assert_eq!(read, entry.fields);
            let text: Value = serde_json::from_str(&entry.fields.to_json()).unwrap();
            assert_eq!(text, entry.fields.to_fields());
            let text = entry.fields.to_text();
            assert_eq!(text, entry.fields.to_fields().to_string());
            assert_eq!(Set::from_text(&text).unwrap(), entry.fields);
        }
        let written = self.managers.clone().write().unwrap_or_default();
        assert_eq!(Managers::read(&written).unwrap(), self.managers);
        let written = self.managers.clone().write_text().unwrap_or_default();
        assert_eq!(Managers::read_text(&written).unwrap(), self.managers);
    }
}

fn writes(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let mut history = History {
        kind: Kind::draw(&mut draw),
        live: Value::Object(Map::new()),
        managers: Managers::default(),
        now: 1,
        is_full: draw.once_in(2),
    };
    for _ in 0..=draw.below(6) {
        match draw.below(3) {
            0 => history.updates(&mut draw),
            _ => history.applies(&mut draw),
        }
        history.check();
    }
}

/// What clients send as managed fields.
fn fields(bytes: &[u8]) {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "{}",
        ":",
        ",",
        "\"f:a\"",
        "\"f:\"",
        "\".\"",
        "\"v:1\"",
        "\"v:\\\"a\\\"\"",
        "\"i:0\"",
        "\"i:-1\"",
        "\"i:x\"",
        "\"k:{\\\"a\\\":1}\"",
        "\"k:{}\"",
        "\"k:[]\"",
        "\"k:\"",
        "\"x:y\"",
        "\"ff:\"",
        "\"\"",
        "[]",
        "null",
    ];
    let text = text_of(bytes, WORDS);
    if let Ok(value) = serde_json::from_str::<Value>(&text) {
        let read = Set::from_text(&value.to_string());
        assert_eq!(read.ok(), Set::from_fields(&value).ok(), "{text}");
    }
    if let Ok(value) = serde_json::from_str::<Value>(&text)
        && let Ok(set) = Set::from_fields(&value)
    {
        let again = Set::from_fields(&set.to_fields()).unwrap();
        assert_eq!(again, set, "{text}");
        assert_eq!(
            serde_json::from_str::<Value>(&set.to_json()).unwrap(),
            set.to_fields(),
            "{text}"
        );
        assert_eq!(set.to_text(), set.to_fields().to_string(), "{text}");
    }
    if let Ok(Some(element)) = PathElement::parse(&text) {
        let again = PathElement::parse(&element.serialize()).unwrap().unwrap();
        assert_eq!(again, element, "{text}");
    }
}

#[test]
fn server_side_apply() {
    fuzz!(writes);
}

#[test]
fn managed_fields() {
    fuzz!(fields);
}
