//! The way between clients and their cluster: a port that leads to the API server. A test cuts the
//! connections through it, and clients find the server behind it again when that has come back on
//! another port.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// An open gate, closed when dropped.
pub(crate) struct Gate {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    /// Where connections lead; `None` ends the gate.
    target: Option<SocketAddr>,
    /// Both ends of each connection since the last cut.
    open: Vec<TcpStream>,
}

impl Gate {
    /// Opens one that leads to an address.
    pub(crate) fn open(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            target: Some(target),
            open: Vec::new(),
        }));
        let accepting = thread::spawn({
            let state = state.clone();
            move || accept(&listener, &state)
        });
        Self {
            address,
            state,
            accepting: Some(accepting),
        }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections at once. New ones are taken.
    pub(crate) fn cut(&self) {
        for stream in lock(&self.state).open.drain(..) {
            // One that has ended already is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends all connections; new ones lead elsewhere.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        lock(&self.state).target = Some(target);
        self.cut();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        lock(&self.state).target = None;
        self.cut();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes connections until the gate is closed. One that finds nobody behind it ends.
fn accept(listener: &TcpListener, state: &Mutex<State>) {
    for client in listener.incoming().flatten() {
        let mut state = lock(state);
        let Some(target) = state.target else { return };
        let Ok(server) = TcpStream::connect(target) else {
            continue;
        };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            // Ends with its connection, and that with the gate.
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            });
        }
        state.open.extend([client, server]);
    }
}
