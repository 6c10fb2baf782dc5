//! Who may use the embedded registry: the admin pushes and pulls, each node pulls with a
//! credential of its own.
//!
//! A node's password is derived from a secret of the servers and the node's name, so that every
//! server can check it and none has to keep it.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::authority::hex;
use crate::paths::{read_if_present, write_private};

const ADMIN: &str = "admin";
/// A user of HTTP's Basic scheme has no colon (RFC 7617), so it is not the node's user of the API.
const NODE_PREFIX: &str = "node-";

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Read and write.
    Push,
    /// Read.
    Pull,
    /// Nothing.
    Nothing,
}

/// A user with its password.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// The credentials of one cluster's registry.
#[derive(Clone)]
pub(crate) struct RegistryCredentials {
    admin_password: String,
    node_secret: String,
}

impl RegistryCredentials {
    /// Reads them, or makes them at first start. `admin_file` holds `user:password`.
    pub(crate) fn load_or_create(admin_file: &Path, secret_file: &Path) -> Result<Self> {
        let random = || hex(&rand::random::<[u8; 32]>());
        let admin_password = match read_if_present(admin_file)? {
            Some(text) => text
                .trim()
                .split_once(':')
                .with_context(|| {
                    format!("{} is not of the form user:password", admin_file.display())
                })?
                .1
                .to_owned(),
            None => {
                let password = random();
                write_private(admin_file, format!("{ADMIN}:{password}\n").as_bytes())?;
                password
            }
        };
        let node_secret = match read_if_present(secret_file)? {
            Some(secret) => secret.trim().to_owned(),
            None => {
                let secret = random();
                write_private(secret_file, secret.as_bytes())?;
                secret
            }
        };
        Ok(Self {
            admin_password,
            node_secret,
        })
    }

    /// The admin's.
    pub(crate) fn admin(&self) -> Credential {
        Credential {
            user: ADMIN.into(),
            password: self.admin_password.clone(),
        }
    }

    /// A node's.
    pub(crate) fn node(&self, name: &str) -> Credential {
        // Hashed twice, so that no longer name can be derived from a shorter one's.
        let hash = |text: &str| hex(&Sha256::digest(format!("{}{text}", self.node_secret)));
        Credential {
            user: node_user(name),
            password: hash(&hash(name)),
        }
    }

    /// What the value of an `Authorization` header grants.
    pub(crate) fn grant(&self, authorization: Option<&str>) -> Grant {
        let decoded = authorization
            .and_then(|value| value.strip_prefix("Basic "))
            .and_then(|value| STANDARD.decode(value.trim()).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':'))
        else {
            return Grant::Nothing;
        };
        if user == ADMIN && same(password, &self.admin_password) {
            return Grant::Push;
        }
        match user.strip_prefix(NODE_PREFIX) {
            Some(name) if same(password, &self.node(name).password) => Grant::Pull,
            _ => Grant::Nothing,
        }
    }
}

/// The user as which a node pulls.
pub(crate) fn node_user(name: &str) -> String {
    format!("{NODE_PREFIX}{name}")
}

/// Equality in a time that does not tell where two secrets differ: their hashes are compared.
fn same(a: &str, b: &str) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_gets_its_grant_and_restarts_keep_it() {
        let folder = tempfile::tempdir().unwrap();
        let load = || {
            RegistryCredentials::load_or_create(
                &folder.path().join("admin"),
                &folder.path().join("secret"),
            )
            .unwrap()
        };
        let credentials = load();
        let header = |user: &str, password: &str| {
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        };
        let admin = credentials.admin();
        let node = credentials.node("one");
        for (authorization, grant) in [
            (Some(header(&admin.user, &admin.password)), Grant::Push),
            (Some(header(&node.user, &node.password)), Grant::Pull),
            (Some(header("node-two", &node.password)), Grant::Nothing),
            (Some(header("admin", "guess")), Grant::Nothing),
            (Some("Basic %".to_owned()), Grant::Nothing),
            (Some("Bearer x".to_owned()), Grant::Nothing),
            (None, Grant::Nothing),
        ] {
            assert_eq!(
                load().grant(authorization.as_deref()),
                grant,
                "{authorization:?}"
            );
        }
    }
}
