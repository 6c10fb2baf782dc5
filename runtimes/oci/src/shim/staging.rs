//! Volumes whose later mounts propagate (`mountPropagation`), those in whose path a container may
//! have put a link meanwhile (`subPath`), and those that are images.
//!
//! libcontainer binds a volume as its source is, follows links to it, and knows no propagation. So
//! such a volume is taken out of the machine's mounts while those still are shared, without
//! following any link, and put where the specification has its source, in the namespace of which
//! the container gets a copy. So are all volumes of a Pod with users of its own ([`super::users`]).

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use coracle_images::unpack::Root;
use coracle_runtime::Propagation;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount,
    open_tree,
};

use super::users::Users;
use crate::overlay;
use crate::protocol::Staged;

/// A volume that is in no namespace.
pub(super) struct Taken<'a> {
    of: &'a Staged,
    tree: OwnedFd,
    folder: bool,
}

/// Takes volumes out of the mounts that this process sees.
pub(super) fn take(staged: &[Staged]) -> io::Result<Vec<Taken<'_>>> {
    let of_machine = staged.iter().filter(|of| of.lowers.is_empty());
    let taken = of_machine.map(|of| take_one(of).map_err(|error| about(of, error)));
    taken.collect()
}

fn about(of: &Staged, error: impl Into<io::Error>) -> io::Error {
    let (error, source) = (error.into(), of.source.display());
    io::Error::new(error.kind(), format!("volume {source}: {error}"))
}

/// Mounts the images that volumes are of, and puts what of them is wanted where the container's
/// specification has it. For a namespace of which the machine sees nothing.
pub(super) fn put_images(staged: &[Staged], users: Option<&Users>) -> io::Result<()> {
    for of in staged.iter().filter(|of| !of.lowers.is_empty()) {
        let mut whole = of.at.clone().into_os_string();
        whole.push("-image");
        let whole = PathBuf::from(whole);
        fs::create_dir_all(&whole)?;
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOEXEC;
        match users {
            Some(users) => users.overlay(&of.lowers, None, &whole, flags),
            None => overlay::overlay(&of.lowers, None, &whole, flags),
        }
        .map_err(|error| about(of, error))?;
        // Links in an image lead within it.
        let source = Root::open(&whole)?.any(&of.source);
        let taken = source.and_then(|source| tree_of(of, &source));
        put(vec![taken.map_err(|error| about(of, error))?], None)?;
    }
    Ok(())
}

fn take_one(of: &Staged) -> io::Result<Taken<'_>> {
    tree_of(of, &source(of)?)
}

/// The source of a volume, as the machine has it.
pub(super) fn source(of: &Staged) -> io::Result<OwnedFd> {
    let resolve = match of.without_links {
        true => ResolveFlags::NO_SYMLINKS,
        false => ResolveFlags::empty(),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(openat2(CWD, &of.source, flags, Mode::empty(), resolve)?)
}

fn tree_of<'a>(of: &'a Staged, source: &OwnedFd) -> io::Result<Taken<'a>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(source, "", flags)?;
    let kind = FileType::from_raw_mode(fstat(&tree)?.st_mode);
    Ok(Taken {
        of,
        tree,
        folder: kind == FileType::Directory,
    })
}

/// Puts them where the container's specification has them, with IDs that are mapped if the Pod has
/// users of its own: not those of what is mounted below, as with other runtimes.
pub(super) fn put(taken: Vec<Taken<'_>>, users: Option<&Users>) -> io::Result<()> {
    for Taken { of, tree, folder } in taken {
        if let Some(users) = users {
            users.map(&tree).map_err(|error| about(of, error))?;
        }
        match (folder, of.at.parent()) {
            (true, _) => fs::create_dir_all(&of.at)?,
            (false, Some(parent)) => {
                fs::create_dir_all(parent)?;
                File::create(&of.at)?;
            }
            (false, None) => {}
        }
        move_mount(
            &tree,
            "",
            CWD,
            &of.at,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        let how = match of.propagation {
            Propagation::Private => MountPropagationFlags::PRIVATE,
            Propagation::FromMachine => MountPropagationFlags::DOWNSTREAM,
            // As the machine has it.
            Propagation::Both => continue,
        };
        mount_change(&of.at, how | MountPropagationFlags::REC)?;
    }
    Ok(())
}
