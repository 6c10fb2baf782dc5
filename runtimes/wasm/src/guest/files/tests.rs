//! Files as a guest's calls open them.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::Duration;

use rustix::fs::{CWD, mknodat};
use tempfile::TempDir;
use wasmtime::component::{Component, ResourceTable};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{DirectoryEntry, HostDirectoryEntryStream};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// An instance with a volume.
struct Instance {
    wasi: WasiFilesystemCtx,
    table: ResourceTable,
    state: GuestFiles,
    volume: TempDir,
}

impl Instance {
    fn new(quota: Option<Quota>) -> Self {
        let volume = tempfile::tempdir().unwrap();
        let path = |name: &str| volume.path().join(name);
        fs::write(path("file"), "text").unwrap();
        fs::create_dir(path("folder")).unwrap();
        for (name, to) in [("link", "file"), ("dangling", "none"), ("out", "/dev/null")] {
            symlink(to, path(name)).unwrap();
        }
        Self {
            wasi: WasiFilesystemCtx::default(),
            table: ResourceTable::new(),
            state: GuestFiles::new(quota),
            volume,
        }
    }

    fn files(&mut self) -> Files<'_> {
        Files {
            wasi: WasiFilesystemCtxView {
                ctx: &mut self.wasi,
                table: &mut self.table,
            },
            state: &mut self.state,
        }
    }

    /// The volume as the guest finds it opened.
    fn preopen(&mut self, permissions: FsPerms) -> Resource<Descriptor> {
        let folder = fs::File::open(self.volume.path()).unwrap();
        let mode = OpenMode::READ | OpenMode::WRITE;
        let folder = Descriptor::Dir(Dir::new(folder, permissions, mode, false));
        self.table.push(folder).unwrap()
    }

    async fn open(
        &mut self,
        permissions: FsPerms,
        (links, path, how, flags): (PathFlags, &str, OpenFlags, DescriptorFlags),
    ) -> Result<Resource<Descriptor>, ErrorCode> {
        let at = self.preopen(permissions);
        let mut files = self.files();
        let opening = (at, links, path.to_owned(), how, flags);
        let opened = tokio::time::timeout(DEADLINE, files.open_at(opening)).await;
        opened
            .unwrap_or_else(|_| panic!("opening {path} took too long"))
            .map_err(|error| error.downcast().unwrap())
    }

    async fn read(&mut self, path: &str) -> Result<Resource<Descriptor>, ErrorCode> {
        let how = OpenFlags::empty();
        let opening = (PathFlags::empty(), path, how, DescriptorFlags::READ);
        self.open(FsPerms::ReadWrite, opening).await
    }

    /// What the guest got, and what the volume is afterwards.
    async fn outcome(
        mut self,
        permissions: FsPerms,
        opening: (PathFlags, &str, OpenFlags, DescriptorFlags),
    ) -> String {
        let mut text = match self.open(permissions, opening).await {
            Ok(opened) => {
                let (kind, mode) = match self.table.get(&opened).unwrap() {
                    Descriptor::File(file) => ("file", file.open_mode),
                    Descriptor::Dir(folder) => ("folder", folder.open_mode),
                };
                let mut files = self.files();
                let flags = HostDescriptor::get_flags(&mut files.wasi, opened).await;
                format!("{kind}, {mode:?}, {:?}", flags.unwrap())
            }
            Err(error) => format!("{error:?}"),
        };
        let mut entries: Vec<_> = fs::read_dir(self.volume.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let found = entry.metadata().unwrap();
            let size = if found.is_file() { found.len() } else { 0 };
            write!(text, "; {:?} {:o} {size}", entry.file_name(), found.mode()).unwrap();
        }
        text
    }
}

impl Instance {
    /// What the guest is told that sets times, and which were set.
    async fn dated(
        mut self,
        permissions: FsPerms,
        links: PathFlags,
        path: &str,
        (access, change): (NewTimestamp, NewTimestamp),
    ) -> String {
        let at = self.preopen(permissions);
        let mut files = self.files();
        let set = files.set_times_at((at, links, path.to_owned(), access, change));
        let set: Result<(), ErrorCode> = set.await.map_err(|error| error.downcast().unwrap());
        let mut text = format!("{set:?}");
        for name in ["file", "folder", "link"] {
            let found = fs::symlink_metadata(self.volume.path().join(name)).unwrap();
            for (seconds, nanoseconds) in [
                (found.atime(), found.atime_nsec()),
                (found.mtime(), found.mtime_nsec()),
            ] {
                // Others are those at which the volume was made.
                if seconds < 100 {
                    write!(text, "; {name} {seconds} {nanoseconds}").unwrap();
                }
            }
        }
        text
    }
}

#[tokio::test]
async fn files_and_folders_are_opened_as_wasmtime_opens_them() {
    let hows = (0..16).map(|bits| {
        [
            OpenFlags::CREATE,
            OpenFlags::DIRECTORY,
            OpenFlags::EXCLUSIVE,
            OpenFlags::TRUNCATE,
        ]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| bits & (1 << bit) != 0)
        .fold(OpenFlags::empty(), |all, (_, flag)| all | flag)
    });
    let hows: Vec<OpenFlags> = hows.collect();
    let flags = [
        DescriptorFlags::empty(),
        DescriptorFlags::READ,
        DescriptorFlags::WRITE,
        DescriptorFlags::READ | DescriptorFlags::WRITE,
        DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY,
        DescriptorFlags::WRITE | DescriptorFlags::FILE_INTEGRITY_SYNC,
    ];
    for path in [
        "file",
        "file/",
        "none",
        "folder",
        "folder/../file",
        "link",
        "dangling",
        "out",
        "..",
        "/",
        ".",
        "",
        "nul\0",
    ] {
        for links in [PathFlags::empty(), PathFlags::SYMLINK_FOLLOW] {
            for permissions in [FsPerms::ReadOnly, FsPerms::ReadWrite] {
                for how in &hows {
                    for flags in flags {
                        let opening = (links, path, *how, flags);
                        let counted = Instance::new(Some(Quota::new(1)));
                        let ours = counted.outcome(permissions, opening).await;
                        let theirs = Instance::new(None).outcome(permissions, opening).await;
                        assert_eq!(ours, theirs, "{permissions:?} {opening:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_neither_file_nor_folder_is_refused_at_once() {
    let mut instance = Instance::new(Some(Quota::new(1)));
    let mode = Mode::RUSR | Mode::WUSR;
    for (name, kind) in [("pipe", FileType::Fifo), ("socket", FileType::Socket)] {
        mknodat(CWD, instance.volume.path().join(name), kind, mode, 0).unwrap();
        symlink(name, instance.volume.path().join(format!("to-{name}"))).unwrap();
    }
    let (read, write) = (DescriptorFlags::READ, DescriptorFlags::WRITE);
    for path in ["pipe", "socket", "to-pipe", "to-socket"] {
        for flags in [read, write, read | write] {
            for how in [OpenFlags::empty(), OpenFlags::CREATE, OpenFlags::TRUNCATE] {
                let opening = (PathFlags::SYMLINK_FOLLOW, path, how, flags);
                let opened = instance.open(FsPerms::ReadWrite, opening).await;
                assert_eq!(opened.err(), Some(ErrorCode::NoSuchDevice), "{opening:?}");
            }
        }
    }
    let at = instance.preopen(FsPerms::ReadWrite);
    let (links, now) = (PathFlags::SYMLINK_FOLLOW, NewTimestamp::Now);
    let mut files = instance.files();
    let set = files.set_times_at((at, links, "to-pipe".into(), now, now));
    // No file is opened for that.
    tokio::time::timeout(DEADLINE, set).await.unwrap().unwrap();
}

#[tokio::test]
async fn times_are_set_as_wasmtime_sets_them() {
    let at = |seconds, nanoseconds| {
        let time = Datetime {
            seconds,
            nanoseconds,
        };
        NewTimestamp::Timestamp(time)
    };
    for path in [
        "file", "file/", "folder", "link", "dangling", "out", "..", "",
    ] {
        for links in [PathFlags::empty(), PathFlags::SYMLINK_FOLLOW] {
            for permissions in [FsPerms::ReadOnly, FsPerms::ReadWrite] {
                for times in [
                    (at(5, 7), NewTimestamp::NoChange),
                    (at(5, 0), at(6, 1_500_000_000)),
                    (at(7, 0), at(u64::MAX, 1_000_000_000)),
                ] {
                    let counted = Instance::new(Some(Quota::new(1)));
                    let ours = counted.dated(permissions, links, path, times).await;
                    let theirs = Instance::new(None);
                    let theirs = theirs.dated(permissions, links, path, times).await;
                    assert_eq!(ours, theirs, "{permissions:?} {links:?} {path} {times:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_file_is_counted_as_long_as_it_is_open() {
    let quota = Quota::new(2);
    let mut instance = Instance::new(Some(quota.clone()));
    let file = instance.read("file").await.unwrap();
    let folder = instance.read("folder").await.unwrap();
    let full = Some(ErrorCode::Quota);
    assert_eq!(instance.read("file").await.err(), full);
    instance.files().close(folder.rep()).unwrap();
    let none = instance.read("none").await.err();
    assert_eq!(none, Some(ErrorCode::NoEntry));
    // A stream keeps its file open.
    let of = Resource::new_borrow(file.rep());
    let stream = HostDescriptor::read_via_stream(&mut instance.files().wasi, of, 0).unwrap();
    instance.files().close(file.rep()).unwrap();
    instance.read("file").await.unwrap();
    assert_eq!(instance.read("file").await.err(), full);
    instance.table.delete(stream).unwrap();
    instance.read("folder").await.unwrap();
    assert!(quota.take().is_none());
    drop(instance);
    let both = (quota.take(), quota.take());
    assert!(both.0.is_some() && both.1.is_some());
}

#[tokio::test]
async fn a_folder_is_listed_as_wasmtime_lists_it() {
    let mut instance = Instance::new(Some(Quota::new(1)));
    let path = instance.volume.path().to_owned();
    for number in 0..1000 {
        fs::write(path.join(format!("file-{number}")), "").unwrap();
    }
    mknodat(CWD, path.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    fs::write(path.join(OsStr::from_bytes(b"\xff")), "").unwrap();
    let at = instance.preopen(FsPerms::ReadOnly);
    let mut files = instance.files();
    let listing = files.list(&at).await.unwrap();
    assert!(files.list(&at).await.is_err(), "it is counted");
    let told = |entry: FsResult<DirectoryEntry>| {
        let entry: Result<_, ErrorCode> = entry.map_err(|error| error.downcast().unwrap());
        format!("{entry:?}")
    };
    let mut ours = Vec::new();
    while let Some(entry) = files.next_entry(&listing).await.transpose() {
        ours.push(told(entry));
    }
    assert!(files.next_entry(&listing).await.unwrap().is_none());
    // What is read to its end is closed.
    files.list(&at).await.unwrap();
    let listing = HostDescriptor::read_directory(&mut files.wasi, at).await;
    let listing = listing.unwrap();
    let mut theirs = Vec::new();
    loop {
        let of = Resource::new_borrow(listing.rep());
        let entry = HostDirectoryEntryStream::read_directory_entry(&mut files.wasi, of).await;
        let Some(entry) = entry.transpose() else {
            break;
        };
        theirs.push(told(entry));
    }
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}

/// The first version of the interface, as guests import it.
const IMPORTS: &str = r#"(component
  (import "wasi:filesystem/types@0.2.0" (instance
    (export "descriptor" (type $descriptor (sub resource)))
    (export "directory-entry-stream" (type $stream (sub resource)))
    (type $codes (enum "access" "would-block" "already" "bad-descriptor" "busy" "deadlock" "quota"
      "exist" "file-too-large" "illegal-byte-sequence" "in-progress" "interrupted" "invalid" "io"
      "is-directory" "loop" "too-many-links" "message-size" "name-too-long" "no-device" "no-entry"
      "no-lock" "insufficient-memory" "insufficient-space" "not-directory" "not-empty"
      "not-recoverable" "unsupported" "no-tty" "no-such-device" "overflow" "not-permitted" "pipe"
      "read-only" "invalid-seek" "text-file-busy" "cross-device"))
    (export "error-code" (type $code (eq $codes)))
    (type $kinds (enum "unknown" "block-device" "character-device" "directory" "fifo"
      "symbolic-link" "regular-file" "socket"))
    (export "descriptor-type" (type $kind (eq $kinds)))
    (type $found (record (field "type" $kind) (field "name" string)))
    (export "directory-entry" (type $entry (eq $found)))
    (type $links (flags "symlink-follow"))
    (export "path-flags" (type $path-flags (eq $links)))
    (type $hows (flags "create" "directory" "exclusive" "truncate"))
    (export "open-flags" (type $open-flags (eq $hows)))
    (type $modes (flags "read" "write" "file-integrity-sync" "data-integrity-sync"
      "requested-write-sync" "mutate-directory"))
    (export "descriptor-flags" (type $descriptor-flags (eq $modes)))
    (type $date (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $datetime (eq $date)))
    (type $times (variant (case "no-change") (case "now") (case "timestamp" $datetime)))
    (export "new-timestamp" (type $time (eq $times)))
    (export "[method]descriptor.open-at" (func
      (param "self" (borrow $descriptor)) (param "path-flags" $path-flags) (param "path" string)
      (param "open-flags" $open-flags) (param "flags" $descriptor-flags)
      (result (result (own $descriptor) (error $code)))))
    (export "[method]descriptor.set-times-at" (func
      (param "self" (borrow $descriptor)) (param "path-flags" $path-flags) (param "path" string)
      (param "data-access-timestamp" $time) (param "data-modification-timestamp" $time)
      (result (result (error $code)))))
    (export "[method]descriptor.read-directory" (func (param "self" (borrow $descriptor))
      (result (result (own $stream) (error $code)))))
    (export "[method]directory-entry-stream.read-directory-entry" (func
      (param "self" (borrow $stream)) (result (result (option $entry) (error $code)))))
    (export "[method]descriptor.sync" (func (param "self" (borrow $descriptor))
      (result (result (error $code)))))))
)"#;

/// What shadows wasmtime's own has the types of the interface.
#[test]
fn guests_of_the_first_version_are_linked() {
    let engine = crate::guest::engine::on_demand().unwrap();
    let component = Component::new(&engine, IMPORTS).unwrap();
    let linker = crate::guest::state::component_linker(&engine).unwrap();
    linker.instantiate_pre(&component).map(drop).unwrap();
}
