//! The registry behind TLS, and with a client that is not ours.

use std::path::Path;
use std::process::Output;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::push::{PushError, PushRequest, push};
use crate::{ContentStore, PullRequest, Puller, PullerConfig};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// TLS connections for axum; a handshake that fails ends nothing but its connection.
struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A registry behind TLS; its certificate is its own authority.
struct TlsRegistry {
    folder: tempfile::TempDir,
    host: String,
    ca_pem: String,
}

impl TlsRegistry {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(key))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let listener = TlsListener {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        };
        let root = folder.path().join("registry");
        let router = router(RegistryConfig::new(root, authenticator())).unwrap();
        // The test's runtime ends the task.
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            folder,
            host,
            ca_pem: made.cert.pem(),
        }
    }

    fn embedded(&self, user: &str) -> EmbeddedRegistry {
        EmbeddedRegistry {
            name: self.host.clone(),
            aliases: Vec::new(),
            endpoints: vec![format!("https://{}", self.host)],
            ca_pem: self.ca_pem.clone().into(),
            credential: Some((user.into(), user.into())),
        }
    }

    async fn push(&self, embedded: EmbeddedRegistry) -> Result<String, PushError> {
        let pushed = push(PushRequest {
            reference: "team/app:v1".into(),
            wasm: MODULE.into(),
            title: "app.wasm".into(),
            embedded: Some(embedded),
            credential: None,
        });
        pushed.await.map(|pushed| pushed.digest)
    }

    async fn pull(&self, reference: &str) -> String {
        let store = ContentStore::open(self.folder.path().join("node")).unwrap();
        let config = PullerConfig {
            embedded: Some(self.embedded("node")),
            ..PullerConfig::default()
        };
        let puller = Puller::new(store, config).unwrap();
        let request = PullRequest {
            reference: reference.into(),
            ..PullRequest::default()
        };
        puller.pull(&request, &|_| {}).await.unwrap().digest
    }
}

#[tokio::test]
async fn tls_with_the_clusters_authority_and_no_other() {
    let registry = TlsRegistry::start().await;
    let digest = registry.push(registry.embedded("admin")).await.unwrap();
    assert_eq!(registry.pull("team/app:v1").await, digest);

    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    for ca_pem in [other.cert.pem(), String::new()] {
        let mut distrusting = registry.embedded("admin");
        distrusting.ca_pem = ca_pem.into();
        let error = registry.push(distrusting).await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    let mut plain = registry.embedded("admin");
    plain.endpoints = vec![format!("http://{}", registry.host)];
    assert!(registry.push(plain).await.is_err());
}

/// Runs skopeo; none where it is not installed. In CI it is.
async fn skopeo(registry: &TlsRegistry, user: &str, arguments: &[&str]) -> Option<Output> {
    let certificates = registry.folder.path().join("certificates");
    std::fs::create_dir_all(&certificates).unwrap();
    std::fs::write(certificates.join("ca.crt"), &registry.ca_pem).unwrap();
    let certificates = certificates.to_str().unwrap();
    let credential = format!("{user}:{user}");
    let mut command = tokio::process::Command::new("skopeo");
    // Neither the machine's policy nor its credentials matter here.
    command.arg("--insecure-policy").arg(arguments[0]);
    command.env("REGISTRY_AUTH_FILE", registry.folder.path().join("none"));
    command.env("HOME", registry.folder.path());
    command.env_remove("XDG_RUNTIME_DIR");
    match arguments[0] {
        "copy" => {
            for side in ["src", "dest"] {
                command.arg(format!("--{side}-cert-dir={certificates}"));
                command.arg(format!("--{side}-creds={credential}"));
            }
        }
        _ => {
            command.arg(format!("--cert-dir={certificates}"));
            command.arg(format!("--creds={credential}"));
        }
    }
    command.args(&arguments[1..]).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output());
    match output.await.expect("skopeo does not end") {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let in_ci = std::env::var_os("CI").is_some();
            assert!(!in_ci, "skopeo is not installed: apt-get install skopeo");
            eprintln!("not tested: skopeo is not installed");
            None
        }
        Err(error) => panic!("running skopeo: {error}"),
    }
}

fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn layout(folder: &Path) -> String {
    format!("oci:{}:v1", folder.join("layout").display())
}

#[tokio::test]
async fn skopeo_pulls_pushes_lists_and_deletes() {
    let registry = TlsRegistry::start().await;
    let digest = registry.push(registry.embedded("admin")).await.unwrap();
    let docker = |name: &str| format!("docker://{}/{name}", registry.host);
    let (app, copy) = (docker("team/app:v1"), docker("copy:v1"));
    let layout = layout(registry.folder.path());

    let pulled = ["copy", "--preserve-digests", &app, &layout];
    let Some(output) = skopeo(&registry, "node", &pulled).await else {
        return;
    };
    succeeded(&output);
    let run =
        async |user: &str, arguments: &[&str]| skopeo(&registry, user, arguments).await.unwrap();
    let pushed = ["copy", "--preserve-digests", &layout, &copy];
    for (user, cause) in [("node", "denied"), ("stranger", "unauthorized")] {
        let refused = run(user, &pushed).await;
        let errors = String::from_utf8_lossy(&refused.stderr).to_lowercase();
        assert!(!refused.status.success());
        assert!(errors.contains(cause), "{errors}");
    }
    succeeded(&run("admin", &pushed).await);
    // From one repository to another: the blobs are mounted or found.
    let between = docker("other/app:v2");
    succeeded(&run("admin", &["copy", "--preserve-digests", &app, &between]).await);
    for name in ["copy:v1", "other/app:v2"] {
        assert_eq!(registry.pull(name).await, digest, "{name}");
    }

    let raw = succeeded(&run("node", &["inspect", "--raw", &copy]).await);
    assert_eq!(Digest::of(raw.as_bytes()).to_string(), digest);
    let tags = succeeded(&run("node", &["list-tags", &docker("copy")]).await);
    let tags: Value = serde_json::from_str(&tags).unwrap();
    assert_eq!(tags["Tags"], json!(["v1"]));

    assert!(!run("node", &["delete", &copy]).await.status.success());
    succeeded(&run("admin", &["delete", &copy]).await);
    let gone = run("node", &["inspect", "--raw", &copy]).await;
    assert!(!gone.status.success());
    assert_eq!(registry.pull("team/app:v1").await, digest);
}
