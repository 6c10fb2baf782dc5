//! A server on loopback that answers as a test wants it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, OpCode};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::DnsServer;
use super::forward::{framed, read_framed};

/// Answers until the tasks are dropped. The closure hears the question and whether it came over
/// TCP, and completes the answer; where it says no, none is given.
pub(crate) async fn upstream(
    complete: impl Fn(&Message, bool, &mut Message) -> bool + Send + Sync + 'static,
) -> (SocketAddr, JoinSet<()>) {
    let server = DnsServer::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let udp = UdpSocket::from_std(server.udp).unwrap();
    let tcp = TcpListener::from_std(server.tcp).unwrap();
    let mut tasks = JoinSet::new();
    let answer = Arc::new(move |bytes: &[u8], tcp| {
        let asked = Message::from_vec(bytes).unwrap();
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        answer.metadata.recursion_available = true;
        answer.add_query(asked.queries[0].clone());
        answer.edns = asked.edns.is_some().then(Edns::new);
        complete(&asked, tcp, &mut answer).then(|| answer.to_vec().unwrap())
    });
    let by_datagram = answer.clone();
    tasks.spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
            if let Some(reply) = by_datagram(&buffer[..length], false) {
                // A forged answer comes first.
                let mut forged = reply.clone();
                forged[0] ^= 0xff;
                udp.send_to(&forged, client).await.unwrap();
                udp.send_to(&reply, client).await.unwrap();
            }
        }
    });
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let Ok(question) = read_framed(&mut stream, 4096).await else {
                continue;
            };
            match answer(&question, true) {
                Some(reply) => stream.write_all(&framed(&reply)).await.unwrap(),
                None => std::future::pending().await,
            }
        }
    });
    (server.address, tasks)
}
