//! What an apply makes of an object and of its managers.

use serde_json::Value;

use super::{
    Comparisons, Conflicts, Entry, Managers, Operation, Write, last_applied, reconcile, settle,
    unmanaged, update,
};
use crate::apply::{Set, TypeError, Whole, field_set, mentioned, merge, path, remove, validate};

/// The manager of what an object had before anybody managed it.
const BEFORE: &str = "before-first-apply";

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// It would take fields from others.
    #[error("{0}")]
    Conflicts(Conflicts),
    /// A list or a map of the configuration is malformed.
    #[error("failed to create typed patch object: {0}")]
    Config(TypeError),
    /// A list or a map of the object is malformed.
    #[error("failed to create typed live object: {0}")]
    Live(TypeError),
}

/// What came of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object, without managedFields.
    pub object: Value,
    /// Its managers.
    pub managers: Managers,
}

/// Applies a configuration to an object, which is empty where there is none; neither has
/// managedFields.
///
/// # Errors
/// Conflicts, and what is malformed.
pub fn apply(
    live: Value,
    config: &Value,
    mut managers: Managers,
    write: &Write<'_>,
    force: bool,
) -> Result<Applied, Error> {
    if let Some(error) = validate(config, write.structure, false).into_iter().next() {
        return Err(Error::Config(error));
    }
    if let Some(error) = validate(&live, write.structure, true).into_iter().next() {
        return Err(Error::Live(error));
    }
    if managers.is_empty() {
        let before = Write {
            manager: BEFORE,
            subresource: write.subresource,
            ..*write
        };
        let nothing = Value::Object(serde_json::Map::new());
        update::give(&mut managers, &nothing, &live, &before).map_err(Error::Live)?;
    }
    if write.manager != last_applied::KUBECTL {
        return attempt(live, config, managers, write, force);
    }
    let applied = match attempt(live.clone(), config, managers.clone(), write, force) {
        Err(Error::Conflicts(conflicts)) => match last_applied::not_own(&live, write, conflicts) {
            None => attempt(live, config, managers, write, true)?,
            Some(conflicts) => return Err(Error::Conflicts(conflicts)),
        },
        other => other?,
    };
    Ok(Applied {
        object: last_applied::refreshed(applied.object, config),
        managers: applied.managers,
    })
}

fn attempt(
    live: Value,
    config: &Value,
    mut managers: Managers,
    write: &Write<'_>,
    force: bool,
) -> Result<Applied, Error> {
    reconcile(&mut managers, write);
    let fields = field_set(config, write.structure).map_err(Error::Config)?;
    let fields = write.changeable(fields);
    let writer = write.who(Operation::Apply);
    let last = managers.remove(&writer);
    let entry = Entry {
        api_version: write.api_version.to_owned(),
        fields,
        time: last.as_ref().and_then(|last| last.time),
    };
    // Most applies drop nothing of what the writer applied last time, and there is nothing to prune
    // then. A configuration has the keys and items above whatever it has below them, so what is in
    // both sets stays with all that is above it.
    let drops = |last: &&Entry| {
        let same = last.api_version == entry.api_version;
        let keeps = same && last.fields.is_subset(&entry.fields);
        !(last.fields.is_empty() || keeps)
    };
    let dropping = last.as_ref().filter(drops);
    managers.insert(writer.clone(), entry);
    // Where nothing is pruned, nothing changes but what the configuration speaks of: the rest is
    // neither kept for comparison nor compared. Only whole objects can be converted to versions in
    // which others manage them.
    let in_part = dropping.is_none()
        && managers
            .iter()
            .all(|(_, entry)| entry.api_version == write.api_version);
    let before = if in_part {
        mentioned(&live, config, write.structure)
    } else {
        live.clone()
    };
    let merged = merge(live, config, write.structure).map_err(Error::Config)?;
    let object = match dropping {
        Some(last) => prune(merged, &managers, last, write).map_err(Error::Live)?,
        None => merged,
    };
    let part;
    let after = if in_part {
        part = mentioned(&object, config, write.structure);
        &part
    } else {
        &object
    };
    let mut comparisons = Comparisons::new(write, &before, after, Whole::OLD);
    settle(&mut managers, &mut comparisons, Some(&writer), force)
        .map_err(Error::Live)?
        .map_err(Error::Conflicts)?;
    if let Some(mut entry) = managers.remove(&writer) {
        entry.fields = entry.fields.difference(unmanaged());
        let same = last.is_some_and(|last| {
            last.fields == entry.fields && last.api_version == entry.api_version
        });
        if !same || !path::equal(&before, after) {
            entry.time = Some(write.now);
        }
        if !entry.fields.is_empty() {
            managers.insert(writer, entry);
        }
    }
    Ok(Applied { object, managers })
}

/// Removes what the writer applied last time and not this time, unless another has it.
fn prune(
    merged: Value,
    managers: &Managers,
    last: &Entry,
    write: &Write<'_>,
) -> Result<Value, TypeError> {
    let version = last.api_version.as_str();
    let Some(structure) = write.structure_of(version) else {
        return Ok(merged);
    };
    let Some(merged_then) = write.convert(&merged, version) else {
        return Ok(merged);
    };
    let last_fields = last.fields.clone().with_named_fields(structure);
    let pruned = remove(merged_then.clone(), &last_fields, structure);
    let pruned = add_back_owned(&merged_then, pruned, version, managers, write)?;
    // What nobody applied is not pruned either, though it lies below what is.
    let kept = field_set(&pruned, structure)?.with_named_fields(structure);
    let doomed = field_set(&merged_then, structure)?
        .with_named_fields(structure)
        .difference(&kept)
        .intersection(&last_fields);
    let pruned = remove(merged_then, &doomed, structure);
    let to = write.api_version;
    if to == version {
        return Ok(pruned);
    }
    Ok(write
        .versions
        .convert(&pruned, version, to)
        .unwrap_or(merged))
}

/// Puts back what was pruned but somebody has.
fn add_back_owned(
    merged: &Value,
    pruned: Value,
    version: &str,
    managers: &Managers,
    write: &Write<'_>,
) -> Result<Value, TypeError> {
    let mut by_version: std::collections::BTreeMap<&str, Set> = std::collections::BTreeMap::new();
    for (_, entry) in managers.iter() {
        let fields = by_version.entry(&entry.api_version).or_default();
        *fields = std::mem::take(fields).union(entry.fields.clone());
    }
    // The version that is pruned comes first: others may not convert without what it has.
    let mut versions: Vec<(&str, Set)> = by_version.into_iter().collect();
    versions.sort_by_key(|(other, _)| *other != version);
    let mut current = pruned;
    for (other, owned) in versions {
        let Some(structure) = write.structure_of(other) else {
            continue;
        };
        let convert = |object: &Value, from: &str, to: &str| {
            if from == to {
                Some(object.clone())
            } else {
                write.versions.convert(object, from, to)
            }
        };
        let (Some(merged), Some(pruned)) = (
            convert(merged, version, other),
            convert(&current, version, other),
        ) else {
            continue;
        };
        let kept = field_set(&pruned, structure)?
            .with_named_fields(structure)
            .union(owned.with_named_fields(structure));
        let doomed = field_set(&merged, structure)?
            .with_named_fields(structure)
            .difference(&kept);
        let added = remove(merged, &doomed, structure);
        if let Some(added) = convert(&added, other, version) {
            current = added;
        }
    }
    Ok(current)
}
