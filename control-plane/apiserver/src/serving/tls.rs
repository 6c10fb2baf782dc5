//! TLS: client certificates are asked for, not demanded; one that is given must be of the CA.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why no TLS configuration came of these certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The serving certificate or its key is of no use.
    #[error("the serving certificate cannot be used: {0}")]
    Serving(#[from] rustls::Error),
    /// The CA for client certificates is of no use.
    #[error("the CA for client certificates cannot be used: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
}

/// The configuration for [`crate::ApiServer::serve`]: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
///
/// # Errors
/// For certificates or keys that cannot be used.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: &[CertificateDer<'static>],
) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in client_ca {
        roots.add(certificate.clone())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
