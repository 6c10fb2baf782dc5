//! The entries of a folder, read as the guest asks for them.
//!
//! wasmtime reads them all before the guest has the first one: a guest that made a million files
//! would have the host hold as many names, beyond the memory that it may use, as often as it asks. The
//! resource is one of our own, so whatever takes or returns it is here.

use std::collections::VecDeque;
use std::io;

use rustix::fs::{AtFlags, DirEntry, FileType, Mode, OFlags, openat, statat};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource, ResourceType};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};

use super::{Files, answer};
use crate::guest::quota::Permit;
use crate::guest::state::Guest;

/// Entries that are read at a time.
const BATCH: usize = 128;

/// Adds to `wasi:filesystem/types` what lists folders.
pub(super) fn add_to_linker(interface: &mut LinkerInstance<'_, Guest>) -> wasmtime::Result<()> {
    interface.func_wrap_async(
        "[method]descriptor.read-directory",
        |mut store: StoreContextMut<'_, Guest>, (of,): (Resource<Descriptor>,)| {
            Box::new(async move { answer(store.data_mut().files().list(&of).await) })
        },
    )?;
    interface.func_wrap_async(
        "[method]directory-entry-stream.read-directory-entry",
        |mut store: StoreContextMut<'_, Guest>, (of,): (Resource<Listing>,)| {
            Box::new(async move { answer(store.data_mut().files().next_entry(&of).await) })
        },
    )?;
    interface.resource(
        "directory-entry-stream",
        ResourceType::host::<Listing>(),
        |mut store: StoreContextMut<'_, Guest>, rep| {
            let listing = Resource::<Listing>::new_own(rep);
            store.data_mut().files().wasi.table.delete(listing)?;
            Ok(())
        },
    )
}

type Entry = Result<DirectoryEntry, ErrorCode>;

/// A `directory-entry-stream`.
pub(super) struct Listing {
    read: VecDeque<Entry>,
    unread: Option<Unread>,
}

/// A folder with entries that were not read.
struct Unread {
    folder: rustix::fs::Dir,
    // After the folder, which is closed before it is no longer counted.
    _permit: Option<Permit>,
}

impl Files<'_> {
    pub(super) async fn list(&mut self, of: &Resource<Descriptor>) -> FsResult<Resource<Listing>> {
        let (folder, _) = self.folder(of)?;
        let permit = self.state.permit()?;
        let open = move || {
            // A position of its own: a folder may be listed twice at a time.
            let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(&folder, ".", how, Mode::empty())?;
            Ok::<_, io::Error>(Unread {
                folder: rustix::fs::Dir::new(folder)?,
                _permit: permit,
            })
        };
        let unread = tokio::task::spawn_blocking(open).await;
        let unread = unread.map_err(|_| ErrorCode::Io)??;
        Ok(self.wasi.table.push(Listing {
            read: VecDeque::new(),
            unread: Some(unread),
        })?)
    }

    pub(super) async fn next_entry(
        &mut self,
        of: &Resource<Listing>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let listing = self.wasi.table.get_mut(of)?;
        if listing.read.is_empty()
            && let Some(unread) = listing.unread.take()
        {
            let read = tokio::task::spawn_blocking(move || unread.read(BATCH)).await;
            (listing.read, listing.unread) = read.map_err(|_| ErrorCode::Io)?;
        }
        Ok(listing.read.pop_front().transpose()?)
    }
}

impl Unread {
    /// Reads so many entries, and says what is left, if not all was read.
    fn read(mut self, most: usize) -> (VecDeque<Entry>, Option<Self>) {
        let mut read = VecDeque::new();
        while read.len() < most {
            match self.folder.read() {
                Some(Ok(found)) => read.extend(self.entry(&found)),
                Some(Err(error)) => read.push_back(Err(io::Error::from(error).into())),
                None => return (read, None),
            }
        }
        (read, Some(self))
    }

    /// An entry as WASI has it, which does not list the folder itself and the one above.
    fn entry(&self, found: &DirEntry) -> Option<Entry> {
        let name = found.file_name();
        if name == c"." || name == c".." {
            return None;
        }
        let kind = match found.file_type() {
            // Not all file systems say it here.
            FileType::Unknown => {
                let folder = self.folder.fd();
                let stat = folder.and_then(|at| statat(at, name, AtFlags::SYMLINK_NOFOLLOW));
                stat.map_or(FileType::Unknown, |stat| {
                    FileType::from_raw_mode(stat.st_mode)
                })
            }
            kind => kind,
        };
        let entry = name.to_str().map(|name| DirectoryEntry {
            type_: described(kind),
            name: name.to_owned(),
        });
        Some(entry.map_err(|_| ErrorCode::IllegalByteSequence))
    }
}

/// As wasmtime describes what it finds.
fn described(kind: FileType) -> DescriptorType {
    match kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::Fifo | FileType::Socket | FileType::Unknown => DescriptorType::Unknown,
    }
}
