//! Where libcontainer sends the master of a terminal that it has made inside a container: a socket
//! in the file system, of which it is told the path.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use coracle_runtime::connection::receive_with;

/// A socket for one terminal, which goes with it.
pub(crate) struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    /// Listens under a name of its own in a folder that is nobody else's.
    pub(crate) fn listen(folder: &Path, name: &str) -> io::Result<Self> {
        let opened = File::open(folder)?;
        // Paths of sockets are bounded at 107 bytes, paths of folders are not.
        let short = format!("/proc/self/fd/{}/{name}", opened.as_raw_fd());
        let listener = UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        let path = folder.join(name);
        Ok(Self { path, listener })
    }

    /// What libcontainer is told.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The socket, which becomes readable when somebody connects.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The connection of whoever sends a terminal, which comes before that.
    pub(crate) fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// The master, once whatever runs on the terminal has been executed: it was sent before.
    pub(crate) fn take(&self) -> io::Result<OwnedFd> {
        receive(&self.accept()?)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It goes with its folder at the latest.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The master that was sent.
pub(crate) fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let (_, descriptors) = receive_with(stream, &mut [0; 64])?;
    let mut descriptors = descriptors.into_iter();
    let master = descriptors.next();
    master.ok_or_else(|| io::Error::other("no terminal was sent"))
}
