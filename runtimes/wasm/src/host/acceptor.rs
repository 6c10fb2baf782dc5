//! Accepts connections for all Pods of the process.
//!
//! One thread waits for all listeners: a task and a registration for each would cost an idle Pod
//! more than all else that it has. Connections are dealt out to the cores in turn.

use std::collections::HashMap;
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
use super::request;

/// Listeners that become ready at a time.
const READY: usize = 64;
/// Connections accepted of one listener before the next one has its turn.
const TURN: usize = 16;

/// A listener in the acceptor's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(u64);

/// The listeners of the process.
pub(super) struct Acceptor {
    epoll: OwnedFd,
    next: AtomicU64,
    listeners: Mutex<HashMap<u64, Arc<Listening>>>,
    cores: Arc<Cores>,
}

struct Listening {
    socket: OwnedFd,
    pod: Arc<HttpPod>,
}

impl Acceptor {
    /// Starts the thread, which lives as long as the process.
    pub(super) fn start(cores: Arc<Cores>) -> io::Result<Arc<Self>> {
        let acceptor = Arc::new(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            next: AtomicU64::new(0),
            listeners: Mutex::new(HashMap::new()),
            cores,
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
        socket.set_nonblocking(true)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let socket = OwnedFd::from(socket);
        let data = epoll::EventData::new_u64(id);
        let mut listeners = self.listeners.lock();
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        listeners.insert(id, Arc::new(Listening { socket, pod }));
        Ok(Ticket(id))
    }

    /// Closes a listener.
    pub(super) fn remove(&self, ticket: Ticket) {
        let removed = self.listeners.lock().remove(&ticket.0);
        if let Some(listening) = removed
            && let Err(error) = epoll::delete(&self.epoll, &listening.socket)
        {
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
                let listening = self.listeners.lock().get(&id).cloned();
                if let Some(listening) = listening {
                    self.accept(&listening);
                }
            }
        }
    }

    fn accept(&self, listening: &Listening) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..TURN {
            match rustix::net::acceptfrom_with(listening.socket.as_fd(), flags) {
                Ok((stream, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    self.hand_over(&listening.pod, stream, peer);
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

    /// Gives a connection to a core, unless policy denies its peer.
    fn hand_over(&self, pod: &Arc<HttpPod>, stream: OwnedFd, peer: Option<SocketAddr>) {
        let network = &pod.environment.network;
        if peer.is_none_or(|peer| network.peer(Protocol::Tcp, peer).is_err()) {
            return;
        }
        let core = self.cores.next().clone();
        let handle = core.handle.clone();
        let stream = std::net::TcpStream::from(stream);
        let connection = request::connection(pod.clone(), core, stream);
        handle.spawn(pod.life().connections.track_future(connection));
    }
}
