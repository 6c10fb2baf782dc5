//! Accepts connections for all Pods of the process.
//!
//! One thread waits for all listeners: a task and a registration for each would cost an idle Pod
//! more than all else that it has. Connections are dealt out to the cores in turn.
//!
//! Beside the listeners of Pods there are those of ports of the node ([`Port`]), which the agent
//! holds too: once such a listener is removed no more is accepted from it here.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_runtime::Protocol;
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::cores::Cores;
use super::pod::HttpPod;
use super::ports::Port;
use super::request;

/// Listeners that become ready at a time.
const READY: usize = 64;
/// Connections accepted of one listener before the next one has its turn.
const TURN: usize = 16;

/// Connections of a Pod, where there are files for them.
const MOST: usize = 16 << 10;

/// A listener in the acceptor's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(u64);

/// The listeners of the process.
pub(super) struct Acceptor {
    epoll: OwnedFd,
    next: AtomicU64,
    table: Mutex<Table>,
    cores: Arc<Cores>,
    /// Connections that one Pod may have.
    most: usize,
}

#[derive(Default)]
struct Table {
    listeners: HashMap<u64, Arc<Listening>>,
    /// Pods by the address at which the cluster knows them.
    pods: HashMap<SocketAddr, Arc<HttpPod>>,
    /// Listeners of ports of the node.
    ports: HashSet<u64>,
}

struct Listening {
    id: u64,
    socket: OwnedFd,
    target: Target,
    /// Held while connections are accepted: who has set it to false knows that none is any more.
    open: Mutex<bool>,
}

enum Target {
    Pod(Arc<HttpPod>),
    Port(Arc<Port>),
}

impl Acceptor {
    /// Starts the thread, which lives as long as the process, that may have so many open files.
    pub(super) fn start(cores: Arc<Cores>, files: Option<u64>) -> io::Result<Arc<Self>> {
        let acceptor = Arc::new(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            next: AtomicU64::new(0),
            table: Mutex::default(),
            cores,
            most: most(files),
        });
        let accepting = acceptor.clone();
        std::thread::Builder::new()
            .name("accept".into())
            .stack_size(256 << 10)
            .spawn(move || accepting.run())?;
        Ok(acceptor)
    }

    /// Accepts for a Pod from now on.
    pub(super) fn add(&self, socket: TcpListener, pod: Arc<HttpPod>) -> io::Result<Ticket> {
        let mut table = self.table.lock();
        let ticket = self.listen(&mut table, socket.into(), Target::Pod(pod.clone()))?;
        table.pods.insert(pod.address, pod);
        Ok(ticket)
    }

    /// Accepts for a port of the node from now on, if all its endpoints are served here.
    pub(super) fn add_port(&self, socket: OwnedFd, port: Arc<Port>) -> io::Result<Ticket> {
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            return Err(io::Error::other("its socket does not listen"));
        }
        let mut table = self.table.lock();
        for endpoint in port.endpoints() {
            if !table.pods.contains_key(endpoint) {
                let message = format!("nothing is served at {endpoint} here");
                return Err(io::Error::other(message));
            }
        }
        let ticket = self.listen(&mut table, socket, Target::Port(port))?;
        table.ports.insert(ticket.0);
        Ok(ticket)
    }

    fn listen(&self, table: &mut Table, socket: OwnedFd, target: Target) -> io::Result<Ticket> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let data = epoll::EventData::new_u64(id);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        let listening = Listening {
            id,
            socket,
            target,
            open: Mutex::new(true),
        };
        table.listeners.insert(id, Arc::new(listening));
        Ok(Ticket(id))
    }

    /// Closes a listener; nothing is accepted from it when this returns. A Pod's takes with it
    /// the ports that have no other endpoint.
    pub(super) fn remove(&self, ticket: Ticket) {
        let (removed, deserted) = self.table.lock().remove(ticket.0);
        if let Some(listening) = removed {
            self.close(&listening, &mut listening.open.lock());
        }
        for listening in deserted {
            self.close(&listening, &mut listening.open.lock());
            if let Target::Port(port) = &listening.target {
                port.unserved();
            }
        }
    }

    fn close(&self, listening: &Listening, open: &mut bool) {
        if !std::mem::take(open) {
            return;
        }
        // Others may hold the socket: closing it here would not end what is registered.
        if let Err(error) = epoll::delete(&self.epoll, &listening.socket) {
            eprintln!("taking a listener back: {error}");
        }
    }

    fn run(&self) {
        let mut ready = Vec::with_capacity(READY);
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    eprintln!("waiting for connections: {error}");
                    return;
                }
            }
            for event in &ready {
                let id = event.data.u64();
                let listening = self.table.lock().listeners.get(&id).cloned();
                if let Some(listening) = listening {
                    self.accept(&listening);
                }
            }
        }
    }

    fn accept(&self, listening: &Listening) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut open = listening.open.lock();
        for _ in 0..TURN {
            if !*open {
                return;
            }
            match rustix::net::acceptfrom_with(listening.socket.as_fd(), flags) {
                Ok((stream, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    self.take(listening, &mut open, stream, peer);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    // Files have run out, most likely: connections wait until some are closed.
                    tracing::warn!(%error, "accepting a connection");
                    std::thread::sleep(Duration::from_millis(10));
                    return;
                }
            }
        }
    }

    /// Gives a connection to its Pod, or to one of the Pods behind its port.
    fn take(
        &self,
        listening: &Listening,
        open: &mut bool,
        stream: OwnedFd,
        peer: Option<SocketAddr>,
    ) {
        let Some(peer) = peer else {
            return;
        };
        let port = match &listening.target {
            Target::Pod(pod) => return self.hand_over(pod, stream, peer),
            Target::Port(port) => port,
        };
        let chosen = {
            let table = self.table.lock();
            port.choose(peer.ip(), |endpoint| table.pods.get(endpoint).cloned())
        };
        match chosen {
            // What comes to a port of the node from the node itself has the node's loopback
            // address, which is not the Pod's: policy does not look at it.
            Some(pod) if peer.ip().to_canonical().is_loopback() => self.serve(&pod, stream),
            Some(pod) => self.hand_over(&pod, stream, peer),
            None => {
                // A reset, not an end of file: nobody has read what the client sent.
                let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
                drop(stream);
                self.close(listening, open);
                self.table.lock().take(listening.id);
                port.unserved();
            }
        }
    }

    /// Gives a connection to a Pod, unless policy denies its peer.
    fn hand_over(&self, pod: &Arc<HttpPod>, stream: OwnedFd, peer: SocketAddr) {
        if pod
            .environment
            .reach
            .network
            .peer(Protocol::Tcp, peer)
            .is_ok()
        {
            self.serve(pod, stream);
        }
    }

    fn serve(&self, pod: &Arc<HttpPod>, stream: OwnedFd) {
        if pod.life().connections.len() >= self.most {
            tracing::debug!(
                container = pod.container.0,
                "a Pod has too many connections"
            );
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            return;
        }
        let core = self.cores.next().clone();
        let handle = core.handle.clone();
        let stream = std::net::TcpStream::from(stream);
        let connection = request::connection(pod.clone(), core, stream);
        handle.spawn(pod.life().connections.track_future(connection));
    }
}

/// The connections of one Pod's clients, who may be anybody, leave room for its neighbours' in a
/// process that may have so many open files.
fn most(files: Option<u64>) -> usize {
    let share = files.map_or(MOST, |files| {
        usize::try_from(files / 4).unwrap_or(MOST).min(MOST)
    });
    share.max(1)
}

impl Table {
    fn take(&mut self, id: u64) -> Option<Arc<Listening>> {
        self.ports.remove(&id);
        self.listeners.remove(&id)
    }

    /// Takes out a listener, and the ports that have no endpoint without it, which are told.
    fn remove(&mut self, id: u64) -> (Option<Arc<Listening>>, Vec<Arc<Listening>>) {
        let removed = self.take(id);
        let Some(Target::Pod(pod)) = removed.as_ref().map(|listening| &listening.target) else {
            return (removed, Vec::new());
        };
        // The container that follows it in its Pod may have the address already.
        if self
            .pods
            .get(&pod.address)
            .is_some_and(|at| Arc::ptr_eq(at, pod))
        {
            self.pods.remove(&pod.address);
        }
        let deserted: Vec<u64> = self
            .ports
            .iter()
            .copied()
            .filter(
                |id| match self.listeners.get(id).map(|listening| &listening.target) {
                    Some(Target::Port(port)) => {
                        let served = |endpoint| self.pods.contains_key(endpoint);
                        !port.endpoints().iter().any(served)
                    }
                    _ => true,
                },
            )
            .collect();
        let deserted = deserted
            .into_iter()
            .filter_map(|id| self.take(id))
            .collect();
        (removed, deserted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pod_leaves_files_to_its_neighbours() {
        for (files, expected) in [
            (Some(0), 1),
            (Some(1024), 256),
            (Some(1 << 20), MOST),
            (Some(u64::MAX), MOST),
            (None, MOST),
        ] {
            assert_eq!(most(files), expected, "{files:?}");
        }
    }
}
