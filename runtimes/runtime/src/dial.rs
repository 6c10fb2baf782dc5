//! Connections into the network namespace of a Pod.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to a port of the loopback addresses in a namespace; none: in that of the machine.
/// Blocks.
pub fn loopback(namespace: Option<&Path>, port: u16) -> io::Result<TcpStream> {
    let Some(namespace) = namespace else {
        return connect(port);
    };
    let namespace = File::open(namespace)?;
    // A socket belongs to the namespace of the thread that makes it; this thread ends with it.
    let connected = std::thread::scope(|scope| {
        let dialled = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            connect(port)
        });
        dialled.join()
    });
    connected.unwrap_or_else(|_| Err(io::Error::other("the thread that connects has panicked")))
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let to = |address: SocketAddr| {
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    // Some listen on one of the two alone.
    to((Ipv4Addr::LOCALHOST, port).into())
        .or_else(|first| to((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| first))
}
