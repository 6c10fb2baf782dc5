//! The embedded registry for a container runtime of the machine, which knows neither the cluster's
//! authority nor where it is.
//!
//! Runtimes speak plain HTTP with a registry at a loopback address. So the node listens at one, and
//! carries each connection to the registry in TLS. Who pulls proves itself to the registry as
//! elsewhere: the relay adds nothing to what is asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long it may take to reach the registry.
const CONNECT: Duration = Duration::from_secs(10);

/// A listener, and where it leads.
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    registry: SocketAddr,
    tls: TlsConnector,
}

impl Relay {
    /// Listens for those who want the registry at an address, whose certificate is of that authority.
    pub(crate) async fn open(registry: SocketAddr, authority: &str) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate?)?;
        }
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("cannot listen for the container runtime's pulls")?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            registry,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// Carries until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) -> Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // Cancelled too while all places are taken.
            let next = async {
                let place = places.clone().acquire_owned().await?;
                anyhow::Ok((place, self.listener.accept().await))
            };
            let (place, accepted) = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Some(_) = connections.join_next() => continue,
                next = next => next?,
            };
            let Ok((stream, _)) = accepted else {
                // Of that connection, or for want of descriptors; the listener goes on.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (tls, registry) = (self.tls.clone(), self.registry);
            connections.spawn(async move {
                let _place = place;
                if let Err(error) = carry(stream, registry, tls).await {
                    tracing::debug!(%error, "a pull from the embedded registry broke");
                }
            });
        }
    }
}

async fn carry(
    mut stream: TcpStream,
    registry: SocketAddr,
    tls: TlsConnector,
) -> std::io::Result<()> {
    let connect = async {
        let far = TcpStream::connect(registry).await?;
        let name = ServerName::from(registry.ip());
        tls.connect(name, far).await
    };
    let mut far = tokio::time::timeout(CONNECT, connect).await??;
    tokio::io::copy_bidirectional(&mut stream, &mut far)
        .await
        .map(drop)
}
