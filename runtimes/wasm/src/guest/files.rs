//! `wasi:filesystem`: how a guest opens and lists what is in its volumes.
//!
//! In the HTTP host all guests share the descriptors of their process, its memory, and the few
//! threads that do for them what may block. wasmtime's own functions would open a named pipe and
//! wait, for ever, for who opens its other end, in one of these threads; open as many files as a
//! guest asks for; and read a folder of any size into memory. Here only files and folders are opened,
//! and so many for each guest, and a folder is read as the guest asks for its entries ([`listing`]).
//! The rest of the interface is wasmtime's: none of it opens by name what may be a pipe, unless it
//! asks for a folder or for no more than a handle (`O_PATH`).

mod listing;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::{Arc, Weak};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    fcntl_setfl, fstat, openat2, utimensat,
};
use rustix::io::Errno;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::FsPerms;
use wasmtime_wasi::filesystem::{Descriptor, Dir, File, OpenMode, WasiFilesystemCtxView};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor, NewTimestamp, OpenFlags, PathFlags,
};

use super::quota::{Permit, Quota};
use super::state::Guest;

/// As wasmtime names it: what a guest imports of the same minor version is found under this.
const INTERFACE: &str = "wasi:filesystem/types@0.2.12";
/// How often the kernel is asked again when something on the machine was renamed meanwhile, and it
/// cannot tell whether a path leads out of its folder.
const TRIALS: usize = 32;

/// What `open-at` is given.
type Opening = (
    Resource<Descriptor>,
    PathFlags,
    String,
    OpenFlags,
    DescriptorFlags,
);
/// What `set-times-at` is given.
type Dating = (
    Resource<Descriptor>,
    PathFlags,
    String,
    NewTimestamp,
    NewTimestamp,
);

/// Adds what differs from wasmtime's own; the linker must allow shadowing.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: StoreContextMut<'_, Guest>, opening: Opening| {
            Box::new(async move { answer(store.data_mut().files().open_at(opening).await) })
        },
    )?;
    interface.func_wrap_async(
        "[method]descriptor.set-times-at",
        |mut store: StoreContextMut<'_, Guest>, dating: Dating| {
            Box::new(async move { answer(store.data_mut().files().set_times_at(dating).await) })
        },
    )?;
    interface.resource(
        "descriptor",
        ResourceType::host::<Descriptor>(),
        |mut store: StoreContextMut<'_, Guest>, rep| store.data_mut().files().close(rep),
    )?;
    listing::add_to_linker(&mut interface)
}

/// What the guest is told.
fn answer<T>(outcome: FsResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    Ok((match outcome {
        Ok(value) => Ok(value),
        Err(error) => Err(error.downcast()?),
    },))
}

/// What is counted of an instance's open files. Kept by the number of the resource.
pub(super) struct GuestFiles {
    quota: Option<Quota>,
    open: HashMap<u32, Permit>,
    /// Those whose streams outlive their descriptors.
    streamed: Vec<(Weak<fs::File>, Permit)>,
}

impl GuestFiles {
    /// Without a quota files are opened as wasmtime does it.
    pub(super) fn new(quota: Option<Quota>) -> Self {
        Self {
            quota,
            open: HashMap::new(),
            streamed: Vec::new(),
        }
    }

    /// Room for one more file, if they are counted. WASI has no word for too many open files, but
    /// has one for a quota.
    fn permit(&mut self) -> FsResult<Option<Permit>> {
        let Some(quota) = &self.quota else {
            return Ok(None);
        };
        self.streamed.retain(|(file, _)| file.strong_count() > 0);
        Ok(Some(quota.take().ok_or(ErrorCode::Quota)?))
    }

    /// The guest dropped the descriptor.
    fn closed(&mut self, rep: u32, file: &Arc<fs::File>) {
        if let Some(permit) = self.open.remove(&rep)
            && Arc::strong_count(file) > 1
        {
            self.streamed.push((Arc::downgrade(file), permit));
        }
    }
}

/// The guest's files for the length of a call.
pub(super) struct Files<'a> {
    pub(super) wasi: WasiFilesystemCtxView<'a>,
    pub(super) state: &'a mut GuestFiles,
}

impl Files<'_> {
    async fn open_at(&mut self, opening: Opening) -> FsResult<Resource<Descriptor>> {
        let (at, links, path, how, flags) = opening;
        let Some(permit) = self.state.permit()? else {
            return HostDescriptor::open_at(&mut self.wasi, at, links, path, how, flags).await;
        };
        let (folder, permissions) = self.folder(&at)?;
        let wanted = Wanted::new(permissions, links, how, flags)?;
        // What a request that is given up opens counts until it is closed.
        let open = move || (wanted.open(&folder, &path), permit);
        let opened = tokio::task::spawn_blocking(open).await;
        let (opened, permit) = opened.map_err(|_| ErrorCode::Io)?;
        let opened = match opened.map_err(code)? {
            (folder, FileType::Directory) => {
                Descriptor::Dir(Dir::new(folder, permissions, wanted.mode, false))
            }
            _ if wanted.folder => return Err(ErrorCode::NotDirectory.into()),
            (file, _) => Descriptor::File(File::new(file, permissions, wanted.mode, false)),
        };
        let opened = self.wasi.table.push(opened)?;
        self.state.open.insert(opened.rep(), permit);
        Ok(opened)
    }

    /// wasmtime opens for writing what a path leads to.
    async fn set_times_at(&mut self, dating: Dating) -> FsResult<()> {
        let (at, links, path, access, change) = dating;
        if self.state.quota.is_none() || !links.contains(PathFlags::SYMLINK_FOLLOW) {
            let wasi = &mut self.wasi;
            return HostDescriptor::set_times_at(wasi, at, links, path, access, change).await;
        }
        let (folder, permissions) = self.folder(&at)?;
        let times = Timestamps {
            last_access: time(access)?,
            last_modification: time(change)?,
        };
        if permissions.write_not_permitted() {
            return Err(ErrorCode::NotPermitted.into());
        }
        let set = move || {
            let of = open_beneath(
                &folder,
                &path,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            utimensat(&of, "", &times, AtFlags::EMPTY_PATH)
        };
        let set = tokio::task::spawn_blocking(set).await;
        set.map_err(|_| ErrorCode::Io)?.map_err(code)?;
        Ok(())
    }

    fn folder(&self, at: &Resource<Descriptor>) -> FsResult<(Arc<fs::File>, FsPerms)> {
        match self.wasi.table.get(at)? {
            Descriptor::Dir(folder) => Ok((folder.dir.clone(), folder.perms)),
            Descriptor::File(_) => Err(ErrorCode::NotDirectory.into()),
        }
    }

    fn close(&mut self, rep: u32) -> wasmtime::Result<()> {
        let descriptor = Resource::<Descriptor>::new_own(rep);
        let file = match self.wasi.table.delete(descriptor)? {
            Descriptor::File(file) => file.file,
            Descriptor::Dir(folder) => folder.dir,
        };
        self.state.closed(rep, &file);
        Ok(())
    }
}

/// Opens what lies under a folder.
fn open_beneath(
    folder: &fs::File,
    path: &str,
    how: OFlags,
    mode: Mode,
) -> rustix::io::Result<fs::File> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut trials = 0;
    loop {
        trials += 1;
        match openat2(folder, path, how, mode, beneath) {
            Err(Errno::AGAIN) if trials < TRIALS => {}
            opened => return opened.map(fs::File::from),
        }
    }
}

/// The error as the guest knows it.
fn code(error: Errno) -> ErrorCode {
    match error {
        // Out of the folder.
        Errno::XDEV => ErrorCode::NotPermitted,
        Errno::NXIO => ErrorCode::NoSuchDevice,
        Errno::AGAIN => ErrorCode::WouldBlock,
        error => io::Error::from(error).into(),
    }
}

/// A time as the kernel takes it.
fn time(of: NewTimestamp) -> Result<Timespec, ErrorCode> {
    let (tv_sec, tv_nsec) = match of {
        NewTimestamp::NoChange => (0, UTIME_OMIT),
        NewTimestamp::Now => (0, UTIME_NOW),
        NewTimestamp::Timestamp(time) => {
            let more = u64::from(time.nanoseconds / 1_000_000_000);
            let seconds = time.seconds.checked_add(more);
            let seconds = seconds.and_then(|seconds| i64::try_from(seconds).ok());
            let nanoseconds = time.nanoseconds % 1_000_000_000;
            (seconds.ok_or(ErrorCode::Overflow)?, nanoseconds.into())
        }
    };
    Ok(Timespec { tv_sec, tv_nsec })
}

/// What a guest wants to open, as the kernel is asked for it.
#[derive(Clone, Copy)]
struct Wanted {
    how: OFlags,
    mode: OpenMode,
    /// Whether it must be a folder.
    folder: bool,
}

impl Wanted {
    /// By wasmtime's rules.
    fn new(
        permissions: FsPerms,
        links: PathFlags,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> Result<Self, ErrorCode> {
        let synced = [
            DescriptorFlags::FILE_INTEGRITY_SYNC,
            DescriptorFlags::DATA_INTEGRITY_SYNC,
            DescriptorFlags::REQUESTED_WRITE_SYNC,
        ];
        if synced.into_iter().any(|flag| flags.contains(flag)) {
            return Err(ErrorCode::Unsupported);
        }
        let create = how.contains(OpenFlags::CREATE);
        let exclusive = how.contains(OpenFlags::EXCLUSIVE);
        let truncate = how.contains(OpenFlags::TRUNCATE);
        let folder = how.contains(OpenFlags::DIRECTORY);
        if folder && (create || exclusive || truncate) {
            return Err(ErrorCode::Invalid);
        }
        let write = flags.contains(DescriptorFlags::WRITE) || create || truncate;
        if write && permissions.write_not_permitted() {
            return Err(ErrorCode::NotPermitted);
        }
        let read = flags.contains(DescriptorFlags::READ) || !flags.contains(DescriptorFlags::WRITE);
        let (access, mode) = match (read, write) {
            (true, true) => (OFlags::RDWR, OpenMode::READ | OpenMode::WRITE),
            (false, true) => (OFlags::WRONLY, OpenMode::WRITE),
            (_, false) => (OFlags::RDONLY, OpenMode::READ),
        };
        // Not to wait for the other end of a pipe, or for a device.
        let mut asked = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
        asked.set(OFlags::CREATE, create);
        asked.set(OFlags::EXCL, create && exclusive);
        asked.set(OFlags::TRUNC, truncate && !(create && exclusive));
        asked.set(OFlags::NOFOLLOW, !links.contains(PathFlags::SYMLINK_FOLLOW));
        Ok(Self {
            how: asked,
            mode,
            folder,
        })
    }

    /// Opens a file or a folder, and nothing else.
    fn open(&self, folder: &fs::File, path: &str) -> rustix::io::Result<(fs::File, FileType)> {
        // What is made; the kernel minds a mode where nothing is.
        let mode = if self.how.contains(OFlags::CREATE) {
            Mode::from_raw_mode(0o666)
        } else {
            Mode::empty()
        };
        let opened = open_beneath(folder, path, self.how, mode)?;
        let kind = FileType::from_raw_mode(fstat(&opened)?.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Err(Errno::NXIO);
        }
        // File systems outside the kernel are told of it at each read.
        fcntl_setfl(&opened, OFlags::empty())?;
        Ok((opened, kind))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
