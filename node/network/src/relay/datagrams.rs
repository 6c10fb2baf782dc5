//! Passing datagrams on: a socket of its own for each client, by which replies find back.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

/// Clients of one socket at a time.
const FLOWS: usize = 1024;
/// A client that is quiet for so long starts anew, as with conntrack.
const FLOW_IDLE: Duration = Duration::from_secs(60);

/// Passes on what comes to a socket, to where `choose` says for a new client's address, and for as
/// long as `serves` says of both that it is so still.
pub(crate) async fn pass(
    socket: UdpSocket,
    choose: impl Fn(IpAddr) -> Option<SocketAddr>,
    serves: impl Fn(IpAddr, SocketAddr) -> bool,
) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut flows = Flows::default();
    let mut datagram = vec![0; 65_535];
    loop {
        let (length, client) = tokio::select! {
            received = socket.recv_from(&mut datagram) => match received {
                Ok(received) => received,
                // An ICMP error of an earlier datagram.
                Err(_) => continue,
            },
            () = flows.ended() => continue,
        };
        let known = flows.get(client);
        let known = known.filter(|(_, actual)| serves(client.ip(), *actual));
        let upstream = match known {
            Some((upstream, _)) => upstream,
            None => {
                flows.forget(client);
                let Some(actual) = choose(client.ip()).filter(|_| flows.has_room()) else {
                    continue;
                };
                match connect(actual).await {
                    Ok(upstream) => flows.begin(&socket, client, upstream, actual),
                    Err(error) => {
                        tracing::debug!(%client, %actual, %error, "a datagram is not passed on");
                        continue;
                    }
                }
            }
        };
        if upstream.send(&datagram[..length]).await.is_err() {
            // The endpoint is gone; the client's next datagram finds another.
            flows.forget(client);
        }
    }
}

/// One client's way.
struct Flow {
    upstream: Arc<UdpSocket>,
    actual: SocketAddr,
    replies: AbortHandle,
}

/// The clients of a socket. Each has one task, which ends with its flow.
#[derive(Default)]
struct Flows {
    flows: HashMap<SocketAddr, Flow>,
    replies: JoinSet<SocketAddr>,
}

impl Flows {
    fn has_room(&self) -> bool {
        self.flows.len() < FLOWS
    }

    fn get(&self, client: SocketAddr) -> Option<(Arc<UdpSocket>, SocketAddr)> {
        let flow = self.flows.get(&client)?;
        Some((flow.upstream.clone(), flow.actual))
    }

    fn begin(
        &mut self,
        socket: &Arc<UdpSocket>,
        client: SocketAddr,
        upstream: UdpSocket,
        actual: SocketAddr,
    ) -> Arc<UdpSocket> {
        self.forget(client);
        let upstream = Arc::new(upstream);
        let (socket, from) = (socket.clone(), upstream.clone());
        let replies = self.replies.spawn(async move {
            relay_replies(&from, &socket, client).await;
            client
        });
        let flow = Flow {
            upstream: upstream.clone(),
            actual,
            replies,
        };
        self.flows.insert(client, flow);
        upstream
    }

    /// Ends a client's flow. What failed may have told the sender alone, and not who waits for
    /// replies.
    fn forget(&mut self, client: SocketAddr) {
        if let Some(flow) = self.flows.remove(&client) {
            flow.replies.abort();
        }
    }

    /// Waits until a flow has ended, for ever if there is none.
    async fn ended(&mut self) {
        match self.replies.join_next_with_id().await {
            Some(Ok((id, client))) => {
                // The client may have another one by now.
                if self
                    .flows
                    .get(&client)
                    .is_some_and(|flow| flow.replies.id() == id)
                {
                    self.flows.remove(&client);
                }
            }
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// A socket that sends to where `actual` is, from wherever the way there begins.
async fn connect(actual: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match actual {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let upstream = UdpSocket::bind((any, 0)).await?;
    upstream.connect(actual).await?;
    Ok(upstream)
}

async fn relay_replies(upstream: &UdpSocket, socket: &UdpSocket, client: SocketAddr) {
    let mut datagram = vec![0; 65_535];
    while let Ok(Ok(length)) = tokio::time::timeout(FLOW_IDLE, upstream.recv(&mut datagram)).await {
        if socket.send_to(&datagram[..length], client).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bound() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test]
    async fn a_client_has_one_task_however_often_it_begins_anew() {
        let (socket, server) = (Arc::new(bound().await), bound().await);
        let actual = server.local_addr().unwrap();
        let client = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut flows = Flows::default();
        for _ in 0..50 {
            let upstream = connect(actual).await.unwrap();
            flows.begin(&socket, client, upstream, actual);
        }
        assert_eq!(flows.flows.len(), 1);
        let patience = Duration::from_secs(20);
        for _ in 0..49 {
            tokio::time::timeout(patience, flows.ended()).await.unwrap();
        }
        assert_eq!((flows.flows.len(), flows.replies.len()), (1, 1));
        flows.forget(client);
        tokio::time::timeout(patience, flows.ended()).await.unwrap();
        assert!(flows.flows.is_empty() && flows.replies.is_empty());
    }

    #[tokio::test]
    async fn a_client_goes_where_it_is_served_still() {
        let (one, two) = (bound().await, bound().await);
        let servers = [one.local_addr().unwrap(), two.local_addr().unwrap()];
        let socket = bound().await;
        let at = socket.local_addr().unwrap();
        let (now, chosen) = tokio::sync::watch::channel(servers[0]);
        let still = chosen.clone();
        let passing = pass(
            socket,
            move |_| Some(*chosen.borrow()),
            move |_, actual| *still.borrow() == actual,
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(passing);
        let client = bound().await;
        client.connect(at).await.unwrap();
        let mut buffer = [0; 8];
        let patience = Duration::from_secs(20);
        for (server, address) in [&one, &two, &one].into_iter().zip([0, 1, 0]) {
            now.send_replace(servers[address]);
            client.send(b"ahoy").await.unwrap();
            let heard = tokio::time::timeout(patience, server.recv_from(&mut buffer));
            let (_, from) = heard.await.unwrap().unwrap();
            server.send_to(b"aye", from).await.unwrap();
            let heard = tokio::time::timeout(patience, client.recv(&mut buffer));
            assert_eq!(heard.await.unwrap().unwrap(), 3);
        }
    }
}
