//! The namespaces of a Pod, which its shim makes by being in them.
//!
//! Those of a Pod with users of its own (`hostUsers: false`) belong to these users: they are made
//! inside the user namespace, by a process that ends again, and the shim goes into all of them but
//! that one. It stays root of the machine, since it mounts, writes logs and moves processes between
//! control groups. The user namespace is the one to which the Pod's network namespace belongs,
//! where the Pod was given one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use coracle_runtime::Network;
use coracle_runtime::users::{self, IdRange, Owner};
use rustix::net::{AddressFamily, SocketType, socket};

use crate::protocol::Launch;

/// Puts this process into the namespaces that the containers of the Pod share, and gives that of the
/// Pod's own users, if it has some.
pub(super) fn enter(launch: &Launch) -> io::Result<Option<OwnedFd>> {
    let loopback = launch.namespaces.network == Network::Loopback;
    let mut flags = libc::CLONE_NEWUTS;
    if loopback {
        flags |= libc::CLONE_NEWNET;
    }
    if !launch.namespaces.host_ipc {
        flags |= libc::CLONE_NEWIPC;
    }
    let users = match launch.namespaces.users {
        Some(range) => Some(enter_owned(range, &launch.namespaces.network, flags)?),
        None => {
            // SAFETY: unshare touches no memory; this process has one thread.
            if unsafe { libc::unshare(flags) } != 0 {
                return Err(io::Error::last_os_error());
            }
            None
        }
    };
    rustix::system::sethostname(launch.hostname.as_bytes())?;
    if loopback {
        raise_loopback()?;
    }
    Ok(users)
}

/// The same where the namespaces belong to users of the Pod's own, whose namespace it gives.
fn enter_owned(range: IdRange, network: &Network, kinds: libc::c_int) -> io::Result<OwnedFd> {
    let known = match network {
        Network::Namespace(path) => {
            let owner = users::owner(File::open(path)?)?;
            Some(owner.ok_or_else(|| {
                let path = path.display();
                io::Error::other(format!("{path} does not belong to users of the Pod's own"))
            })?)
        }
        Network::Loopback | Network::Host => None,
    };
    let owner = match &known {
        Some(users) => Owner::Known(users.as_fd()),
        None => Owner::New(range),
    };
    let take = |made: &Path| {
        for (kind, name) in [
            (libc::CLONE_NEWUTS, "uts"),
            (libc::CLONE_NEWIPC, "ipc"),
            (libc::CLONE_NEWNET, "net"),
        ] {
            if kinds & kind == 0 {
                continue;
            }
            let namespace = File::open(made.join(name))?;
            // SAFETY: setns touches no memory; this process has one thread.
            if unsafe { libc::setns(namespace.as_raw_fd(), kind) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(OwnedFd::from(File::open(made.join("user"))?))
    };
    users::make(owner, kinds, take).map_err(|error| {
        let text = format!("users of the Pod's own (hostUsers: false): {error}");
        io::Error::new(error.kind(), text)
    })
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
