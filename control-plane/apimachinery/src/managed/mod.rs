//! Who manages which field of an object: `metadata.managedFields`, and server-side apply.
//!
//! A manager has fields by an *update*, which is every write that is no apply and gives it what
//! it changed, or by an *apply*, which gives it what its configuration says. Two who apply the
//! same value share a field. An apply that would change a field of somebody else is a
//! [`Conflict`], unless it is forced; an update takes what it changes. What an applier no longer
//! says is removed if nobody else has it.
//!
//! | module | does |
//! |---|---|
//! | [`entries`] | the managers of an object, read and written |
//! | [`update`] | what a write that is no apply makes of them |
//! | [`apply`] | what an apply makes of them and of the object |
//! | [`last_applied`] | objects that kubectl applied on its own side before |
//!
//! Source: the Kubernetes documentation of server-side apply, and KEP-555.

pub mod apply;
mod conflict;
pub mod entries;
pub mod last_applied;
pub mod update;

use serde_json::Value;

pub use apply::{Applied, Error, apply};
pub use conflict::{Conflict, Conflicts};
pub use entries::{Entry, Manager, Managers, Operation};
pub use update::update;

use crate::apply::{Comparison, Set, TypeError, Whole, compare};
use crate::schema::Node;

/// Objects in the versions that their managers know them by.
pub trait Versions {
    /// The type of an object in a version; `None` where the version is not served.
    fn structure(&self, api_version: &str) -> Option<Node<'_>>;

    /// The object in another version.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
}

/// What is written, and how.
pub struct Write<'a> {
    /// The version in which the object is written.
    pub api_version: &'a str,
    /// The type of the object in that version.
    pub structure: Node<'a>,
    /// The other versions.
    pub versions: &'a dyn Versions,
    /// Fields that the write cannot change, and so gives nobody.
    pub reset: &'a Set,
    /// The only fields that the write can change, where they are few: paths, of which `*` is any
    /// item.
    pub only: Option<&'a [&'a [&'a str]]>,
    /// Name of the manager.
    pub manager: &'a str,
    /// The subresource by which is written; empty for the object itself.
    pub subresource: &'a str,
    /// The present.
    pub now: jiff::Timestamp,
}

impl Write<'_> {
    /// Of these fields those that the write can change.
    fn changeable(&self, fields: Set) -> Set {
        match self.only {
            Some(paths) => fields.at_or_below(paths),
            None => fields.recursive_difference(self.reset),
        }
    }

    fn structure_of(&self, api_version: &str) -> Option<Node<'_>> {
        if api_version == self.api_version {
            Some(self.structure)
        } else {
            self.versions.structure(api_version)
        }
    }

    fn convert(&self, object: &Value, to: &str) -> Option<Value> {
        if to == self.api_version {
            Some(object.clone())
        } else {
            self.versions.convert(object, self.api_version, to)
        }
    }

    /// Who writes.
    fn who(&self, operation: Operation) -> Manager {
        let name = if self.manager.is_empty() {
            "unknown"
        } else {
            self.manager
        };
        Manager {
            name: name.to_owned(),
            operation,
            // Who applies is the same in every version.
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => self.api_version.to_owned(),
            },
            subresource: self.subresource.to_owned(),
        }
    }
}

/// The comparisons of two states of an object, in every version that is asked for.
struct Comparisons<'w, 'a> {
    write: &'w Write<'a>,
    old: &'w Value,
    new: &'w Value,
    whole: Whole,
    /// By version, of which there are few.
    done: Vec<(String, Option<Comparison>)>,
}

impl<'w, 'a> Comparisons<'w, 'a> {
    fn new(write: &'w Write<'a>, old: &'w Value, new: &'w Value, whole: Whole) -> Self {
        Self {
            write,
            old,
            new,
            whole,
            done: Vec::new(),
        }
    }

    /// `None` where the version is not served.
    fn of(&mut self, api_version: &str) -> Result<Option<&Comparison>, TypeError> {
        let known = self.done.iter().position(|(of, _)| of == api_version);
        let index = match known {
            Some(index) => index,
            None => {
                let comparison = self.compare(api_version)?;
                self.done.push((api_version.to_owned(), comparison));
                self.done.len() - 1
            }
        };
        Ok(self.done.get(index).and_then(|(_, done)| done.as_ref()))
    }

    /// The comparison in the version that is written.
    fn into_written(mut self) -> Result<Option<Comparison>, TypeError> {
        let version = self.write.api_version;
        match self.done.iter().position(|(of, _)| of == version) {
            Some(index) => Ok(self.done.swap_remove(index).1),
            None => self.compare(version),
        }
    }

    fn compare(&self, api_version: &str) -> Result<Option<Comparison>, TypeError> {
        let write = self.write;
        let Some(structure) = write.structure_of(api_version) else {
            return Ok(None);
        };
        let comparison = if api_version == write.api_version {
            compare(self.old, self.new, structure, self.whole)?
        } else {
            let convert = |object| write.convert(object, api_version);
            match (convert(self.old), convert(self.new)) {
                (Some(old), Some(new)) => compare(&old, &new, structure, Whole::BOTH)?,
                _ => return Ok(None),
            }
        };
        Ok(Some(comparison.map(|fields| write.changeable(fields))))
    }
}

/// Takes what changed from the managers that had it. Without `force` a manager that would lose a
/// field to a new value is a conflict.
fn settle(
    managers: &mut Managers,
    comparisons: &mut Comparisons<'_, '_>,
    writer: Option<&Manager>,
    force: bool,
) -> Result<Result<(), Conflicts>, TypeError> {
    let mut conflicts = Vec::new();
    let (mut gone, mut lost) = (Vec::new(), Vec::new());
    for (manager, entry) in managers.iter() {
        if Some(manager) == writer {
            continue;
        }
        let Some(comparison) = comparisons.of(&entry.api_version)? else {
            gone.push(manager.clone());
            continue;
        };
        let mut taken = entry.fields.intersection(&comparison.modified);
        taken = taken.union(entry.fields.intersection(&comparison.added));
        let removed = entry.fields.intersection(&comparison.removed);
        if !taken.is_empty() {
            taken.each(&mut |path| {
                conflicts.push(Conflict {
                    manager: manager.clone(),
                    path: path.to_vec(),
                });
            });
        }
        if !(taken.is_empty() && removed.is_empty()) {
            lost.push((manager.clone(), taken.union(removed)));
        }
    }
    if !force && !conflicts.is_empty() {
        return Ok(Err(Conflicts(conflicts)));
    }
    for (manager, fields) in lost {
        managers.subtract(&manager, &fields);
    }
    for manager in gone {
        managers.remove(&manager);
    }
    managers.drop_empty();
    Ok(Ok(()))
}

/// Forgets managers in versions that are not served, and makes the sets fit types that have
/// become atomic.
fn reconcile(managers: &mut Managers, write: &Write<'_>) {
    managers.retain(|entry| {
        let Some(structure) = write.structure_of(&entry.api_version) else {
            return false;
        };
        entry.fields = std::mem::take(&mut entry.fields).reconciled(structure);
        true
    });
}

/// Fields that nobody manages: every object has them, and only the server writes most of them.
fn unmanaged() -> &'static Set {
    static FIELDS: std::sync::LazyLock<Set> = std::sync::LazyLock::new(|| {
        let meta = [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ];
        let mut set = Set::of([&["apiVersion"][..], &["kind"], &["metadata"]]);
        for field in meta {
            set = set.union(Set::of([&["metadata", field][..]]));
        }
        set
    });
    &FIELDS
}

#[cfg(test)]
mod tests;
