//! Names that are none of the cluster's.
//!
//! They are put to the node's DNS server, which asks the machine's resolvers from where those can
//! be reached: one on the machine's loopback cannot be from the Pods' namespace. So a guest's
//! process reads neither `/etc/resolv.conf` nor `/etc/hosts`, as in any Pod: the machine's names
//! for itself and its neighbours are not the Pod's.
//!
//! While the agent is away nobody answers there. Then, and where the cluster has no DNS, the
//! process asks as a program on the machine would.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coracle_runtime::{NetworkError, Protocol};
use tokio::sync::Semaphore;

use crate::dns::client::{LookupError, Server, addresses};
use crate::snapshot::Snapshot;

/// Look-ups of one Pod in a process at a time; more wait.
const AT_ONCE: usize = 64;
/// How long a look-up takes at most: two questions of five seconds each, as resolv.conf(5) has it,
/// and a little.
const PATIENCE: Duration = Duration::from_secs(12);

/// Asks for names outside the cluster.
pub(super) struct Outside {
    slots: Semaphore,
}

impl Outside {
    pub(super) fn new() -> Self {
        Self {
            slots: Semaphore::new(AT_ONCE),
        }
    }

    /// Addresses of the absolute name `wanted`, for which the guest said `name`.
    pub(super) async fn resolve(
        &self,
        snapshot: Option<&Snapshot>,
        name: &str,
        wanted: &str,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let failed = |cause: String| NetworkError::TemporaryResolverFailure {
            name: name.to_owned(),
            cause,
        };
        let server = snapshot.and_then(server);
        let asked = tokio::time::timeout(PATIENCE, async {
            // It is never closed.
            let _slot = self.slots.acquire().await;
            let Some(server) = server else {
                return ask_the_machine(wanted).await;
            };
            match addresses(server, wanted).await {
                Err(LookupError::Gone(error)) => {
                    tracing::debug!(%error, wanted, "the node's DNS server is away");
                    ask_the_machine(wanted).await
                }
                answer => answer.map_err(|error| error.to_string()),
            }
        });
        let found = match asked.await {
            Ok(found) => found.map_err(failed)?,
            Err(_) => return Err(failed("it took too long".to_owned())),
        };
        if found.is_empty() {
            return Err(NetworkError::NameUnresolvable(name.to_owned()));
        }
        Ok(found)
    }
}

/// Where the snapshot says that the node's DNS server is.
fn server(snapshot: &Snapshot) -> Option<Server> {
    let known: SocketAddr = snapshot.general().dns?;
    let at = |protocol| snapshot.listener((known.ip(), known.port(), protocol));
    Some(Server {
        udp: at(Protocol::Udp)?,
        tcp: at(Protocol::Tcp)?,
    })
}

async fn ask_the_machine(wanted: &str) -> Result<Vec<IpAddr>, String> {
    let mut wanted = wanted.to_owned();
    // With a final dot the machine's resolver does not try its own search path.
    if !wanted.ends_with('.') && wanted.contains('.') {
        wanted.push('.');
    }
    let found = tokio::net::lookup_host((wanted.as_str(), 0))
        .await
        .map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = found.map(|socket| socket.ip()).collect();
    addresses.dedup();
    Ok(addresses)
}
