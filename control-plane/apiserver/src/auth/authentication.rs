//! Authentication: client certificates on the wire, an identity of our own in the process.
//!
//! The TLS layer has verified the certificate against the cluster's CA already (`serving/tls.rs`);
//! here it is only read. An identity in the process is an extension of the request: extensions
//! cannot be sent, so the wire cannot forge one.

use http::request::Parts;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{AUTHENTICATED, UserInfo};

/// The identity that a request brings, if any: set by the connection or by an in-process
/// client, never from anything that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Identity(pub(crate) UserInfo);

/// Who sent the request; `None` is 401.
#[must_use]
pub fn authenticate(parts: &Parts) -> Option<UserInfo> {
    let Identity(user) = parts.extensions.get::<Identity>()?;
    let mut user = user.clone();
    if !user.in_group(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    Some(user)
}

/// The user that a verified client certificate names: common name and organizations, as in
/// Kubernetes. `None` for a certificate without a common name.
#[must_use]
pub fn user_of_certificate(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(str::to_owned)
        .collect();
    Some(UserInfo {
        name,
        groups,
        ..UserInfo::default()
    })
}
