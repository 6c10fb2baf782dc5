//! Outgoing HTTP of guests: HTTP/1.1 over sockets that [`GuestNetwork`] directs.
//!
//! Certificates of `https` servers are checked against the machine's own roots, or those that
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name; they are read at the first such request. Servers of the
//! cluster itself are checked against the authority that [`GuestNetwork::authority`] names for
//! them, and against no other; nobody else is checked against that one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use coracle_runtime::{GuestNetwork, NetworkError, Protocol};
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OnceCell;
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::sockets::{Reach, address, source};

/// What a guest gets that sets no time of its own.
const TIMEOUT: Duration = Duration::from_secs(600);
type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = Result<(http::Response<WasiBody>, Io), Error>;

/// The way out for one guest.
pub(crate) struct Outgoing {
    reach: Arc<Reach>,
}

impl Outgoing {
    pub(crate) fn new(reach: Arc<Reach>) -> Self {
        Self { reach }
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let reach = self.reach.clone();
        Box::new(send(reach, request, options.unwrap_or_default()))
    }
}

async fn send(
    reach: Arc<Reach>,
    mut request: http::Request<WasiBody>,
    options: RequestOptions,
) -> Answer {
    let uri = request.uri();
    let tls = uri.scheme() == Some(&Scheme::HTTPS);
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let permit = reach.quota.take().ok_or(Error::ConnectionLimitReached)?;
    let within = options.connect_timeout.unwrap_or(TIMEOUT);
    let stream = timeout(within, async {
        let network = &*reach.network;
        let stream = connect(network, &host, port).await?;
        encrypt(stream, network, &host, tls).await
    })
    .await
    .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, WasiBody>(TokioIo::new(stream)).await?;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    // Whoever lets go of the exchange ends the connection.
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        let _permit = permit;
        connection.await
    }));
    let first_byte = options.first_byte_timeout.unwrap_or(TIMEOUT);
    let response = timeout(first_byte, sender.send_request(request))
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let between = options.between_bytes_timeout.unwrap_or(TIMEOUT);
    let response = response.map(|body| Timed::new(body, between).boxed_unsync());
    let io = Box::new(async move {
        match driver.await {
            Ok(result) => result.map_err(Error::from),
            Err(_) => Ok(()),
        }
    });
    Ok((response, io))
}

async fn connect(network: &dyn GuestNetwork, host: &str, port: u16) -> Result<TcpStream, Error> {
    let addresses = network.resolve(host).await.map_err(network_error)?;
    let mut last = Error::DestinationNotFound;
    for address in addresses {
        match connect_to(network, address, port).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(
    network: &dyn GuestNetwork,
    address: IpAddr,
    port: u16,
) -> Result<TcpStream, Error> {
    let remote = address::of_url(address, port).ok_or(Error::DestinationIpProhibited)?;
    let peer = network
        .connect(Protocol::Tcp, remote)
        .map_err(network_error)?;
    let socket = match peer.actual {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(Error::Connect)?;
    if let Some(source) = peer.source {
        source::bind(&socket, source).map_err(Error::Connect)?;
    }
    let stream = socket
        .connect(peer.actual)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            _ => Error::Connect(error),
        })?;
    // Latency matters more than the count of packets between Pods.
    stream.set_nodelay(true).map_err(Error::Connect)?;
    Ok(stream)
}

fn network_error(error: NetworkError) -> Error {
    match error {
        NetworkError::NameUnresolvable(_) => Error::DnsError {
            rcode: Some("NXDOMAIN".into()),
            info_code: None,
        },
        NetworkError::TemporaryResolverFailure { .. } => Error::DnsError {
            rcode: Some("SERVFAIL".into()),
            info_code: None,
        },
        NetworkError::ConnectionRefused(_) => Error::ConnectionRefused,
        NetworkError::AccessDenied(_) => Error::DestinationIpProhibited,
        NetworkError::RemoteUnreachable(_) => Error::DestinationIpUnroutable,
        NetworkError::AddressNotBindable(_) => Error::ConfigurationError,
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn encrypt(
    stream: TcpStream,
    network: &dyn GuestNetwork,
    host: &str,
    tls: bool,
) -> Result<Box<dyn Stream>, Error> {
    if !tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
    let config = match network.authority(host) {
        Some(certificates) => cluster_config(certificates)?,
        None => client_config().await?,
    };
    let connector = tokio_rustls::TlsConnector::from(config);
    let stream = connector.connect(name, stream).await;
    Ok(Box::new(stream.map_err(|error| {
        tracing::debug!(host, %error, "a guest's request ended in the TLS handshake");
        tls_error(error)
    })?))
}

/// What `wasi:http` has a name for.
fn tls_error(error: io::Error) -> Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::TlsProtocolError,
    }
}

/// One for the process. What could not be read is read again at the next request.
async fn client_config() -> Result<Arc<rustls::ClientConfig>, Error> {
    static CONFIG: OnceCell<Arc<rustls::ClientConfig>> = OnceCell::const_new();
    let load = async || {
        tokio::task::spawn_blocking(load_client_config)
            .await
            .map_err(|error| error.to_string())?
    };
    let config = CONFIG.get_or_try_init(load).await;
    config.cloned().map_err(unavailable)
}

fn unavailable(message: String) -> Error {
    tracing::warn!("https is not available to guests: {message}");
    Error::InternalError(Some(message))
}

/// The configuration that trusts these certificates (PEM) alone. The last one is kept: a cluster
/// has one authority at a time.
fn cluster_config(certificates: String) -> Result<Arc<rustls::ClientConfig>, Error> {
    type Kept = Option<(String, Arc<rustls::ClientConfig>)>;
    static KEPT: Mutex<Kept> = Mutex::new(None);
    let mut kept = KEPT.lock();
    if let Some((_, config)) = kept.as_ref().filter(|(of, _)| *of == certificates) {
        return Ok(config.clone());
    }
    let found = CertificateDer::pem_slice_iter(certificates.as_bytes()).flatten();
    let mut roots = rustls::RootCertStore::empty();
    if roots.add_parsable_certificates(found).0 == 0 {
        let message = "the certificates of the cluster do not read".to_owned();
        return Err(unavailable(message));
    }
    let config = trusting(roots).map_err(unavailable)?;
    *kept = Some((certificates, config.clone()));
    Ok(config)
}

fn load_client_config() -> Result<Arc<rustls::ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    // One root that is not understood does not spoil the others.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let mut message = "this machine has no root certificates: install the package \
            ca-certificates, or set SSL_CERT_FILE"
            .to_owned();
        for error in found.errors.iter().take(1) {
            message.push_str(&format!(" ({error})"));
        }
        return Err(message);
    }
    trusting(roots)
}

fn trusting(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A body that fails when nothing comes for a while.
struct Timed {
    body: hyper::body::Incoming,
    between: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Timed {
    fn new(body: hyper::body::Incoming, between: Duration) -> Self {
        Self {
            body,
            between,
            deadline: Box::pin(tokio::time::sleep(between)),
        }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let next = Instant::now() + this.between;
                this.deadline.as_mut().reset(next);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                ready!(this.deadline.as_mut().poll(cx));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
