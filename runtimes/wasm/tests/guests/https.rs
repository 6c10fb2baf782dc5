//! Outgoing `https`: whom guests trust.
//!
//! Guest processes have the roots that `SSL_CERT_FILE` names to the agent, and the environment
//! of a process cannot change while it has threads: so the test runs itself again, as an agent
//! with another environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::http::get;
use crate::network::Snapshot;
use crate::node::{DEADLINE, Node};
use crate::sockets::answer;

/// The name of the test, and that of the variable that tells the inner run from the outer.
const NAME: &str = "https::servers_must_prove_who_they_are";
const INNER: &str = "CORACLE_TEST_AUTHORITY";

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(key: KeyPair) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tests");
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A server's certificate for a name.
    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (certificate.der().clone(), key)
    }

    /// Serves `1` to whoever asks, with a certificate for `name`.
    async fn serve(&self, name: &str) -> SocketAddr {
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Who does not trust the certificate goes away.
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream).await;
                }
            }
        });
        address
    }
}

pub(crate) async fn servers_must_prove_who_they_are() {
    if let Some(key) = std::env::var_os(INNER) {
        return requests(&PathBuf::from(key)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let key_file = folder.path().join("ca.key");
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let roots = folder.path().join("ca.pem");
    std::fs::write(&roots, Authority::new(key).pem).unwrap();
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(INNER, key_file)
        .env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, child)
        .await
        .unwrap()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success() && text(&output.stdout).contains("1 passed"),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// The inner run: its agent has the authority of the key among its roots, and no other.
async fn requests(key: &Path) {
    let key = std::fs::read_to_string(key).unwrap();
    let trusted = Authority::new(KeyPair::from_pem(&key).unwrap());
    let unknown = Authority::new(KeyPair::generate().unwrap());
    let node = Node::new().await;
    let service = |number| SocketAddr::from(([10, 43, 0, number], 443));
    node.publish(&Snapshot {
        names: [
            ("good.test".to_owned(), vec![service(1).ip()]),
            ("wrong.test".to_owned(), vec![service(1).ip()]),
            ("unknown.test".to_owned(), vec![service(2).ip()]),
            ("plain.test".to_owned(), vec![service(3).ip()]),
            ("cluster.test".to_owned(), vec![service(4).ip()]),
            ("forged.test".to_owned(), vec![service(5).ip()]),
        ]
        .into(),
        routes: [
            (service(1), trusted.serve("good.test").await),
            (service(2), unknown.serve("unknown.test").await),
            (service(3), silent().await),
            (service(4), unknown.serve("cluster.test").await),
            (service(5), trusted.serve("forged.test").await),
        ]
        .into(),
        authority: (
            unknown.pem.clone(),
            vec!["cluster.test".to_owned(), "forged.test".to_owned()],
        ),
        ..Snapshot::default()
    });
    for (name, status, part) in [
        ("good.test", 200, "visit 1"),
        ("wrong.test", 502, "TlsCertificateError"),
        ("unknown.test", 502, "TlsCertificateError"),
        ("plain.test", 502, "TlsProtocolError"),
        // The cluster's own authority vouches for its servers, where no other does.
        ("cluster.test", 200, "visit 1"),
        ("forged.test", 502, "TlsCertificateError"),
    ] {
        let image = node.sample("kv-counter/kv-web.wasm");
        let pod = node
            .start(&image, |config| {
                config.env = vec![("STORE_URL".into(), format!("https://{name}/"))];
            })
            .await;
        let (_, web) = node.listener(&pod).await;
        let (found, body) = get(web, "/").await;
        assert_eq!(found, status, "{name}: {body}");
        assert!(body.contains(part), "{name}: {body}");
    }
}

/// A server that has no TLS.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"220 ready\r\n").await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    address
}
