//! TLS of probes and hooks. Certificates are not verified, as the API reference says of both.

use std::io;
use std::sync::Arc;

use coracle_runtime::streaming::PortConnection;

/// What is said, as in Kubernetes, of a server that speaks HTTP where it should speak TLS.
const PLAIN: &str = "http: server gave HTTP response to HTTPS client";

/// Speaks TLS, with one of these protocols above it if any is named.
pub(super) async fn secure(
    stream: PortConnection,
    host: &str,
    protocols: &[&[u8]],
) -> io::Result<tokio_rustls::client::TlsStream<PortConnection>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| io::Error::other(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

/// Why a request over TLS could not be made.
pub(super) fn why(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            PLAIN.to_owned()
        }
        _ => error.to_string(),
    }
}

/// Whether the server that has failed a request speaks HTTP without TLS.
pub(crate) fn is_plain(why: &str) -> bool {
    why.ends_with(PLAIN)
}

/// Takes any certificate: a probe asks whether a server answers, not who it is.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    // Who takes any certificate knows nothing of the key in it either; and those of version 1, which
    // some servers make for themselves, could not be read for it.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
