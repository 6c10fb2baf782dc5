//! A TCP port.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use coracle_runtime::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::dispatch::Dispatch;
use super::{Forwarder, Target};
use crate::relay::{self, Slots};

/// Connections through one port at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;

/// Serves the port until its target's sender is gone.
pub(super) async fn run(mut forwarder: Forwarder, mut dispatch: Dispatch) {
    let mut is_said = false;
    loop {
        let socket = match bind(&forwarder) {
            Ok(socket) => socket,
            Err(error) => {
                let mut closed = forwarder.target.clone();
                let gone = async move { while closed.changed().await.is_ok() {} };
                tokio::select! {
                    () = gone => return,
                    () = forwarder.pause(&error, &mut is_said) => continue,
                }
            }
        };
        match serve(&mut forwarder, &mut dispatch, &socket).await {
            Ok(()) => return,
            Err(error) => forwarder.pause(&error, &mut is_said).await,
        }
    }
}

/// The socket, which outlives who accepts from it.
fn bind(forwarder: &Forwarder) -> io::Result<OwnedFd> {
    let listener = std::net::TcpListener::bind(forwarder.address)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// `Ok` when the port is no longer wanted.
async fn serve(
    forwarder: &mut Forwarder,
    dispatch: &mut Dispatch,
    socket: &OwnedFd,
) -> io::Result<()> {
    // Those that were accepted here go on while others are accepted elsewhere.
    let mut connections = JoinSet::new();
    let slots = Slots::new(CONNECTIONS);
    loop {
        let target: Target = forwarder.target.borrow_and_update().clone();
        if let Some(served) = dispatch.offer(socket, &target).await {
            let reaped = async {
                while connections.join_next().await.is_some() {}
                std::future::pending().await
            };
            tokio::select! {
                changed = forwarder.target.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => {
                        dispatch.withdraw().await;
                        return Ok(());
                    }
                },
                () = reaped => {}
                () = served => dispatch.ended(),
            }
        }
        let listener = TcpListener::from_std(socket.try_clone()?.into())?;
        let mut target = forwarder.target.clone();
        let serving = &*forwarder;
        let forwarded = relay::accept(&listener, &slots, &mut connections, |stream, client| {
            forward(serving.clone(), stream, client.ip())
        });
        tokio::select! {
            changed = target.changed() => if changed.is_err() {
                return Ok(());
            },
            () = forwarded => return Err(io::Error::other("nothing is accepted any more")),
        }
    }
}

async fn forward(forwarder: Forwarder, stream: TcpStream, client: IpAddr) {
    for actual in forwarder.candidates(Protocol::Tcp, client) {
        match TcpStream::connect(actual).await {
            Ok(endpoint) => {
                let _ = relay::join(stream, endpoint).await;
                return;
            }
            Err(error) => tracing::debug!(%actual, %error, "an endpoint did not answer"),
        }
    }
    // There is nobody: the nearest to a refusal, now that the kernel has accepted.
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}
