//! Unpacks one layer over those below it.
//!
//! The folder into which it is unpacked shows the layers below: they were unpacked into it, or are
//! mounted there below what is written (overlays). So a layer finds the folders and links that it
//! builds on, and a whiteout is a removal. Names are the image's, and nothing of them leads out of
//! that folder ([`Root`]); what an overlay file system would take for its own marks is refused,
//! since in a lower layer it would act.
//!
//! Whoever runs programs of an image, as root, gets all that is in it. Whoever only reads its files
//! gets those ([`Keeps`]): what takes root to make, or would act on the machine, is left out.
//!
//! Deliberately absent: users' own id mappings, and sparse files.

mod root;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    linkat, lsetxattr, makedev, mkdirat, mknodat, openat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::layer::{self, Budget, Entry, EntryKind, Expansion, LayerError};
use crate::room::{self, Reserve, STEP, Watch};
use crate::{ContentStore, ImageLayer};

pub use root::Root;

/// Prefix of the names that say what a layer removes (OCI image layer specification).
const WHITEOUT: &[u8] = b".wh.";
/// The name that says that of a folder nothing below shows through.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an image may hold unpacked. Of bytes it is what fits on the disk, as long as no layer is much
/// larger than its blob.
pub const LIMITS: Budget = Budget {
    bytes: u64::MAX,
    entries: 4 << 20,
    expansion: EXPANSION,
};

/// How much larger than its blob a layer may be.
pub(crate) const EXPANSION: Expansion = Expansion {
    allowance: 4 << 30,
    ratio: 200,
};

/// Bytes that an entry takes of a disk beside its content, about.
const ENTRY: u64 = 4 << 10;

/// Bytes of all paths of one layer, which are in memory while it is unpacked. A layer of half a million
/// files has a tenth of that.
const PATHS: usize = 512 << 20;

/// What of a layer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// All: devices, owners, set-id bits and attributes. It takes root.
    Everything,
    /// Files, folders and links, which are whoever's that unpacks them, who may read all and go on
    /// writing; others may what their permissions say.
    Files,
}

/// Why what takes more room than an image may have is refused.
const TOO_LARGE: &str = "the image's layers are larger than allowed";

/// Unpacks a layer into `root` and checks that it is what the image's configuration says. It ends where
/// the disk has no more than what the store keeps free. Blocks.
///
/// # Errors
/// [`LayerError::Image`] where the layer is at fault, [`LayerError::Io`] where the disk is, of the kind
/// [`io::ErrorKind::StorageFull`] where that has no room. What was made until then stays, and is the
/// caller's to remove.
pub fn apply(
    store: &ContentStore,
    layer: &ImageLayer,
    root: &Root,
    keeps: Keeps,
    budget: &mut Budget,
) -> Result<(), LayerError> {
    // An archive is no smaller than its blob, but for some bytes.
    let blob = store.size(&layer.digest)?.unwrap_or(0);
    room::check(root.disk()?, store.reserve(), blob)?;
    let mut unpacked = Unpacked {
        root,
        keeps,
        reserve: store.reserve(),
        watch: Watch::new(store.reserve()),
        paths: 0,
        added: HashSet::new(),
        copied: HashSet::new(),
        room: budget.bytes,
        folders: Vec::new(),
    };
    let room = budget.bytes;
    let digest = layer::read::<LayerError>(
        store,
        &layer.digest,
        &layer.media_type,
        budget,
        |entry, content| {
            let path = entry.path.clone();
            let placed = unpacked.place(entry, content);
            placed.map_err(|fault| fault.of(layer, &path))?;
            Ok(ControlFlow::Continue(()))
        },
    )?;
    unpacked.finish()?;
    let left = budget.bytes.checked_sub(room - unpacked.room);
    budget.bytes = left.ok_or_else(|| LayerError::Image(TOO_LARGE.into()))?;
    match digest {
        Some(digest) if digest == layer.diff_id => Ok(()),
        _ => Err(LayerError::Image(format!(
            "layer {} unpacks to something else than the image's configuration says ({})",
            layer.digest, layer.diff_id
        ))),
    }
}

/// Why an entry could not be placed.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The entry is at fault.
    #[error("{0}")]
    Entry(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Fault {
    fn of(self, layer: &ImageLayer, path: &Path) -> LayerError {
        let path: String = path.to_string_lossy().chars().take(256).collect();
        let described = |cause: &dyn std::fmt::Display| {
            format!("layer {} cannot be unpacked: {path}: {cause}", layer.digest)
        };
        match self {
            Self::Entry(cause) => LayerError::Image(described(&cause)),
            // What the disk has to say is no fault of the image's.
            Self::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull
                        | io::ErrorKind::QuotaExceeded
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                LayerError::Io(io::Error::new(error.kind(), described(&error)))
            }
            Self::Io(error) => LayerError::Image(described(&error)),
        }
    }
}

struct Unpacked<'a> {
    root: &'a Root,
    keeps: Keeps,
    reserve: Reserve,
    watch: Watch,
    /// Bytes of the paths that are remembered.
    paths: usize,
    /// What this layer has added, with the folders above it: whiteouts do not apply to it.
    added: HashSet<PathBuf>,
    /// Files of layers below that second names have brought into this one.
    copied: HashSet<PathBuf>,
    /// Bytes that such copies may still take.
    room: u64,
    /// Folders and the times that they get when nothing more changes in them.
    folders: Vec<(PathBuf, (i64, u32))>,
}

impl Unpacked<'_> {
    fn place(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), Fault> {
        let root = self.root;
        self.watch.take(ENTRY, STEP, || root.disk())?;
        let path = clean(&entry.path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.place_root(&entry);
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.white_out(parent, name);
        }
        let folder = self.root.make_folder(parent)?;
        let there = root::kind(&folder, name)?;
        let keep = entry.kind == EntryKind::Folder && there == Some(FileType::Directory);
        if !keep {
            root::remove(&folder, name)?;
        }
        if self.keeps == Keeps::Files && is_special(&entry.kind) {
            return Ok(());
        }
        self.make(&folder, name, &entry.kind, keep, content)?;
        if !matches!(entry.kind, EntryKind::Link(_)) {
            self.describe(&folder, name, &entry)?;
        }
        if entry.kind == EntryKind::Folder {
            self.count(&path)?;
            self.folders.push((path.clone(), entry.modified));
        }
        self.add(path)
    }

    /// An entry for the root itself says whose it is, and no more.
    fn place_root(&mut self, entry: &Entry) -> Result<(), Fault> {
        if entry.kind != EntryKind::Folder {
            return Err(Fault::Entry("the root is a folder"));
        }
        let folder = self.root.folder(Path::new(""))?;
        self.describe(&folder, OsStr::new("."), entry)?;
        self.folders.push((PathBuf::new(), entry.modified));
        Ok(())
    }

    /// Owner, permissions, attributes and time of what was just made.
    fn describe(&self, folder: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Fault> {
        match self.keeps {
            Keeps::Everything => describe_all(folder, name, entry)?,
            Keeps::Files => describe_file(folder, name, entry)?,
        }
        Ok(set_time(folder, name, entry.modified)?)
    }

    fn make(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        kind: &EntryKind,
        keep: bool,
        content: &mut dyn Read,
    ) -> Result<(), Fault> {
        let private = Mode::from_raw_mode(0o600);
        match kind {
            EntryKind::File(_) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file = openat(folder, name, flags | OFlags::CLOEXEC, private)?;
                let mut file = Watched {
                    file: File::from(file),
                    root: self.root,
                    watch: &mut self.watch,
                };
                io::copy(content, &mut file)?;
            }
            EntryKind::Folder if keep => {}
            EntryKind::Folder => {
                self.root.check_depth(folder)?;
                mkdirat(folder, name, Mode::from_raw_mode(0o700))?;
            }
            EntryKind::Symlink(target) => symlinkat(target, folder, name)?,
            EntryKind::Link(target) => {
                let target = clean(target)?;
                let (Some(parent), Some(of)) = (target.parent(), target.file_name()) else {
                    return Err(Fault::Entry("a second name of the root"));
                };
                if of.as_bytes().starts_with(WHITEOUT) {
                    return Err(Fault::Entry("a second name of a whiteout"));
                }
                let parent = self.root.folder(parent)?;
                self.count(&target)?;
                if !self.added.contains(&target) && self.copied.insert(target.clone()) {
                    let size = statat(&parent, of, AtFlags::SYMLINK_NOFOLLOW)?.st_size;
                    let size = size.unsigned_abs();
                    room::check(self.root.disk()?, self.reserve, size)?;
                    let left = self.room.checked_sub(size);
                    self.room = left.ok_or(Fault::Entry(TOO_LARGE))?;
                }
                linkat(&parent, of, folder, name, AtFlags::empty())?;
            }
            EntryKind::Character(0, 0) => {
                return Err(Fault::Entry("the device 0:0 is a whiteout's"));
            }
            EntryKind::Character(major, minor) => {
                let device = makedev(*major, *minor);
                mknodat(folder, name, FileType::CharacterDevice, private, device)?;
            }
            EntryKind::Block(major, minor) => {
                let device = makedev(*major, *minor);
                mknodat(folder, name, FileType::BlockDevice, private, device)?;
            }
            EntryKind::Fifo => mknodat(folder, name, FileType::Fifo, private, 0)?,
        }
        Ok(())
    }

    /// Removes what the layers below have under a name, or in a folder.
    fn white_out(&mut self, parent: &Path, name: &OsStr) -> Result<(), Fault> {
        let folder = match self.root.folder(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder?,
        };
        if name.as_bytes() == OPAQUE {
            return Ok(self.remove_below(&folder, parent)?);
        }
        let hidden = &name.as_bytes()[WHITEOUT.len()..];
        if hidden.starts_with(WHITEOUT) {
            // Marks of a file system that is no more, which say nothing of the content.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::Entry("a whiteout of no name"));
        }
        let hidden = OsStr::from_bytes(hidden);
        Ok(self.hide(&folder, hidden, &parent.join(hidden))?)
    }

    fn hide(&self, folder: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
        if !self.added.contains(path) {
            return root::remove(folder, name);
        }
        match root::kind(folder, name)? {
            Some(FileType::Directory) => self.remove_below(&root::enter(folder, name)?, path),
            _ => Ok(()),
        }
    }

    /// Empties a folder of all that this layer has not added.
    fn remove_below(&self, folder: &OwnedFd, path: &Path) -> io::Result<()> {
        for name in root::names(folder)? {
            self.hide(folder, &name, &path.join(&name))?;
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<(), Fault> {
        let mut above = path.parent().map(Path::to_owned);
        self.remember(path)?;
        while let Some(path) = above {
            above = path.parent().map(Path::to_owned);
            if !self.remember(path)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether a path is new to the layer.
    fn remember(&mut self, path: PathBuf) -> Result<bool, Fault> {
        if self.added.contains(&path) {
            return Ok(false);
        }
        self.count(&path)?;
        Ok(self.added.insert(path))
    }

    /// Bounds the memory that paths take.
    fn count(&mut self, path: &Path) -> Result<(), Fault> {
        self.paths += path.as_os_str().len();
        match self.paths > PATHS {
            true => Err(Fault::Entry("the layer's paths are too many and too long")),
            false => Ok(()),
        }
    }

    fn finish(&self) -> Result<(), LayerError> {
        for (path, modified) in self.folders.iter().rev() {
            // It may have been replaced or removed since.
            if let Ok(folder) = self.root.folder(path) {
                set_time(&folder, OsStr::new("."), *modified).map_err(io::Error::from)?;
            }
        }
        Ok(())
    }
}

/// A file that ends where the disk has no more room.
struct Watched<'a> {
    file: File,
    root: &'a Root,
    watch: &'a mut Watch,
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let root = self.root;
        self.watch.take(bytes.len() as u64, STEP, || root.disk())?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A path from the root, without dots. What climbs is no path of an honest archive.
fn clean(path: &Path) -> Result<PathBuf, Fault> {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Fault::Entry("the path leaves the root"));
            }
        }
    }
    Ok(cleaned)
}

/// Whether it is neither file nor folder nor link, and to open it may be to do something with it.
fn is_special(kind: &EntryKind) -> bool {
    matches!(
        kind,
        EntryKind::Character(..) | EntryKind::Block(..) | EntryKind::Fifo
    )
}

/// Permissions of what is to be read, and nothing that would make it more than a file.
fn describe_file(folder: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Fault> {
    // Later layers put something into a folder.
    let own = match entry.kind {
        EntryKind::Symlink(_) => return Ok(()),
        EntryKind::Folder => 0o700,
        _ => 0o600,
    };
    let mode = Mode::from_raw_mode(entry.mode & 0o777 | own);
    Ok(chmodat(folder, name, mode, AtFlags::empty())?)
}

/// Owner, permissions and attributes.
fn describe_all(folder: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(
        folder,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    // After the owner, whose change takes set-id bits and capabilities away.
    if !matches!(entry.kind, EntryKind::Symlink(_)) {
        chmodat(
            folder,
            name,
            Mode::from_raw_mode(entry.mode),
            AtFlags::empty(),
        )?;
    }
    for (attribute, value) in &entry.attributes {
        if !may_be_set(attribute)? {
            continue;
        }
        let mut path = OsString::from(format!("/proc/self/fd/{}/", folder.as_raw_fd()));
        path.push(name);
        lsetxattr(&path, attribute.as_str(), value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Whether an extended attribute means something to what runs in a container.
fn may_be_set(attribute: &str) -> Result<bool, Fault> {
    if attribute.starts_with("trusted.overlay.") || attribute.starts_with("user.overlay.") {
        return Err(Fault::Entry("an attribute that is an overlay's own"));
    }
    Ok(attribute.starts_with("user.") || attribute == "security.capability")
}

fn set_time(
    folder: &OwnedFd,
    name: &OsStr,
    (seconds, nanoseconds): (i64, u32),
) -> Result<(), Errno> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanoseconds),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}
