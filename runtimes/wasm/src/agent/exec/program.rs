//! The program of a command: found by its name, and read as the container's guests could.
//!
//! **Invariant:** a file is opened with the rights of the guest's user and beneath the volume's
//! folder: no link, and no `..`, leads the agent where the guest could not go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_images::Digest;
use coracle_runtime::{GuestUser, Mount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::protocol::GuestSpec;

/// What exec says of everything else.
pub(super) const NOT_WASM: &str = "exec: a WebAssembly container runs nothing but WebAssembly: the command is a path that ends in \
     .wasm in one of the container's volumes, or the title of a layer of its image";
/// Largest program, bytes.
const MAX_PROGRAM: u64 = 64 << 20;

/// Where a program is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A layer of the image.
    Layer(Digest),
    /// A file in a volume.
    File(VolumeFile),
}

/// A file beneath a folder of the machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct VolumeFile {
    folder: PathBuf,
    below: PathBuf,
}

/// What a file held.
pub(super) struct Copied {
    pub(super) digest: Digest,
    file: tempfile::NamedTempFile,
}

impl Copied {
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Where the program of a guest's command is, of an image with these layers.
pub(super) fn find(spec: &GuestSpec, layers: &BTreeMap<String, Digest>) -> Result<Found, String> {
    let name = spec.argv.first().ok_or(NOT_WASM)?;
    if let Some(digest) = layers.get(name) {
        return Ok(Found::Layer(digest.clone()));
    }
    if !name.ends_with(".wasm") {
        return Err(NOT_WASM.to_owned());
    }
    let from = spec.working_dir.as_deref().unwrap_or("/");
    let path = Path::new(from).join(name);
    let holds = |mount: &&Mount| path.starts_with(&mount.container_path);
    let depth = |mount: &&Mount| mount.container_path.components().count();
    let mount = spec.mounts.iter().filter(holds).max_by_key(depth);
    let mount = mount.ok_or(NOT_WASM)?;
    let below = path.strip_prefix(&mount.container_path).unwrap_or(&path);
    if below != Path::new("") {
        return Ok(Found::File(VolumeFile {
            folder: mount.host_path.clone(),
            below: below.to_owned(),
        }));
    }
    // The volume is that file.
    match (mount.host_path.parent(), mount.host_path.file_name()) {
        (Some(folder), Some(file)) => Ok(Found::File(VolumeFile {
            folder: folder.to_owned(),
            below: file.into(),
        })),
        _ => Err(NOT_WASM.to_owned()),
    }
}

impl VolumeFile {
    /// Copies it as it is now into a folder, opened as that user.
    pub(super) fn copy(&self, user: Option<GuestUser>, into: &Path) -> Result<Copied, String> {
        let file = self.open(user).map_err(|error| match error.kind() {
            io::ErrorKind::CrossesDevices => "it lies outside of its volume".to_owned(),
            _ => error.to_string(),
        })?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("it is no file".to_owned());
        }
        let mut bytes = Vec::new();
        file.take(MAX_PROGRAM + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        if bytes.len() as u64 > MAX_PROGRAM {
            return Err(format!(
                "it has more than the {MAX_PROGRAM} bytes that a command may have"
            ));
        }
        let written = tempfile::NamedTempFile::new_in(into).and_then(|mut file| {
            file.write_all(&bytes)?;
            Ok(file)
        });
        let file = written.map_err(|error| format!("copying it: {error}"))?;
        Ok(Copied {
            digest: Digest::of(&bytes),
            file,
        })
    }

    fn open(&self, user: Option<GuestUser>) -> io::Result<File> {
        let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, &self.folder, path, Mode::empty())?;
        let open = || -> io::Result<OwnedFd> {
            // A pipe holds nobody up.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            Ok(openat2(&folder, &self.below, flags, Mode::empty(), inside)?)
        };
        let opened = match user {
            None => open(),
            Some(user) => std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    act_as(user)?;
                    open()
                });
                let ended = thread.join();
                ended.unwrap_or_else(|_| Err(io::Error::other("the thread that opens it broke")))
            }),
        };
        Ok(opened?.into())
    }
}

/// Gives the calling thread, which is to end soon, the rights of a user. It stays root's to everybody
/// else: who may signal or trace it goes by its real user.
fn act_as(user: GuestUser) -> io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(None, Gid::from_raw(user.gid), None)?;
    set_thread_res_uid(None, Uid::from_raw(user.uid), None)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn file(folder: &str, below: &str) -> Found {
        Found::File(VolumeFile {
            folder: folder.into(),
            below: below.into(),
        })
    }

    #[test]
    fn a_program_is_a_layer_or_a_file_of_a_volume() {
        let layer = Digest::of(b"layer");
        let layers = BTreeMap::from([("tool".to_owned(), layer.clone())]);
        let mount = |host: &str, inside: &str| Mount {
            host_path: host.into(),
            container_path: inside.into(),
            ..Mount::default()
        };
        let mounts = vec![
            mount("/host/data", "/data"),
            mount("/host/deep", "/data/deep"),
            mount("/host/files/one", "/bin/one.wasm"),
        ];
        let refused = || Err(NOT_WASM.to_owned());
        for (name, working_dir, expected) in [
            ("tool", None, Ok(Found::Layer(layer))),
            ("/data/a.wasm", None, Ok(file("/host/data", "a.wasm"))),
            (
                "/data/deep/b/a.wasm",
                None,
                Ok(file("/host/deep", "b/a.wasm")),
            ),
            ("/bin/one.wasm", None, Ok(file("/host/files", "one"))),
            ("a.wasm", Some("/data"), Ok(file("/host/data", "a.wasm"))),
            // The kernel refuses it.
            ("/data/../a.wasm", None, Ok(file("/host/data", "../a.wasm"))),
            ("a.wasm", None, refused()),
            ("/etc/a.wasm", None, refused()),
            ("/data/sh", None, refused()),
            ("sh", None, refused()),
        ] {
            let mut spec = crate::protocol::tests::spec();
            spec.argv = vec![name.to_owned()];
            spec.working_dir = working_dir.map(str::to_owned);
            spec.mounts = mounts.clone();
            assert_eq!(find(&spec, &layers), expected, "{name}");
        }
    }

    #[test]
    fn nothing_outside_of_the_volume_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(folder.path().join("secret.wasm"), "secret").unwrap();
        std::fs::write(volume.join("own.wasm"), "own").unwrap();
        symlink("own.wasm", volume.join("link.wasm")).unwrap();
        symlink("../secret.wasm", volume.join("up.wasm")).unwrap();
        symlink(folder.path(), volume.join("away")).unwrap();
        std::fs::create_dir(volume.join("folder.wasm")).unwrap();
        let fifo = (volume.join("pipe.wasm"), rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(CWD, &fifo.0, fifo.1, Mode::RUSR, 0).unwrap();
        let large = File::create(volume.join("large.wasm")).unwrap();
        large.set_len(MAX_PROGRAM + 1).unwrap();
        let copy = |below: &str, user| {
            let file = VolumeFile {
                folder: volume.clone(),
                below: below.into(),
            };
            let copied = file.copy(user, folder.path())?;
            Ok::<_, String>(std::fs::read_to_string(copied.path()).unwrap())
        };
        for below in ["own.wasm", "link.wasm"] {
            assert_eq!(copy(below, None), Ok("own".to_owned()));
        }
        for below in ["../secret.wasm", "up.wasm", "away/secret.wasm"] {
            let error = copy(below, None).unwrap_err();
            assert_eq!(error, "it lies outside of its volume", "{below}");
        }
        for (below, why) in [
            ("folder.wasm", "no file"),
            ("pipe.wasm", "no file"),
            ("large.wasm", "more than"),
            ("none.wasm", "No such file"),
        ] {
            let error = copy(below, None).unwrap_err();
            assert!(error.contains(why), "{below}: {error}");
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root reads as somebody else");
            return;
        }
        // What its user may not read the agent does not read for it.
        let user = Some(GuestUser { uid: 7, gid: 8 });
        let set = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(volume.join("own.wasm"), permissions).unwrap();
        };
        std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o711)).unwrap();
        set(0o604);
        assert_eq!(copy("own.wasm", user), Ok("own".to_owned()));
        set(0o600);
        assert!(copy("own.wasm", user).unwrap_err().contains("denied"));
        assert!(rustix::process::geteuid().is_root(), "it was a thread's");
        assert_eq!(copy("own.wasm", None), Ok("own".to_owned()));
    }
}
