//! The API over a store in memory, for trying it with kubectl: writes a kubeconfig and serves
//! until it is interrupted.
//!
//!     cargo run -p coracle-apiserver --example memory_server -- 127.0.0.1:7443 /tmp/kubeconfig

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_apiserver::{ApiServer, Config, SigningKey, TokenConfig, serving};
use coracle_store::MemoryStore;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PublicKeyData,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:7443".to_owned())
        .parse()?;
    let kubeconfig = arguments.next().unwrap_or_else(|| "kubeconfig".to_owned());

    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;

    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "ca");
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let serving_key = KeyPair::generate()?;
    let mut serving_params =
        CertificateParams::new(vec!["localhost".to_owned(), address.ip().to_string()])?;
    serving_params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let serving_certificate = serving_params.signed_by(&serving_key, &issuer)?;

    let admin_key = KeyPair::generate()?;
    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::CommonName, "admin");
    admin
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let admin_certificate = admin.signed_by(&admin_key, &issuer)?;

    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "coracle",
        "clusters": [{"name": "coracle", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": STANDARD.encode(ca_certificate.pem()),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": STANDARD.encode(admin_certificate.pem()),
            "client-key-data": STANDARD.encode(admin_key.serialize_pem()),
        }}],
        "contexts": [{"name": "coracle", "context": {"cluster": "coracle", "user": "admin"}}],
    });
    // Whoever waits for the file finds it whole, and the port open.
    let staged = format!("{kubeconfig}.new");
    std::fs::write(&staged, config.to_string())?;
    std::fs::rename(&staged, &kubeconfig)?;

    let key = serving_key.serialize_der().try_into()?;
    let tls = serving::server_config(
        vec![serving_certificate.der().clone()],
        key,
        &[ca_certificate.der().clone()],
    )?;
    let mut config = Config::new(MemoryStore::new(), "10.43.0.0/16".parse()?);
    config.advertise = Some("192.0.2.1:6443".parse()?);
    let pair = KeyPair::generate()?;
    config.tokens = Some(TokenConfig {
        issuers: vec!["https://kubernetes.default.svc.cluster.local".to_owned()],
        audiences: Vec::new(),
        signing: SigningKey::from_der(&pair.serialize_der(), &pair.subject_public_key_info())?,
        verifying: Vec::new(),
    });
    let server = ApiServer::new(config);
    let cancel = CancellationToken::new();
    let chores = tokio::spawn({
        let (server, cancel) = (server.clone(), cancel.clone());
        async move { server.run(cancel).await }
    });
    println!("serving at https://{address}, KUBECONFIG={kubeconfig}");
    let stop = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    server.serve(listener, Arc::new(tls), cancel).await?;
    chores.await?;
    Ok(())
}
