//! The kubelet's own API over TLS.

use std::sync::Arc;

use coracle_runtime::fake::Behaviour;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

use super::world::{Running, World, is_ready, path};
use crate::{KubeletApi, server_tls};

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
}

pub(super) type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(super) fn issue(&self, user: &str, group: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (
            certificate,
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
    }

    /// TLS of a client with that identity.
    pub(super) fn client(&self, identity: Option<Identity>) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            Some((certificate, key)) => config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap(),
            None => config.with_no_client_auth(),
        }
    }
}

async fn get(
    authority: &Authority,
    identity: Option<Identity>,
    port: u16,
    path: &str,
) -> Result<(u16, String), String> {
    let config = authority.client(identity);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let stream = connector.connect("node".try_into().unwrap(), stream).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "node");
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    connection.abort();
    Ok((status, String::from_utf8(body.to_bytes().to_vec()).unwrap()))
}

/// Starts a kubelet whose API takes that authority's `apiserver`: on which port.
pub(super) async fn serve(world: &World, authority: &Authority) -> (Running, u16) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (certificate, key) = authority.issue("node", "nodes");
    let ca = authority.certificate.clone();
    let kubelet = world.start_with(Some(KubeletApi {
        listener,
        tls: server_tls(vec![certificate], key, [ca]).unwrap(),
        allowed_users: vec!["apiserver".to_owned()],
    }));
    (kubelet, port)
}

#[tokio::test]
async fn logs_are_served_to_those_who_may_read_them() {
    let world = World::new();
    let speaks = Behaviour {
        output: vec!["one".to_owned(), "two".to_owned()],
        ..Behaviour::default()
    };
    world.runtime.behave("main", speaks);
    let (authority, other) = (Authority::new(), Authority::new());
    let (kubelet, port) = serve(&world, &authority).await;
    world.pod("web", json!({}), json!({}));
    world
        .api
        .object(&path("web"), "web is ready", is_ready)
        .await;
    let node = world.api.get("/api/v1/nodes/n1").unwrap();
    let reported = &node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
    assert_eq!(*reported, json!(port));

    let logs = "/containerLogs/ns/web/main";
    let api_server = || Some(authority.issue("apiserver", "x"));
    let ask = async |path: &str| get(&authority, api_server(), port, path).await.unwrap();
    assert_eq!(ask(logs).await, (200, "one\ntwo\n".to_owned()));
    assert_eq!(
        ask(&format!("{logs}?tailLines=1")).await,
        (200, "two\n".to_owned())
    );
    let (status, text) = ask(&format!("{logs}?previous=true")).await;
    assert_eq!(status, 400, "{text}");
    let expected = "previous terminated container \"main\" in pod \"web\" not found";
    assert_eq!(text, expected);
    assert_eq!(ask("/containerLogs/ns/none/main").await.0, 404);
    assert_eq!(ask("/containerLogs/ns/web/none").await.0, 400);
    assert_eq!(ask(&format!("{logs}?tailLines=x")).await.0, 400);
    assert_eq!(ask("/healthz").await, (200, "ok".to_owned()));
    assert!(ask("/pods").await.1.contains("\"web\""));
    assert!(ask("/stats/summary").await.1.contains("workingSetBytes"));
    let (_, metrics) = ask("/metrics/resource").await;
    assert!(
        metrics.contains("node_cpu_usage_seconds_total "),
        "{metrics}"
    );
    let (_, metrics) = ask("/metrics/cadvisor").await;
    assert!(metrics.contains("machine_cpu_cores "), "{metrics}");

    let master = Some(authority.issue("admin", "system:masters"));
    assert_eq!(get(&authority, master, port, logs).await.unwrap().0, 200);
    let user = Some(authority.issue("someone", "users"));
    assert_eq!(get(&authority, user, port, logs).await.unwrap().0, 403);
    assert_eq!(get(&authority, None, port, logs).await.unwrap().0, 401);
    let stranger = Some(other.issue("apiserver", "system:masters"));
    assert!(
        get(&authority, stranger, port, logs).await.is_err(),
        "of another authority"
    );
    kubelet.stop().await;
}
