//! Machines for tests: a network of their own, and mounts of their own for `/run`.
//!
//! Both end with the thread, and the real machine never sees them.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::UnshareFlags;

use super::apply;
use super::inside;
use super::links::{Links, NewLink, RT_SCOPE_UNIVERSE, Route, Way};
use crate::nftables;
use crate::service_rules::table_of;

/// Runs a test as on a machine of its own. Without the rights it is skipped, and says so.
pub(crate) fn on_a_machine_of_its_own(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || match leave() {
        Ok(()) => {
            test();
            None
        }
        Err(error) => Some(error),
    });
    match thread.join() {
        Ok(None) => {}
        Ok(Some(error)) => {
            let root = rustix::process::geteuid().is_root();
            assert!(
                !root || std::env::var_os("CI").is_none(),
                "root cannot make namespaces here: {error}"
            );
            eprintln!("SKIPPED: namespaces cannot be made here: {error}");
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[expect(unsafe_code, reason = "system calls")]
fn leave() -> io::Result<()> {
    // SAFETY: files are still shared with the other threads.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS)? };
    let mount = |what: &std::ffi::CStr, at: &std::ffi::CStr, flags| {
        // SAFETY: all texts end with a zero and live during the call.
        let code = unsafe {
            libc::mount(
                what.as_ptr(),
                at.as_ptr(),
                what.as_ptr(),
                flags,
                std::ptr::null(),
            )
        };
        if code == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)?;
    mount(c"tmpfs", c"/run", 0)?;
    let mut links = Links::open()?;
    let lo = links.index("lo")?.ok_or(io::ErrorKind::NotFound)?;
    links.set_up(lo)
}

/// The machine's address towards the outside.
pub(crate) const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Somebody outside, who knows no way to Pods.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// Gives the machine an uplink, and makes what is at its other end.
pub(crate) fn outside() -> File {
    let namespace = apply::namespace(Path::new("/run/netns/outside"), None).unwrap();
    let mut links = Links::open().unwrap();
    let named = |name| NewLink {
        name,
        ..NewLink::default()
    };
    links
        .add_pair(named("uplink"), named("down"), &namespace)
        .unwrap();
    end(&mut links, "uplink", UPLINK);
    route("uplink", "0.0.0.0/0", Some(OUTSIDE));
    inside(&namespace, || {
        let mut links = Links::open()?;
        end(&mut links, "down", OUTSIDE);
        route("down", "198.51.100.0/24", None);
        apply::carries("down")
    })
    .unwrap();
    apply::carries("uplink").unwrap();
    namespace
}

/// Gives a link its address.
fn end(links: &mut Links, name: &str, own: Ipv4Addr) {
    let index = links.index(name).unwrap().unwrap();
    links.add_address(index, own, RT_SCOPE_UNIVERSE).unwrap();
    links.set_up(index).unwrap();
}

/// Gives an address to who is outside, in the calling thread's namespace.
pub(crate) fn own(address: Ipv4Addr) {
    end(&mut Links::open().unwrap(), "down", address);
}

/// Sets a route in the calling thread's namespace.
pub(crate) fn route(name: &str, to: &str, gateway: Option<Ipv4Addr>) {
    let mut links = Links::open().unwrap();
    let way = Way::Gateway {
        gateway,
        source: None,
    };
    let route = Route {
        destination: to.parse().unwrap(),
        way,
        link: links.index(name).unwrap().unwrap(),
    };
    links.set_route(&route).unwrap();
}

/// What there is of ours: links, files of namespaces, and whether one of a node's tables is there.
pub(crate) fn ours(table: &str) -> (Vec<String>, Vec<String>, bool) {
    let links = Links::open().unwrap().list().unwrap();
    let links = links.into_iter().map(|link| link.name);
    let files = std::fs::read_dir("/run/netns").into_iter().flatten();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let ours = |name: &String| name.starts_with("cor");
    (
        links.filter(ours).collect(),
        files.filter(ours).collect(),
        [table, &table_of(table)].map(|table| nftables::exists(table).unwrap()) != [false; 2],
    )
}

/// Listens in a namespace; answers the callers' addresses.
pub(crate) fn listen(namespace: &File, address: SocketAddr) -> io::Result<TcpListener> {
    inside(namespace, || TcpListener::bind(address))
}

/// Connects from an address, by a socket made in the calling thread's namespace.
pub(crate) fn connect(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // What is not answered is to fail and not to hang.
    let patience = Some(Duration::from_secs(10));
    let direction = rustix::net::sockopt::Timeout::Send;
    rustix::net::sockopt::set_socket_timeout(&socket, direction, patience)?;
    if let Some(source) = source {
        rustix::net::bind(&socket, &source)?;
    }
    rustix::net::connect(&socket, &to)?;
    Ok(socket.into())
}

/// [`connect`] in a namespace.
pub(crate) fn connect_inside(
    namespace: &File,
    source: Option<SocketAddr>,
    to: SocketAddr,
) -> io::Result<TcpStream> {
    inside(namespace, || connect(source, to))
}
