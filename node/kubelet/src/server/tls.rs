//! TLS of the kubelet's API, and who calls.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// Who calls, as the certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The common name.
    pub(crate) user: String,
    /// The organizations.
    pub(crate) groups: Vec<String>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA's certificate cannot be used.
    #[error("client CA: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
    /// The serving certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// TLS for [`crate::KubeletApi`]: serves `chain`, and verifies callers' certificates against
/// `client_ca`. A caller without one is let through to be told 401.
pub fn server_tls(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in client_ca {
        roots.add(certificate)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The caller of a verified connection.
pub(crate) fn caller(connection: &rustls::ServerConnection) -> Option<Caller> {
    caller_of(connection.peer_certificates()?.first()?)
}

fn caller_of(certificate: &CertificateDer<'_>) -> Option<Caller> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().ok().map(str::to_owned)
    };
    Some(Caller {
        user: subject.iter_common_name().find_map(text)?,
        groups: subject.iter_organization().filter_map(text).collect(),
    })
}
