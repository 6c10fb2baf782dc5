//! Volumes that lie below other volumes.
//!
//! libcontainer follows links in a volume to where the next is to be mounted, anywhere in the
//! container: whoever writes to the volume could have the next one mounted over the container's
//! root, which libcontainer (0.7) then enters by its path on the machine, to make the links and
//! devices of `dev`. So such volumes are mounted here, below the folder of the volume in which they
//! lie and by descriptors that never leave it, however it changes meanwhile; and libcontainer gets
//! that one with all that is below it, as one mount.
//!
//! Of what is below others the specification on the disk says what it said; libcontainer reads
//! another, that is mounted over it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, mount_bind, move_mount, open_tree};
use serde::Deserialize;
use serde_json::{Value, json};

use super::landing::{self, Landing};
use super::staging;
use crate::overlay;
use crate::protocol::{Staged, Start};

/// How often a path is followed again that a change elsewhere on the machine has disturbed.
const TRIES: usize = 32;

/// A mount, as the specification has it.
#[derive(Clone, Debug, Deserialize)]
struct Mount {
    destination: PathBuf,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    source: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }
}

/// Mounts volumes below others, and has libcontainer know of the outermost alone. `rootfs` is what
/// the container has of its image, in a mount namespace of which the machine sees nothing.
pub(super) fn nest(start: &Start, rootfs: &Path) -> io::Result<()> {
    let path = start.bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let Some(listed) = spec.get_mut("mounts").and_then(Value::as_array_mut) else {
        return Ok(());
    };
    let mounts: Vec<Mount> = serde_json::from_value(listed.clone().into())?;
    // Other mounts are the kernel's, in folders that nobody writes to.
    let (numbers, volumes): (Vec<usize>, Vec<&Mount>) = mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.kind == "bind")
        .unzip();
    let destinations = volumes.iter().map(|volume| volume.destination.as_path());
    let landings = landing::landings(destinations, |at| link(&rootfs.join(at)))?;
    let nesting = Nesting {
        staged: &start.staged,
        places: start.bundle.join("nested"),
        volumes: &volumes,
    };
    let outermost = nesting.mount(&landings)?;
    if outermost.is_empty() {
        return Ok(());
    }
    for (volume, place) in outermost {
        let Some(mount) = numbers.get(volume).and_then(|n| listed.get_mut(*n)) else {
            continue;
        };
        mount["source"] = json!(place);
        // It was made so before anything was mounted below.
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "rro");
        }
    }
    let within = numbers.iter().zip(&landings);
    let within = within.filter(|(_, landing)| matches!(landing, Landing::Volume { .. }));
    // From the last, so that the numbers of those before stay what they are.
    for (number, _) in within.rev() {
        listed.remove(*number);
    }
    let nested = start.bundle.join("nested.json");
    fs::write(&nested, serde_json::to_vec(&spec)?)?;
    Ok(mount_bind(&nested, &path)?)
}

/// What a link holds; none of what is no link.
fn link(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(None),
            _ => Err(error),
        },
    }
}

struct Nesting<'a> {
    staged: &'a [Staged],
    /// The folder for volumes that have no place yet.
    places: PathBuf,
    volumes: &'a [&'a Mount],
}

impl Nesting<'_> {
    /// Mounts what lies below volumes; the outermost of those, and where they are.
    fn mount(&self, landings: &[Landing]) -> io::Result<Vec<(usize, PathBuf)>> {
        let has_some = |number: usize| {
            let within =
                |of: &Landing| matches!(of, Landing::Volume { inner, .. } if *inner == number);
            landings.iter().any(within)
        };
        // The roots of those that have others below them.
        let mut roots: BTreeMap<usize, OwnedFd> = BTreeMap::new();
        let mut outermost = Vec::new();
        for (number, (volume, landing)) in self.volumes.iter().zip(landings).enumerate() {
            match landing {
                Landing::Image(_) if has_some(number) => {
                    let (root, place) = self
                        .place(number, volume)
                        .map_err(|error| about(volume, error))?;
                    roots.insert(number, root);
                    outermost.push((number, place));
                }
                Landing::Image(_) => {}
                Landing::Volume { inner, below, .. } => {
                    let (Some(root), Some(within)) = (roots.get(inner), self.volumes.get(*inner))
                    else {
                        continue;
                    };
                    let tree = self
                        .mount_below(volume, within, root, below)
                        .map_err(|error| about(volume, error))?;
                    roots.insert(number, tree);
                }
            }
        }
        Ok(outermost)
    }

    fn staged(&self, volume: &Mount) -> Option<&Staged> {
        self.staged.iter().find(|of| of.at == volume.source)
    }

    /// The root of an outermost volume that is mounted for itself, and where that is.
    fn place(&self, number: usize, volume: &Mount) -> io::Result<(OwnedFd, PathBuf)> {
        if self.staged(volume).is_some() {
            let root = open(&volume.source)?;
            restrict_all(&root, volume)?;
            return Ok((root, volume.source.clone()));
        }
        let tree = clone(&volume.source)?;
        if !is_folder(&tree)? {
            return Err(Errno::NOTDIR.into());
        }
        restrict_all(&tree, volume)?;
        let place = self.places.join(number.to_string());
        fs::create_dir_all(&place)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&tree, "", CWD, &place, flags)?;
        Ok((tree, place))
    }

    /// Mounts a volume below the root of another.
    fn mount_below(
        &self,
        volume: &Mount,
        within: &Mount,
        root: &OwnedFd,
        path: &Path,
    ) -> io::Result<OwnedFd> {
        let tree = clone(&volume.source)?;
        if !within.has("ro") {
            // IDs of the other may be mapped: on the disk root of the Pod is root as well.
            let on_disk = match self.staged(within) {
                Some(of) => staging::source(of)?,
                None => open(&within.source)?,
            };
            make(&on_disk, path, is_folder(&tree)?)?;
        }
        restrict(&tree, volume)?;
        restrict_all(&tree, volume)?;
        let target = beneath(root, path)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &target, "", flags)?;
        Ok(tree)
    }
}

fn about(volume: &Mount, error: io::Error) -> io::Error {
    let path = volume.destination.display();
    let why = match Errno::from_io_error(&error) {
        Some(Errno::XDEV | Errno::LOOP) => {
            "its path leads out of the volume in which it lies".to_owned()
        }
        _ => error.to_string(),
    };
    io::Error::new(
        error.kind(),
        format!("a volume cannot be mounted at {path}: {why}"),
    )
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// A mount of what is there, in no namespace, with all that is mounted below it.
fn clone(source: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, source, flags)?)
}

fn is_folder(found: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(found)?.st_mode) == FileType::Directory)
}

/// What a path leads to, links followed; an error if they lead out of the folder.
fn beneath(folder: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            found => return Ok(found?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Makes what is missing of a path at which a folder or a file is to be mounted, as libcontainer
/// does.
fn make(folder: &OwnedFd, path: &Path, of_folder: bool) -> io::Result<()> {
    let mut done = PathBuf::new();
    let mut left = path.components().peekable();
    while let Some(component) = left.next() {
        let Component::Normal(name) = component else {
            return Err(Errno::XDEV.into());
        };
        let above = beneath(folder, &done)?;
        done.push(name);
        match beneath(folder, &done) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => {
                found?;
                continue;
            }
        }
        let made = match of_folder || left.peek().is_some() {
            true => mkdirat(&above, name, Mode::from_raw_mode(0o755)),
            false => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                openat(&above, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            }
        };
        match made {
            // Somebody else has, or it is a link that leads to nothing and is found to be so.
            Err(Errno::EXIST) => {}
            made => made?,
        }
    }
    Ok(())
}

/// Gives a mount what its options say of it alone.
fn restrict(tree: &OwnedFd, volume: &Mount) -> io::Result<()> {
    let options = [
        ("ro", libc::MOUNT_ATTR_RDONLY),
        ("nodev", libc::MOUNT_ATTR_NODEV),
        ("noexec", libc::MOUNT_ATTR_NOEXEC),
    ];
    match attributes(volume, &options) {
        Some(attributes) => overlay::set_attributes(tree, &attributes),
        None => Ok(()),
    }
}

/// Gives a mount, and what is mounted below it, what its options say of both.
fn restrict_all(tree: &OwnedFd, volume: &Mount) -> io::Result<()> {
    let options = [
        ("rro", libc::MOUNT_ATTR_RDONLY),
        ("rnodev", libc::MOUNT_ATTR_NODEV),
    ];
    match attributes(volume, &options) {
        Some(attributes) => overlay::set_all_attributes(tree, &attributes),
        None => Ok(()),
    }
}

fn attributes(volume: &Mount, options: &[(&str, u64)]) -> Option<libc::mount_attr> {
    let set = options.iter().filter(|(option, _)| volume.has(option));
    let set = set.fold(0_u64, |set, (_, attribute)| set | *attribute);
    (set != 0).then_some(libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_out_of_its_volume() {
        let outer = tempfile::tempdir().unwrap();
        let volume = outer.path().join("volume");
        fs::create_dir_all(volume.join("real")).unwrap();
        fs::create_dir(outer.path().join("other")).unwrap();
        for (name, target) in [
            ("near", "real/../real"),
            ("root", "/"),
            ("up", "../other"),
            ("none", "missing"),
            ("self", "self"),
        ] {
            symlink(target, volume.join(name)).unwrap();
        }
        let root = open(&volume).unwrap();
        let found = |path: &str, folder: bool| {
            let path = Path::new(path);
            let found = make(&root, path, folder).and_then(|()| beneath(&root, path));
            let found = found.and_then(|found| is_folder(&found));
            found.map_err(|error| Errno::from_io_error(&error).unwrap())
        };
        for (path, folder, expected) in [
            ("real", true, Ok(true)),
            ("near/made/below", true, Ok(true)),
            ("near/made/file", false, Ok(false)),
            ("new/file", false, Ok(false)),
            ("new/file/below", true, Err(Errno::NOTDIR)),
            ("root", true, Err(Errno::XDEV)),
            ("root/x", true, Err(Errno::XDEV)),
            ("up", true, Err(Errno::XDEV)),
            ("up/made", true, Err(Errno::XDEV)),
            ("..", true, Err(Errno::XDEV)),
            ("real/../../other", true, Err(Errno::XDEV)),
            ("none", true, Err(Errno::NOENT)),
            ("none", false, Err(Errno::NOENT)),
            ("self", true, Err(Errno::LOOP)),
        ] {
            assert_eq!(found(path, folder), expected, "{path}");
        }
        assert!(volume.join("real/made/file").is_file());
        assert!(!volume.join("missing").exists());
        assert_eq!(fs::read_dir(outer.path().join("other")).unwrap().count(), 0);
    }
}
