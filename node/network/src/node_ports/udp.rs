//! A UDP port.

use std::io;

use coracle_runtime::Protocol;
use tokio::net::UdpSocket;

use super::Forwarder;
use crate::relay;

/// Serves the port until its target's sender is gone.
pub(super) async fn run(forwarder: Forwarder) {
    let mut closed = forwarder.target.clone();
    let gone = async move { while closed.changed().await.is_ok() {} };
    let served = async {
        let mut is_said = false;
        loop {
            if let Err(error) = serve(&forwarder).await {
                forwarder.pause(&error, &mut is_said).await;
            }
        }
    };
    tokio::select! {
        () = gone => {}
        () = served => {}
    }
}

async fn serve(forwarder: &Forwarder) -> io::Result<()> {
    let socket = UdpSocket::bind(forwarder.address).await?;
    let choose = |client| {
        let candidates = forwarder.candidates(Protocol::Udp, client);
        candidates.first().copied()
    };
    // A client that keeps sending would have an endpoint that is gone for ever.
    let serves = |client, actual| forwarder.serves(Protocol::Udp, client, actual);
    relay::datagrams::pass(socket, choose, serves).await
}
