//! What a write that is no apply makes of the managers.

use serde_json::Value;

use super::{Comparisons, Entry, Managers, Operation, Write, reconcile, settle, unmanaged};
use crate::apply::{TypeError, Whole};

/// Gives the writer what it changed, and takes it from those that had it. The objects are without
/// managedFields; the old one of a creation is an empty object.
///
/// # Errors
/// Where the items of a list cannot be told apart: the managers as they were then still hold.
pub fn update(
    managers: &mut Managers,
    old: &Value,
    new: &Value,
    write: &Write<'_>,
) -> Result<(), TypeError> {
    if managers.is_empty() && !old["metadata"]["uid"].is_null() {
        // Somebody asked to forget the managers: nobody is tracked until the next apply.
        return Ok(());
    }
    give(managers, old, new, write)?;
    managers.cap();
    Ok(())
}

/// The same without the bound on managers.
pub(super) fn give(
    managers: &mut Managers,
    old: &Value,
    new: &Value,
    write: &Write<'_>,
) -> Result<(), TypeError> {
    reconcile(managers, write);
    let mut comparisons = Comparisons::new(write, old, new, Whole::BOTH);
    // Forced, there are no conflicts.
    if settle(managers, &mut comparisons, None, true)?.is_err() {
        return Ok(());
    }
    if let Some(comparison) = comparisons.into_written()? {
        take(managers, comparison, write);
    }
    Ok(())
}

fn take(managers: &mut Managers, comparison: crate::apply::Comparison, write: &Write<'_>) {
    let fields = comparison
        .modified
        .union(comparison.added)
        .difference(unmanaged());
    if fields.is_empty() {
        return;
    }
    let writer = write.who(Operation::Update);
    let before = managers.remove(&writer);
    let fields = match before {
        Some(before) => before.fields.union(fields),
        None => fields,
    };
    let entry = Entry {
        api_version: write.api_version.to_owned(),
        fields,
        time: Some(write.now),
    };
    managers.insert(writer, entry);
}
