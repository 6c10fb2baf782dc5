//! Wakes when something in a folder changes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
pub(crate) use rustix::fs::inotify::WatchFlags;
use tokio::io::unix::AsyncFd;

/// Watches one folder; the watch ends when this is dropped.
pub(crate) struct Watcher {
    fd: AsyncFd<OwnedFd>,
}

impl Watcher {
    /// Watches a folder that is there for changes of these kinds.
    pub(crate) fn new(folder: &Path, flags: WatchFlags) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&fd, folder, flags)?;
        // SAFETY: an OwnedFd names the same open description until it is dropped, and it is
        // dropped with the AsyncFd, which is the only one that holds it.
        let fd = unsafe { AsyncFd::register(fd)? };
        Ok(Self { fd })
    }

    /// Returns once there was a change since the last call; false if the folder is not
    /// there any more, or elsewhere.
    /// Safe to drop half way.
    pub(crate) async fn changed(&mut self) -> io::Result<bool> {
        loop {
            let mut ready = self.fd.readable().await?;
            let (mut seen, mut gone) = (false, false);
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => {
                        seen = true;
                        let away = inotify::ReadFlags::IGNORED | inotify::ReadFlags::MOVE_SELF;
                        gone |= event.events().intersects(away);
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if seen {
                return Ok(!gone);
            }
        }
    }
}
