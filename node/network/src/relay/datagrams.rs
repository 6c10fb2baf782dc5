//! Passing datagrams on: a socket of its own for each client, by which replies find back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Clients of one socket at a time.
const FLOWS: usize = 1024;
/// A client that is quiet for so long starts anew, as with conntrack.
const FLOW_IDLE: Duration = Duration::from_secs(60);

/// Passes on what comes to a socket, to where `choose` says for a new client's address.
pub(crate) async fn pass(
    socket: UdpSocket,
    choose: impl Fn(IpAddr) -> Option<SocketAddr>,
) -> io::Result<()> {
    let socket = Arc::new(socket);
    let flows: Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>> = Arc::default();
    let mut replies = JoinSet::new();
    let mut datagram = vec![0; 65_535];
    loop {
        let (length, client) = tokio::select! {
            received = socket.recv_from(&mut datagram) => match received {
                Ok(received) => received,
                // An ICMP error of an earlier datagram.
                Err(_) => continue,
            },
            Some(_) = replies.join_next() => continue,
        };
        let known = flows.lock().get(&client).cloned();
        let upstream = match known {
            Some(upstream) => upstream,
            None if flows.lock().len() >= FLOWS => continue,
            None => {
                let Some(actual) = choose(client.ip()) else {
                    continue;
                };
                let upstream = UdpSocket::bind((any(actual), 0)).await?;
                if upstream.connect(actual).await.is_err() {
                    continue;
                }
                let upstream = Arc::new(upstream);
                flows.lock().insert(client, upstream.clone());
                let (socket, flows, from) = (socket.clone(), flows.clone(), upstream.clone());
                replies.spawn(async move {
                    relay_replies(&from, &socket, client).await;
                    flows.lock().remove(&client);
                });
                upstream
            }
        };
        if upstream.send(&datagram[..length]).await.is_err() {
            // The endpoint is gone; the client's next datagram finds another.
            flows.lock().remove(&client);
        }
    }
}

/// From wherever the way to `actual` begins.
fn any(actual: SocketAddr) -> IpAddr {
    match actual {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

async fn relay_replies(upstream: &UdpSocket, socket: &UdpSocket, client: SocketAddr) {
    let mut datagram = vec![0; 65_535];
    while let Ok(Ok(length)) = tokio::time::timeout(FLOW_IDLE, upstream.recv(&mut datagram)).await {
        if socket.send_to(&datagram[..length], client).await.is_err() {
            return;
        }
    }
}
