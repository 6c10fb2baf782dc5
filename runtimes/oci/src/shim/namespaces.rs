//! The namespaces of a Pod, which its shim makes by being in them.

use std::io;
use std::os::fd::AsRawFd;

use coracle_runtime::Network;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::protocol::Launch;

/// Puts this process into the namespaces that the containers of the Pod share.
pub(super) fn enter(launch: &Launch) -> io::Result<()> {
    let loopback = launch.namespaces.network == Network::Loopback;
    let mut flags = libc::CLONE_NEWUTS;
    if loopback {
        flags |= libc::CLONE_NEWNET;
    }
    if !launch.namespaces.host_ipc {
        flags |= libc::CLONE_NEWIPC;
    }
    // SAFETY: unshare touches no memory; this process has one thread.
    if unsafe { libc::unshare(flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::system::sethostname(launch.hostname.as_bytes())?;
    if loopback {
        raise_loopback()?;
    }
    Ok(())
}

/// A new network namespace has a loopback interface that is down.
fn raise_loopback() -> io::Result<()> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: an ifreq of zeros is a request without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (into, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *into = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is of the type that this call takes, and lives until it returns.
    match unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
