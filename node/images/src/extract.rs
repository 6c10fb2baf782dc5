//! Takes one file out of an image's layers, without unpacking them.
//!
//! The layers are streams from a registry that nobody vouches for: what is decompressed is
//! bounded, names and extended headers are bounded, nothing is written but the one file, and
//! paths are compared as text and never resolved on the host.
//!
//! Deliberately absent: symbolic links among the file's parent folders, and zstd.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};

use tar::EntryType;

use crate::classify::Layer;
use crate::{ContentStore, Digest, media_types};

/// Bytes of a long name or an extended header in an archive.
const NAME_LIMIT: u64 = 64 << 10;

/// Links from file to file that are followed.
const LINK_LIMIT: usize = 8;

/// Why the file was not extracted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtractError {
    #[error("{0}")]
    Image(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Finds `path` in the file system that `layers` make and puts its content into the store.
/// Blocks.
pub(crate) fn extract(
    store: &ContentStore,
    layers: &[Layer],
    path: &str,
    file_limit: u64,
    unpacked_limit: u64,
) -> Result<Digest, ExtractError> {
    let mut wanted = normalize(path);
    let mut budget = unpacked_limit;
    for _ in 0..LINK_LIMIT {
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
                return Err(ExtractError::Image(format!(
                    "the image's entrypoint {path} is not in its layers"
                )));
            }
        }
    }
    Err(ExtractError::Image(format!(
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
    budget: &mut u64,
) -> Result<Found, ExtractError> {
    let file = File::open(store.blob_path(&layer.digest))?;
    let decoded: Box<dyn Read> = match layer.media_type.as_str() {
        media_types::OCI_LAYER | media_types::DOCKER_LAYER => Box::new(file),
        media_types::OCI_LAYER_GZIP | media_types::DOCKER_LAYER_GZIP => Box::new(
            flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(64 << 10, file)),
        ),
        other => {
            return Err(ExtractError::Image(format!(
                "layers of type {other:?} cannot be read; push the image with gzip layers"
            )));
        }
    };
    let bounded = Bounded {
        inner: decoded,
        budget,
    };
    let mut archive = tar::Archive::new(bounded);
    let removals = whiteouts(wanted);
    let mut removed = false;
    let mut long_name = None;
    let damaged = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => ExtractError::Image(error.to_string()),
        _ => ExtractError::Image(format!("layer {} is damaged: {error}", layer.digest)),
    };
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                long_name = Some(read_name(&mut entry).map_err(damaged)?);
                continue;
            }
            EntryType::XHeader => {
                let bytes = read_name(&mut entry).map_err(damaged)?;
                long_name = pax_path(&bytes).or(long_name);
                continue;
            }
            EntryType::GNULongLink | EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let name = match long_name.take() {
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let name = normalize(&String::from_utf8_lossy(&name));
        removed |= removals.contains(&name);
        if name != wanted {
            continue;
        }
        let link = entry.link_name_bytes();
        let link = link.map(|target| String::from_utf8_lossy(&target).into_owned());
        return match (kind, link) {
            (EntryType::Regular | EntryType::Continuous, _) => {
                let mut writer = store.writer(file_limit)?;
                let mut buffer = vec![0; 64 << 10];
                loop {
                    match entry.read(&mut buffer).map_err(damaged)? {
                        0 => break,
                        n => writer.write(&buffer[..n])?,
                    }
                }
                Ok(Found::File(writer.finish()?))
            }
            (EntryType::Symlink, Some(target)) if target.starts_with('/') => {
                Ok(Found::Link(normalize(&target)))
            }
            (EntryType::Symlink, Some(target)) => {
                let folder = wanted.rsplit_once('/').map_or("", |(folder, _)| folder);
                Ok(Found::Link(normalize(&format!("{folder}/{target}"))))
            }
            (EntryType::Link, Some(target)) => Ok(Found::Link(normalize(&target))),
            _ => Err(ExtractError::Image(format!(
                "the image's entrypoint /{wanted} is no file"
            ))),
        };
    }
    // A whiteout hides what lower layers have, not what this one adds.
    Ok(if removed {
        Found::Removed
    } else {
        Found::Nothing
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

fn read_name(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = Vec::new();
    entry.take(NAME_LIMIT + 1).read_to_end(&mut name)?;
    if name.len() as u64 > NAME_LIMIT {
        return Err(io::Error::other("a name is too long"));
    }
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn pax_path(bytes: &[u8]) -> Option<Vec<u8>> {
    tar::PaxExtensions::new(bytes)
        .filter_map(Result::ok)
        .find(|extension| extension.key_bytes() == b"path")
        .map(|extension| extension.value_bytes().to_vec())
}

/// Ends a stream with an error when it is longer than the budget.
struct Bounded<'a> {
    inner: Box<dyn Read>,
    budget: &'a mut u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        *self.budget = self.budget.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the image's layers are larger than allowed when unpacked",
            )
        })?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
