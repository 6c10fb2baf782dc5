//! Takes one file out of an image's layers, without unpacking them.
//!
//! The layers are read with the care of [`layer`]; nothing is written but the one file, and paths
//! are compared as text and never resolved on the host.
//!
//! Deliberately absent: symbolic links among the file's parent folders.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::classify::Layer;
use crate::layer::{self, Budget, EntryKind, LayerError};
use crate::unpack::EXPANSION;
use crate::{ContentStore, Digest};

/// Entries of all layers together.
const ENTRY_LIMIT: u64 = 4 << 20;

/// Links from file to file that are followed.
const LINK_LIMIT: usize = 8;

/// Bytes of a path, as the system takes it. What hides a file is looked for by a name for each folder
/// above it: of a longer path the names of all would not fit into memory.
const PATH_LIMIT: usize = 4096;

/// Finds `path` in the file system that `layers` make and puts its content into the store.
/// Blocks.
pub(crate) fn extract(
    store: &ContentStore,
    layers: &[Layer],
    path: &str,
    file_limit: u64,
    unpacked_limit: u64,
) -> Result<Digest, LayerError> {
    let mut wanted = normalize(path);
    let mut budget = Budget {
        bytes: unpacked_limit,
        entries: ENTRY_LIMIT,
        expansion: EXPANSION,
    };
    for _ in 0..LINK_LIMIT {
        if wanted.len() > PATH_LIMIT {
            return Err(LayerError::Image(format!(
                "the image's entrypoint is a path of more than {PATH_LIMIT} bytes"
            )));
        }
        let mut found = Found::Nothing;
        for layer in layers.iter().rev() {
            found = search(store, layer, &wanted, file_limit, &mut budget)?;
            if !matches!(found, Found::Nothing) {
                break;
            }
        }
        match found {
            Found::File(digest) => return Ok(digest),
            Found::Link(target) => wanted = target,
            Found::Nothing | Found::Removed => {
                return Err(LayerError::Image(format!(
                    "the image's entrypoint {path} is not in its layers"
                )));
            }
        }
    }
    Err(LayerError::Image(format!(
        "the image's entrypoint {path} is a chain of more than {LINK_LIMIT} links"
    )))
}

enum Found {
    File(Digest),
    Link(String),
    Removed,
    Nothing,
}

fn search(
    store: &ContentStore,
    layer: &Layer,
    wanted: &str,
    file_limit: u64,
    budget: &mut Budget,
) -> Result<Found, LayerError> {
    let removals = whiteouts(wanted);
    let mut removed = false;
    let mut found = None;
    layer::read::<LayerError>(
        store,
        &layer.digest,
        &layer.media_type,
        budget,
        |entry, content| {
            let name = normalize(&entry.path.to_string_lossy());
            removed |= removals.contains(&name);
            if name != wanted {
                return Ok(ControlFlow::Continue(()));
            }
            found = Some(match entry.kind {
                EntryKind::File(_) => {
                    let mut writer = store.writer(file_limit)?;
                    let mut buffer = vec![0; 64 << 10];
                    loop {
                        let n = content.read(&mut buffer).map_err(|error| {
                            LayerError::Image(format!("layer {} is damaged: {error}", layer.digest))
                        })?;
                        if n == 0 {
                            break;
                        }
                        writer.write(&buffer[..n])?;
                    }
                    Found::File(writer.finish()?)
                }
                EntryKind::Symlink(target) if target.is_absolute() => {
                    Found::Link(normalize(&target.to_string_lossy()))
                }
                EntryKind::Symlink(target) => {
                    let folder = wanted.rsplit_once('/').map_or("", |(folder, _)| folder);
                    Found::Link(normalize(&format!("{folder}/{}", target.display())))
                }
                EntryKind::Link(target) => Found::Link(normalize(&target.to_string_lossy())),
                _ => {
                    return Err(LayerError::Image(format!(
                        "the image's entrypoint /{wanted} is no file"
                    )));
                }
            });
            Ok(ControlFlow::Break(()))
        },
    )?;
    Ok(match found {
        Some(found) => found,
        // A whiteout hides what lower layers have, not what this one adds.
        None if removed => Found::Removed,
        None => Found::Nothing,
    })
}

/// Names in a layer that hide the file in the layers below (OCI image layer specification).
fn whiteouts(wanted: &str) -> HashSet<String> {
    let mut names = HashSet::new();
    let mut path = wanted;
    loop {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let inside = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        names.insert(format!("{inside}.wh.{name}"));
        names.insert(format!("{inside}.wh..wh..opq"));
        if folder.is_empty() {
            return names;
        }
        path = folder;
    }
}

/// Without leading slash, empty components and dots; `..` never leaves the root.
fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests;
