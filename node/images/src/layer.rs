//! Reads a layer's archive with care.
//!
//! Layers are streams that nobody vouches for: what is decompressed is bounded, by what all layers
//! may have and by what a blob of its size may hold ([`Expansion`]); so are the number of entries and
//! the size of names and extended headers, and the digest of the whole archive (the diff ID of the
//! OCI image specification) is computed while it passes. What an entry means is the caller's: this
//! module only says what the archive says.
//!
//! Deliberately absent: sparse files, which no tool that builds images writes, and paths on the
//! host.

mod decode;
mod header;

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use tar::EntryType;

use crate::{ContentStore, Digest, media_types};
use decode::Decoded;
use header::Extended;

/// Why a layer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The image is at fault; the message says how.
    #[error("{0}")]
    Image(String),
    /// The disk is.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl LayerError {
    /// Whether the disk has no room.
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::StorageFull)
    }
}

/// What layers may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes after decompression.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// How much larger than its blob a layer may be.
    pub expansion: Expansion,
}

/// How much larger than its blob the archive of one layer may be: one that is more than that is made
/// to fill disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expansion {
    /// Bytes that every layer may have. Files of zeros compress a thousandfold, and honest layers hold
    /// some: databases and disks that are still empty.
    pub allowance: u64,
    /// Where it has more, how many times its blob. Programs and texts compress to a tenth, the most
    /// repetitive logs to a hundredth.
    pub ratio: u64,
}

impl Expansion {
    /// Bytes that the archive in a blob of that size may have.
    fn most(self, blob: u64) -> u64 {
        blob.saturating_mul(self.ratio).max(self.allowance)
    }
}

/// A file, folder or other entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path as it stands there.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permissions, with the set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change: seconds after 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// Extended attributes, by name.
    pub attributes: Vec<(String, Vec<u8>)>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file, with so many bytes of content.
    File(u64),
    /// A folder.
    Folder,
    /// A symbolic link, and where it leads.
    Symlink(PathBuf),
    /// Another name of the file of that path.
    Link(PathBuf),
    /// A character device, by major and minor number.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Reads the layer of that digest, and hands each entry to `each` with its content; ends early
/// when that says so. Returns the digest of the archive if it was read to its end. Blocks.
pub fn read<E: From<LayerError>>(
    store: &ContentStore,
    digest: &Digest,
    media_type: &str,
    budget: &mut Budget,
    mut each: impl FnMut(Entry, &mut dyn Read) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Digest>, E> {
    if !media_types::is_archive(media_type) {
        return Err(LayerError::Image(format!(
            "layers of type {media_type:?} cannot be read; push the image with layers of gzip or zstd"
        ))
        .into());
    }
    let damaged = |error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => LayerError::Image(error.to_string()),
        _ => LayerError::Image(format!("layer {digest} is damaged: {error}")),
    };
    let file = std::fs::File::open(store.blob_path(digest)).map_err(LayerError::Io)?;
    let blob = file.metadata().map_err(LayerError::Io)?.len();
    let most = budget.expansion.most(blob);
    let mut decoded = Decoded::new(file, most, &mut budget.bytes).map_err(damaged)?;
    let mut archive = tar::Archive::new(&mut decoded);
    let mut extended = Extended::default();
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        budget.entries = budget.entries.checked_sub(1).ok_or_else(|| {
            LayerError::Image("the image's layers have more entries than allowed".into())
        })?;
        if extended.take(&mut entry).map_err(damaged)? {
            continue;
        }
        let described = describe(entry.header(), std::mem::take(&mut extended));
        let Some(described) = described.map_err(damaged)? else {
            continue;
        };
        if each(described, &mut entry)?.is_break() {
            return Ok(None);
        }
    }
    // The digest is of all that is there, also of what follows the archive's end.
    io::copy(&mut decoded, &mut io::sink()).map_err(damaged)?;
    Ok(Some(decoded.digest()))
}

/// What a header says; none for kinds that mean nothing in an image.
fn describe(header: &tar::Header, extended: Extended) -> io::Result<Option<Entry>> {
    let size = header.entry_size()?;
    if extended.size.is_some_and(|other| other != size) {
        return Err(io::Error::other("an entry has two sizes"));
    }
    let path = extended
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let link = || {
        let own = header.link_name_bytes().map(|name| name.into_owned());
        let target = extended.link.clone().or(own);
        let target = target.ok_or_else(|| io::Error::other("a link leads nowhere"))?;
        Ok::<_, io::Error>(path_of(target))
    };
    let device = || {
        let major = header.device_major()?.unwrap_or(0);
        Ok::<_, io::Error>((major, header.device_minor()?.unwrap_or(0)))
    };
    let kind = match header.entry_type() {
        // Before there was a kind for folders, a slash at the end meant one.
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => EntryKind::Folder,
        EntryType::Regular | EntryType::Continuous => EntryKind::File(size),
        EntryType::Directory => EntryKind::Folder,
        EntryType::Symlink => EntryKind::Symlink(link()?),
        EntryType::Link => EntryKind::Link(link()?),
        EntryType::Char => {
            let (major, minor) = device()?;
            EntryKind::Character(major, minor)
        }
        EntryType::Block => {
            let (major, minor) = device()?;
            EntryKind::Block(major, minor)
        }
        EntryType::Fifo => EntryKind::Fifo,
        EntryType::GNUSparse => return Err(io::Error::other("sparse files are not supported")),
        _ => return Ok(None),
    };
    let id = |given: Option<u64>, own: u64| {
        u32::try_from(given.unwrap_or(own))
            .map_err(|_| io::Error::other("a user's id is too large"))
    };
    let fields = header.as_old();
    let (uid, gid) = (
        number(header.uid(), &fields.uid)?,
        number(header.gid(), &fields.gid)?,
    );
    let mode = number(header.mode().map(u64::from), &fields.mode)?;
    Ok(Some(Entry {
        path: path_of(path),
        kind,
        mode: (mode & 0o7777) as u32,
        uid: id(extended.uid, uid)?,
        gid: id(extended.gid, gid)?,
        modified: match extended.modified {
            Some(modified) => modified,
            None => {
                let seconds = number(header.mtime(), &fields.mtime)?;
                (i64::try_from(seconds).unwrap_or(0), 0)
            }
        },
        attributes: extended.attributes,
    }))
}

/// A number of a header; a field in which nothing stands is 0, as in other programs.
fn number(read: io::Result<u64>, field: &[u8]) -> io::Result<u64> {
    match field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        true => Ok(0),
        false => read,
    }
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests;
