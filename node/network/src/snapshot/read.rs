//! The guest processes' side of the snapshot.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use memmap2::Mmap;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

use super::{HEADER_SIZE, MAGIC, Part};

/// A part that was mapped.
struct Mapped {
    generation: u64,
    bytes: Mmap,
}

/// Reads the snapshot. Cheap to ask: see the module's documentation.
pub(crate) struct Reader {
    /// Parts are opened relative to it, also when the process may no longer walk its path.
    folder: OwnedFd,
    header: Mmap,
    parts: [ArcSwapOption<Mapped>; Part::ALL.len()],
    loading: Mutex<()>,
}

/// A part's bytes, kept while they are looked at.
pub(crate) struct Bytes(Arc<Mapped>);

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Reader {
    /// Opens the snapshot of a header file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let folder = rustix::fs::open(
            folder,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // SAFETY: only the agent writes to the file, never shortens it, and its generations are
        // read as atomics alone.
        let header = unsafe { Mmap::map(&file)? };
        if header.len() != HEADER_SIZE || header[..MAGIC.len()] != MAGIC {
            let message = format!("{} is no network snapshot of this version", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self {
            folder,
            header,
            parts: Default::default(),
            loading: Mutex::new(()),
        })
    }

    /// The newest generation of a part; grows with every publication.
    pub(crate) fn generation(&self, part: Part) -> u64 {
        // SAFETY: `open` checked that the mapping, which lives as long as `self`, holds eight
        // bytes there. It begins at a page, so they are aligned as the offset, a multiple of
        // eight. Others write to them; nothing in this process reads them but this.
        let generation = unsafe {
            AtomicU64::from_ptr(self.header.as_ptr().add(part.offset()).cast_mut().cast())
        };
        generation.load(Ordering::Acquire)
    }

    /// The newest form of a part; if it cannot be read, the one that was read last.
    pub(crate) fn part(&self, part: Part) -> Option<Bytes> {
        let slot = &self.parts[part as usize];
        if let Some(mapped) = slot.load_full()
            && mapped.generation == self.generation(part)
        {
            return Some(Bytes(mapped));
        }
        let _loading = self.loading.lock();
        // A generation may be replaced twice while it is opened; the third is there.
        for _ in 0..100 {
            let generation = self.generation(part);
            match slot.load_full() {
                Some(mapped) if mapped.generation == generation => return Some(Bytes(mapped)),
                _ => {}
            }
            if let Ok(bytes) = self.map(&part.file(generation)) {
                let mapped = Arc::new(Mapped { generation, bytes });
                slot.store(Some(Arc::clone(&mapped)));
                return Some(Bytes(mapped));
            }
            if generation == 0 {
                break;
            }
        }
        slot.load_full().map(Bytes)
    }

    fn map(&self, name: &str) -> io::Result<Mmap> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, name, flags, Mode::empty())?;
        // SAFETY: a part's file never changes once it has its name, see `Publisher`.
        unsafe { Mmap::map(&File::from(file)) }
    }
}
