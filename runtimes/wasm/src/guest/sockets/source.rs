//! The address from which a guest calls.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use tokio::net::TcpSocket;

/// Binds a socket that is about to connect to `source`, without taking a port yet: the kernel
/// chooses one at the connect, and one port then serves connections to many servers. Bound the
/// usual way, an address has as many outgoing connections as it has ephemeral ports.
pub(crate) fn bind(socket: &TcpSocket, source: SocketAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for as long as the socket is borrowed, and the kernel reads
    // one int at the address of `on`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(source)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_port_is_chosen_at_the_connect() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(local).await;
            let Ok(listener) = listener else {
                eprintln!("skipped: {local} is not on this machine");
                continue;
            };
            let (socket, source) = match local.parse().unwrap() {
                SocketAddr::V4(_) => (TcpSocket::new_v4().unwrap(), "127.0.0.9:0"),
                SocketAddr::V6(_) => (TcpSocket::new_v6().unwrap(), "[::1]:0"),
            };
            let source: SocketAddr = source.parse().unwrap();
            bind(&socket, source).unwrap();
            assert_eq!(socket.local_addr().unwrap(), source);
            let _stream = socket
                .connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (_, caller) = listener.accept().await.unwrap();
            assert_eq!(caller.ip(), source.ip());
            assert_ne!(caller.port(), 0);
        }
    }
}
