//! Overlay mounts, each in a mount namespace of its own: nothing of them is seen on the machine,
//! and they end with whoever is in the namespace.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// Layers that one mount takes, less than the kernel's 500: their names have to fit one page.
pub(crate) const LAYERS: usize = 200;

/// Gives the calling thread a mount namespace of its own, into which mounts of the machine come
/// and out of which none go. For a thread that does nothing else afterwards.
pub(crate) fn enter_own_namespace() -> io::Result<()> {
    unshare_mounts()?;
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change("/", downstream)?)
}

/// The same with mounts that still are shared with the machine's.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: unshare with CLONE_NEWNS touches no memory. The thread shares its working directory
    // with no other afterwards, which is what its callers want.
    match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Parts the mounts of the calling thread's namespace from those that they were shared with: none
/// come any more, and none go.
pub(crate) fn part_mounts() -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", private)?)
}

/// Changes a mount, by its root.
pub(crate) fn set_attributes(tree: &OwnedFd, attributes: &libc::mount_attr) -> io::Result<()> {
    set_attributes_of(tree, attributes, libc::AT_EMPTY_PATH)
}

/// Changes a mount, by its root, with all that is mounted below it.
pub(crate) fn set_all_attributes(tree: &OwnedFd, attributes: &libc::mount_attr) -> io::Result<()> {
    set_attributes_of(tree, attributes, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE)
}

fn set_attributes_of(
    tree: &OwnedFd,
    attributes: &libc::mount_attr,
    flags: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the path is a string and the attributes are of the size that is given; both live
    // until the call returns.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const *attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where writes to an overlay go.
pub(crate) struct Upper<'a> {
    pub(crate) files: &'a Path,
    /// An empty folder of the same file system.
    pub(crate) work: &'a Path,
}

/// Mounts folders over each other at `target`, the lowest first. Without an upper there are two at
/// least, and nothing is written.
pub(crate) fn overlay(
    lowers: &[impl AsRef<Path>],
    upper: Option<&Upper<'_>>,
    target: &Path,
    flags: MountFlags,
) -> io::Result<()> {
    if lowers.len() > LAYERS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} layers, of which at most {LAYERS} can be mounted",
                lowers.len()
            ),
        ));
    }
    // Descriptors stand for the folders: all options have to fit one page, and folders may have
    // names of any length and with any character.
    let open = |path: &Path| File::open(path);
    let lowers: Vec<File> = lowers
        .iter()
        .rev()
        .map(|path| open(path.as_ref()))
        .collect::<io::Result<_>>()?;
    let upper = upper
        .map(|upper| io::Result::Ok([open(upper.files)?, open(upper.work)?]))
        .transpose()?;
    let name = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let names: Vec<String> = lowers.iter().map(name).collect();
    let mut options = format!("lowerdir={}", names.join(":"));
    if let Some([files, work]) = &upper {
        options = format!("{options},upperdir={},workdir={}", name(files), name(work));
    }
    let options = CString::new(options)?;
    Ok(mount(
        "overlay",
        target,
        "overlay",
        flags,
        options.as_c_str(),
    )?)
}
