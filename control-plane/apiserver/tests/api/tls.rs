//! Connections: certificates, and the way to a kubelet.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use coracle_apiserver::serving::server_config;
use coracle_store::MemoryStore;
use http::Request;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::harness::{Api, DEADLINE, PODS, pod};

/// A certificate authority.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
}

pub(crate) type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(crate) fn sign(&self, name: &str, groups: &[&str], addresses: &[&str]) -> Pair {
        let names: Vec<String> = addresses.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (certificate, key.serialize_der().try_into().unwrap())
    }

    pub(crate) fn client(&self, identity: Option<Pair>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            Some((certificate, key)) => builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap(),
            None => builder.with_no_client_auth(),
        }
    }
}

pub(crate) struct Served {
    pub(crate) ca: Ca,
    pub(crate) address: SocketAddr,
    pub(crate) cancel: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<std::io::Result<()>>,
}

pub(crate) async fn serve(api: &Api) -> Served {
    let ca = Ca::new();
    let (certificate, key) = ca.sign("server", &[], &["127.0.0.1"]);
    let tls = Arc::new(
        server_config(
            vec![certificate],
            key,
            std::slice::from_ref(&ca.certificate),
        )
        .unwrap(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let task = tokio::spawn({
        let (server, cancel) = (api.server.clone(), cancel.clone());
        async move { server.serve(listener, tls, cancel).await }
    });
    Served {
        ca,
        address,
        cancel,
        task,
    }
}

/// A connection, on which nothing has been sent.
pub(crate) async fn connect(
    served: &Served,
    identity: Option<Pair>,
    h2: bool,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = served.ca.client(identity);
    config.alpn_protocols = vec![if h2 {
        b"h2".to_vec()
    } else {
        b"http/1.1".to_vec()
    }];
    let stream = TcpStream::connect(served.address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// A GET over a connection of its own.
async fn get(
    served: &Served,
    identity: Option<Pair>,
    h2: bool,
    path: &str,
) -> std::io::Result<http::Response<hyper::body::Incoming>> {
    let stream = TokioIo::new(connect(served, identity, h2).await?);
    let request = Request::get(format!("https://{}{path}", served.address))
        .header("host", served.address.to_string())
        .body(Body::empty())
        .unwrap();
    let answer = if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    answer.map_err(std::io::Error::other)
}

#[tokio::test]
async fn certificates_say_who_asks() {
    let api = Api::new().await;
    let served = serve(&api).await;
    for h2 in [false, true] {
        let admin = served.ca.sign("admin", &["system:masters"], &[]);
        assert_eq!(
            get(&served, Some(admin), h2, "/api/v1/pods")
                .await
                .unwrap()
                .status(),
            200
        );
        let jane = served.ca.sign("jane", &["people"], &[]);
        assert_eq!(
            get(&served, Some(jane), h2, "/api/v1/pods")
                .await
                .unwrap()
                .status(),
            403
        );
        assert_eq!(
            get(&served, None, h2, "/api/v1/pods")
                .await
                .unwrap()
                .status(),
            401
        );
        assert_eq!(
            get(&served, None, h2, "/livez").await.unwrap().status(),
            200
        );
    }
    // A certificate of another CA does not get as far as a request.
    let forged = Ca::new().sign("admin", &["system:masters"], &[]);
    assert!(
        get(&served, Some(forged), false, "/api/v1/pods")
            .await
            .is_err()
    );
    served.cancel.cancel();
    served.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_ends_watches() {
    let api = Api::new().await;
    let served = serve(&api).await;
    let admin = served.ca.sign("admin", &["system:masters"], &[]);
    let watch = get(
        &served,
        Some(admin),
        true,
        "/api/v1/namespaces?watch=1&resourceVersion=1",
    )
    .await
    .unwrap();
    served.cancel.cancel();
    let ended = tokio::time::timeout(DEADLINE, watch.into_body().collect())
        .await
        .unwrap();
    assert!(ended.is_ok());
    tokio::time::timeout(DEADLINE, served.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// A kubelet that answers every request with the path that was asked for.
async fn kubelet(ca: &Ca) -> u16 {
    let (certificate, key) = ca.sign("system:node:n1", &["system:nodes"], &["127.0.0.1"]);
    let tls = server_config(
        vec![certificate],
        key,
        std::slice::from_ref(&ca.certificate),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let answer = |request: Request<hyper::body::Incoming>| async move {
                let missing = request.uri().path().contains("/waiting");
                let text = if missing {
                    "container is waiting to start".to_owned()
                } else {
                    request.uri().to_string()
                };
                let response = http::Response::builder().status(if missing { 400 } else { 200 });
                Ok::<_, std::convert::Infallible>(response.body(Body::from(text)).unwrap())
            };
            let service = hyper::service::service_fn(answer);
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    port
}

#[tokio::test]
async fn logs_come_from_the_kubelet_of_the_node() {
    let ca = Ca::new();
    let port = kubelet(&ca).await;
    let identity = ca.sign("kube-apiserver", &["system:masters"], &[]);
    let api = Api::over(MemoryStore::new(), |config| {
        config.kubelet_tls = Some(Arc::new(ca.client(Some(identity))));
    })
    .await;
    let mut body = pod("p");
    body["spec"]["nodeName"] = json!("n1");
    api.post(PODS, &body).await.ok(201);
    body["metadata"]["name"] = json!("waiting");
    api.post(PODS, &body).await.ok(201);
    let log = format!("{PODS}/p/log?tailLines=3&follow=false&evil=1");
    api.get(&log).await.fails(404, "NotFound");
    api.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}}))
        .await
        .ok(201);
    let message = api.get(&log).await.fails(500, "InternalError");
    assert!(
        message.contains("has published no kubelet endpoint"),
        "{message}"
    );
    let status = |port: u16| {
        json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }})
    };
    api.patch("/api/v1/nodes/n1/status", "merge", &status(port))
        .await
        .ok(200);
    let answer = api.get(&log).await;
    assert_eq!(
        answer.text,
        "/containerLogs/default/p/c?follow=false&tailLines=3"
    );
    assert_eq!(answer.code, 200);
    let message = api
        .get(&format!("{PODS}/waiting/log"))
        .await
        .fails(400, "BadRequest");
    assert_eq!(message, "container is waiting to start");
    // A port where nobody listens.
    api.patch("/api/v1/nodes/n1/status", "merge", &status(1))
        .await
        .ok(200);
    let message = api.get(&log).await.fails(500, "InternalError");
    assert!(message.contains("cannot be reached"), "{message}");
}
