//! Where what a container is made of is put together if its Pod has users of its own
//! (`hostUsers: false`).
//!
//! libcontainer looks for all of it when it has joined those users: as root of theirs, who on the
//! machine is nobody, and passes none of the node's folders. So its parts are mounted below a
//! folder that everybody may pass, in the mount namespace of the process that makes the container
//! ([`crate::shim`]). The folder on the machine is there to be mounted over, and stays empty.

use std::path::{Path, PathBuf};

/// The folder.
pub(crate) const PLACE: &str = "/run/coracle-containers";

fn below(name: &str) -> PathBuf {
    Path::new(PLACE).join(name)
}

/// The container's own files.
pub(crate) fn rootfs() -> PathBuf {
    below("rootfs")
}

/// A volume, by its number among those of the container.
pub(crate) fn volume(number: usize) -> PathBuf {
    below("volumes").join(number.to_string())
}

/// A namespace that is joined, by its kind.
pub(crate) fn namespace(kind: &str) -> PathBuf {
    below("namespaces").join(kind)
}

/// A layer of an image, while an overlay is made of it.
pub(crate) fn layer(number: usize) -> PathBuf {
    below("layers").join(number.to_string())
}
