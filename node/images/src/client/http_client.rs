//! Connections to registries: whom they trust, and how long they wait.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use super::{ClientError, Timeouts};

/// Whose certificates a connection trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The authorities of this machine; a proxy of the environment is used.
    Machine,
    /// The cluster's authority and no other; also for plain HTTP on loopback. No proxy.
    Cluster,
}

/// One pool of connections for each kind of trust, made on first use.
pub(crate) struct HttpClients {
    cluster_ca: Vec<CertificateDer<'static>>,
    timeouts: Timeouts,
    machine: OnceCell<reqwest::Client>,
    cluster: OnceCell<reqwest::Client>,
}

impl HttpClients {
    /// `cluster_ca` is PEM text, or empty.
    pub(crate) fn new(cluster_ca: &[u8], timeouts: Timeouts) -> Result<Self, ClientError> {
        let cluster_ca = CertificateDer::pem_slice_iter(cluster_ca)
            .collect::<Result<_, _>>()
            .map_err(|error| {
                ClientError::Invalid(format!("the cluster's CA certificate: {error}"))
            })?;
        Ok(Self {
            cluster_ca,
            timeouts,
            machine: OnceCell::new(),
            cluster: OnceCell::new(),
        })
    }

    pub(crate) async fn get(&self, trust: Trust) -> Result<reqwest::Client, ClientError> {
        match trust {
            Trust::Cluster => {
                let make = async || self.build(self.cluster_ca.clone(), true);
                self.cluster.get_or_try_init(make).await.cloned()
            }
            Trust::Machine => {
                let make = async || {
                    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
                        .await
                        .map_err(std::io::Error::other)?;
                    if found.certs.is_empty() {
                        return Err(ClientError::Connect(
                            "this machine has no CA certificates: install the package \
                             ca-certificates, or set SSL_CERT_FILE"
                                .into(),
                        ));
                    }
                    self.build(found.certs, false)
                };
                self.machine.get_or_try_init(make).await.cloned()
            }
        }
    }

    fn build(
        &self,
        roots: Vec<CertificateDer<'static>>,
        direct: bool,
    ) -> Result<reqwest::Client, ClientError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots);
        let provider = rustls::crypto::ring::default_provider();
        let tls = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Invalid(error.to_string()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.read)
            .redirect(reqwest::redirect::Policy::custom(follow));
        if direct {
            builder = builder.no_proxy();
        }
        Ok(builder.build()?)
    }
}

/// Registries redirect to where blobs are kept. Never from TLS to plain HTTP; reqwest itself
/// drops the credential when the host changes.
fn follow(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let from_tls = attempt
        .previous()
        .last()
        .is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > 5 {
        attempt.error("too many redirects")
    } else if from_tls && attempt.url().scheme() != "https" {
        attempt.error("a redirect from HTTPS to plain HTTP is not followed")
    } else {
        attempt.follow()
    }
}
