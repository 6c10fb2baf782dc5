//! Makes what is planned: the calls that need rights.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use coracle_runtime::users::{self, IdRange, Owner};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::links::{Links, NewLink, RT_SCOPE_LINK, Route, unless_there};
use super::plan::{INSIDE, LINK_GROUP, NAMESPACES, Names, Plan, Setting, Side};

/// Held while the machine's network is looked at and changed, so that the nodes of two clusters
/// do not both find a range free.
const LOCK: &str = "/run/coracle-network.lock";
/// Files of namespaces are on this file system (`linux/magic.h`).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Waits until no other node changes the machine's network.
pub(crate) fn lock() -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)?;
    file.lock()?;
    Ok(file)
}

/// Does something on a thread in the namespace. Sockets stay in the namespace where they are made.
pub(crate) fn inside<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_a_thread(|| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })
}

/// Namespaces are a thread's: what changes its own is done on one that ends with the work.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("pod-namespace".to_owned())
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the thread in the namespace panicked")),
        }
    })
}

/// Opens the namespace bound to a path; makes it if it is not there, among users of its own if it is
/// to belong to some.
pub(super) fn namespace(path: &Path, users: Option<IdRange>) -> io::Result<File> {
    if is_namespace(path)? {
        return File::open(path);
    }
    std::fs::create_dir_all(NAMESPACES)?;
    // What a mount is bound over must be there. One may be left without its mount.
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let made = match users {
        None => on_a_thread(|| {
            // SAFETY: only the network of this thread changes; it shares all its files still.
            #[expect(unsafe_code, reason = "rustix marks it for what other flags do")]
            unsafe {
                rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
            }
            mounts::bind(Path::new("/proc/thread-self/ns/net"), path)
        }),
        // The file keeps the users too.
        Some(range) => users::make(Owner::New(range), libc::CLONE_NEWNET, |made| {
            mounts::bind(&made.join("net"), path)
        })
        .map_err(|error| {
            let text = format!("user namespaces cannot be made on this machine: {error}");
            io::Error::new(error.kind(), text)
        }),
    };
    if let Err(error) = made {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    File::open(path)
}

/// Unbinds a namespace and removes its file.
pub(super) fn remove_namespace(path: &Path) -> io::Result<()> {
    if is_namespace(path)? {
        mounts::unbind(path)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_namespace(path: &Path) -> io::Result<bool> {
    match rustix::fs::statfs(path) {
        Ok(found) => Ok(found.f_type == NSFS_MAGIC),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Joins machine and namespace by a pair of links, and says on it whose it is.
pub(super) fn pair(
    links: &mut Links,
    names: &Names,
    namespace: &File,
    claim: &str,
) -> io::Result<()> {
    let whole = inside(namespace, || Links::open()?.index(INSIDE))?.is_some();
    if !whole {
        if let Some(left) = links.index(&names.link)? {
            // Its other end went with an earlier namespace, and it is about to.
            links.delete(left)?;
        }
        let link = NewLink {
            name: &names.link,
            group: LINK_GROUP,
            ..NewLink::default()
        };
        let peer = NewLink {
            name: INSIDE,
            ..NewLink::default()
        };
        links.add_pair(link, peer, namespace)?;
    }
    let link = links.index(&names.link)?.ok_or(ErrorKind::NotFound)?;
    links.mark(link, LINK_GROUP, claim)
}

/// Brings one side in line, in the namespace of the calling thread.
pub(super) fn side(link: &str, side: &Side) -> io::Result<()> {
    set_all(&side.settings)?;
    let mut links = Links::open()?;
    let there = links.list()?;
    let named = |name: &str| {
        let found = there.iter().find(|link| link.name == name);
        found.ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("there is no link {name}")))
    };
    links.set_up(named("lo")?.index)?;
    let own = named(link)?.index;
    if let Some(address) = side.address {
        unless_there(links.add_address(own, address, RT_SCOPE_LINK))?;
    }
    links.set_up(own)?;
    let mut wanted = Vec::new();
    for route in &side.routes {
        let route = route.through(&there).ok_or_else(|| {
            io::Error::new(ErrorKind::NotFound, format!("no link {}", route.link))
        })?;
        links.set_route(&route)?;
        wanted.push(route);
    }
    if !side.complete {
        return Ok(());
    }
    // Of an earlier range of this node.
    for found in links.routes()? {
        let ours = wanted.iter().any(|route| route.link == found.route.link);
        let same = |route: &&Route| {
            route.destination == found.route.destination && route.link == found.route.link
        };
        if ours && found.fixed && !wanted.iter().any(|route| same(&route)) {
            links.delete_route(&found.route)?;
        }
    }
    Ok(())
}

/// Waits until a link of a pair whose both ends are up sends what it is given.
pub(super) fn carries(link: &str) -> io::Result<()> {
    let mut links = Links::open()?;
    let index = links.index(link)?.ok_or(ErrorKind::NotFound)?;
    links.wait_for_carrier(index)
}

/// Brings in line what is on the machine beside a side: what is refused.
pub(super) fn beside(plan: &Plan) -> io::Result<()> {
    match plan.refused {
        Some(range) => Links::open()?.refuse(range),
        None => Ok(()),
    }
}

/// Sets them in order.
pub(super) fn set_all(settings: &[Setting]) -> io::Result<()> {
    settings.iter().try_for_each(set)
}

/// Settings of the network are those of the calling thread's namespace.
fn set(setting: &Setting) -> io::Result<()> {
    let path = PathBuf::from("/proc/sys").join(&setting.path);
    match std::fs::read_to_string(&path) {
        Ok(value) if value.trim() == setting.value => return Ok(()),
        Err(error) if setting.optional && error.kind() == ErrorKind::NotFound => return Ok(()),
        // Writing says what is wrong.
        _ => {}
    }
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    std::fs::write(&path, setting.value).map_err(failed)
}

/// Mounting, for which the standard library has no calls.
mod mounts {
    use std::ffi::CString;
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    pub(super) fn bind(what: &Path, place: &Path) -> io::Result<()> {
        let (what, place) = (text(what)?, text(place)?);
        // SAFETY: both texts end with a zero and live during the call; a bind mount reads
        // neither of the other pointers.
        #[expect(unsafe_code, reason = "a system call")]
        let code = unsafe {
            libc::mount(
                what.as_ptr(),
                place.as_ptr(),
                std::ptr::null(),
                libc::MS_BIND,
                std::ptr::null(),
            )
        };
        outcome(code)
    }

    pub(super) fn unbind(place: &Path) -> io::Result<()> {
        let place = text(place)?;
        // SAFETY: the text ends with a zero and lives during the call.
        #[expect(unsafe_code, reason = "a system call")]
        let code = unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
        outcome(code)
    }

    fn text(path: &Path) -> io::Result<CString> {
        CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
    }

    fn outcome(code: libc::c_int) -> io::Result<()> {
        match code {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
