//! How a node joins: the two routes of the server, and the node's side of them.
//!
//! ```text
//! node                                            server
//!  | GET /cacerts        (unverified)               |
//!  |----------------------------------------------->| the CA certificate
//!  |   its hash must be the one in the token        |
//!  | POST /v1-coracle/node-certificate (verified)   |
//!  |   Authorization: Bearer <id>.<secret>          |
//!  |   { nodeName, nodePassword, request }          |
//!  |----------------------------------------------->| { certificate }
//! ```
//!
//! The node password is made by the node at its first join and kept by the server as a hash: a
//! holder of a token cannot take the name of a node that is there already.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use coracle_apimachinery::names;
use http::{HeaderMap, StatusCode, header};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::authority::{Authority, KeyedCertificate, fingerprint, hex, near_end, node_request};
use super::registry::{Credential, RegistryCredentials, node_user};
use super::token::{self, BootstrapToken, JoinToken};
use crate::paths::{create_private_dir, read_if_present, write_private};
use crate::server::LateClient;

const CERTIFICATE_PATH: &str = "/v1-coracle/node-certificate";
/// A request holds one CSR of less than a kilobyte.
const BODY_LIMIT: usize = 64 << 10;
/// A server that does not answer within this is treated as down.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JoinRequest {
    node_name: String,
    node_password: String,
    request: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JoinResponse {
    certificate: String,
    registry_user: String,
    registry_password: String,
}

/// What the server's routes need.
#[derive(Clone)]
struct Joining {
    authority: Arc<Authority>,
    registry: RegistryCredentials,
    client: LateClient,
}

/// The routes of a server; they authenticate by the token, not by the API's chain.
pub(crate) fn routes(
    authority: Arc<Authority>,
    registry: RegistryCredentials,
    client: LateClient,
) -> Router {
    Router::new()
        .route("/cacerts", get(serve_authority))
        .route(CERTIFICATE_PATH, post(serve_certificate))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Joining {
            authority,
            registry,
            client,
        })
}

async fn serve_authority(State(joining): State<Joining>) -> Response {
    (
        [(header::CONTENT_TYPE, "application/x-pem-file")],
        joining.authority.certificate().to_owned(),
    )
        .into_response()
}

async fn serve_certificate(
    State(joining): State<Joining>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match issue(&joining, &headers, &body).await {
        Ok(response) => json(&response),
        Err((status, message)) => (status, message).into_response(),
    }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

type Refusal = (StatusCode, String);

async fn issue(
    joining: &Joining,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<JoinResponse, Refusal> {
    let unavailable = |error: anyhow::Error| {
        tracing::warn!(%error, "a node could not join");
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the server cannot check tokens now, try again".to_owned(),
        )
    };
    let unauthorized = || {
        (
            StatusCode::UNAUTHORIZED,
            "the token is not known or has expired: make one with `coracle token create`"
                .to_owned(),
        )
    };
    let token: BootstrapToken = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")?.parse().ok())
        .ok_or_else(unauthorized)?;
    let client = joining.client.get().map_err(unavailable)?;
    if !token::verify(client, &token).await.map_err(unavailable)? {
        return Err(unauthorized());
    }
    let bad_request = |message: String| (StatusCode::BAD_REQUEST, message);
    let request: JoinRequest = serde_json::from_slice(body)
        .map_err(|error| bad_request(format!("the request does not read: {error}")))?;
    let faults = names::dns_subdomain(&request.node_name);
    if !faults.is_empty() {
        return Err(bad_request(format!(
            "{:?} is no node name: {}",
            request.node_name,
            faults.join("; ")
        )));
    }
    if !claim_name(client, &request).await.map_err(unavailable)? {
        return Err((
            StatusCode::FORBIDDEN,
            format!(
                "a node named {} has joined with another node password: choose another --node-name, or delete Secret kube-system/{} if that node is gone",
                request.node_name,
                password_name(&request.node_name)
            ),
        ));
    }
    let certificate = joining
        .authority
        .sign_node_request(&request.request, &request.node_name)
        .map_err(|error| bad_request(format!("{error:#}")))?;
    let registry = joining.registry.node(&request.node_name);
    Ok(JoinResponse {
        certificate,
        registry_user: registry.user,
        registry_password: registry.password,
    })
}

fn password_name(node: &str) -> String {
    format!("{node}.node-password.coracle")
}

/// Whether the name is free, or was taken with this same password.
async fn claim_name(client: &kube::Client, request: &JoinRequest) -> Result<bool> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let name = password_name(&request.node_name);
    let hash = hex(&Sha256::digest(request.node_password.as_bytes()));
    let mine = |secret: &Secret| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get("hash"))
            .is_some_and(|stored| stored.0 == hash.as_bytes())
    };
    if let Some(secret) = secrets.get_opt(&name).await? {
        return Ok(mine(&secret));
    }
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(
            "hash".to_owned(),
            ByteString(hash.clone().into_bytes()),
        )])),
        ..Secret::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Ok(secrets.get_opt(&name).await?.is_some_and(|s| mine(&s)))
        }
        Err(error) => Err(error.into()),
    }
}

/// What a node holds after it has joined.
#[derive(Clone)]
pub(crate) struct NodeIdentity {
    pub(crate) authority: String,
    pub(crate) certificate: KeyedCertificate,
    /// With which it pulls from the embedded registry.
    pub(crate) registry: Credential,
}

/// The node's identity from its folder, or by joining with the token.
///
/// # Errors
/// The server cannot be reached, is not the one that the token pins, or refuses the node.
pub(crate) async fn node_identity(
    directory: &Path,
    server: &url::Url,
    token: Option<&JoinToken>,
    node: &str,
    addresses: &[IpAddr],
) -> Result<NodeIdentity> {
    create_private_dir(directory)?;
    let path = |name: &str| directory.join(name);
    let kept = match (
        read_if_present(&path("ca.crt"))?,
        read_if_present(&path("node.crt"))?,
        read_if_present(&path("node.key"))?,
        read_if_present(&path("registry-password"))?,
    ) {
        (Some(authority), Some(certificate), Some(key), Some(password)) => Some(NodeIdentity {
            authority,
            certificate: KeyedCertificate { certificate, key },
            registry: Credential {
                user: node_user(node),
                password,
            },
        }),
        _ => None,
    };
    match (kept, token) {
        (Some(kept), _) if !near_end(&kept.certificate.certificate) => return Ok(kept),
        (Some(kept), None) => {
            tracing::warn!("the node's certificate is about to expire: start once with --token");
            return Ok(kept);
        }
        (None, None) => bail!(
            "this node has not joined yet: give --token, from `coracle token create` on a server"
        ),
        (_, Some(_)) => {}
    }
    let token = token.context("a token")?;
    let authority = pinned_authority(server, &token.authority).await?;
    let password = match read_if_present(&path("node-password"))? {
        Some(password) => password,
        None => {
            let password = hex(&rand::random::<[u8; 32]>());
            write_private(&path("node-password"), password.as_bytes())?;
            password
        }
    };
    let (key, request) = node_request(node, addresses)?;
    let response = http_client(Some(&authority))?
        .post(server.join(CERTIFICATE_PATH)?)
        .bearer_auth(token.bootstrap.bearer())
        .body(serde_json::to_vec(&JoinRequest {
            node_name: node.to_owned(),
            node_password: password,
            request,
        })?)
        .send()
        .await
        .with_context(|| format!("{server} did not answer"))?;
    let status = response.status();
    let body = response.bytes().await?;
    if !status.is_success() {
        bail!(
            "{server} refused the node: {}",
            String::from_utf8_lossy(&body)
        );
    }
    let joined: JoinResponse =
        serde_json::from_slice(&body).with_context(|| format!("{server} is no Coracle server"))?;
    let identity = NodeIdentity {
        authority,
        certificate: KeyedCertificate {
            certificate: joined.certificate,
            key: key.serialize_pem(),
        },
        registry: Credential {
            user: joined.registry_user,
            password: joined.registry_password,
        },
    };
    write_private(
        &path("registry-password"),
        identity.registry.password.as_bytes(),
    )?;
    write_private(&path("node.key"), identity.certificate.key.as_bytes())?;
    write_private(&path("ca.crt"), identity.authority.as_bytes())?;
    write_private(
        &path("node.crt"),
        identity.certificate.certificate.as_bytes(),
    )?;
    Ok(identity)
}

/// The server's CA, if it is the one that the token pins. Nothing else of the unverified
/// connection is believed.
async fn pinned_authority(server: &url::Url, pin: &str) -> Result<String> {
    let response = http_client(None)?
        .get(server.join("/cacerts")?)
        .send()
        .await
        .with_context(|| format!("{server} did not answer"))?;
    let authority = response
        .error_for_status()
        .with_context(|| format!("{server} is no Coracle server"))?
        .text()
        .await?;
    ensure!(
        fingerprint(&authority)? == pin,
        "the CA of {server} is not the one in the token: wrong server, wrong token, or somebody in between"
    );
    Ok(authority)
}

fn http_client(authority: Option<&str>) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
    let builder = match authority {
        Some(pem) => builder.tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes())?]),
        // Only the pinned hash of the answer is believed, see `pinned_authority`.
        None => builder.tls_danger_accept_invalid_certs(true),
    };
    Ok(builder.build()?)
}
