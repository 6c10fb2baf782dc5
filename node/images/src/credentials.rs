//! Credentials for registries, from the Secrets that `imagePullSecrets` name.
//!
//! Which entry fits which image follows the kubelet's keyring: the entry's host may have `*`
//! and `?` within a label, its port must be equal, and its path must be a prefix of the
//! repository. The longest entry is tried first, but the Pod's own before the node's.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;

use crate::reference::{DOCKER_HUB, Reference, ReferenceError};
use crate::{Digest, PullSecret, SecretId};

/// A user's credential, and the registries and repositories that it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// `host`, `host:port`, `host/path`; `*` and `?` stand for parts of a host's label.
    pub pattern: String,
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: String,
    /// The Pod's Secret in which it is. Without one it is the node's, and is tried after the Pod's.
    pub secret: Option<SecretId>,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryAuth({} as {})", self.pattern, self.username)
    }
}

/// Why a Secret gives no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The key's value is not the JSON that it should be. The cause is not quoted: it could
    /// hold a part of the secret.
    #[error("secret {secret:?}: key {key} does not hold a docker configuration (line {line})")]
    Malformed {
        /// Name of the Secret.
        secret: String,
        /// Key of its data.
        key: &'static str,
        /// Line of the error.
        line: usize,
    },
}

#[derive(Deserialize)]
struct DockerConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
}

impl RegistryAuth {
    /// The credentials in a Secret of type `kubernetes.io/dockerconfigjson` or
    /// `kubernetes.io/dockercfg`. Secrets of other types have none.
    pub fn from_secret(secret: &core::Secret) -> Result<Vec<Self>, CredentialsError> {
        let key = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => ".dockerconfigjson",
            Some("kubernetes.io/dockercfg") => ".dockercfg",
            _ => return Ok(Vec::new()),
        };
        let Some(value) = secret.data.as_ref().and_then(|data| data.get(key)) else {
            return Ok(Vec::new());
        };
        let entries = if key == ".dockercfg" {
            serde_json::from_slice(&value.0)
        } else {
            serde_json::from_slice::<DockerConfigJson>(&value.0).map(|config| config.auths)
        };
        let entries: BTreeMap<String, Entry> =
            entries.map_err(|error| CredentialsError::Malformed {
                secret: secret.metadata.name.clone().unwrap_or_default(),
                key,
                line: error.line(),
            })?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let id = SecretId {
            namespace: text(&secret.metadata.namespace),
            name: text(&secret.metadata.name),
            uid: text(&secret.metadata.uid),
        };
        Ok(entries
            .into_iter()
            .filter_map(|(pattern, entry)| entry.into_auth(pattern, &id))
            .collect())
    }

    /// How it is remembered what was pulled with it; none for the node's own. The digest is that of the
    /// user and the password, so that two Secrets with the same are as good as one.
    pub fn pull_secret(&self) -> Option<PullSecret> {
        let Self {
            username, password, ..
        } = self;
        // With its length a name ends where it ends.
        let credential = format!("{} {username}{password}", username.len());
        Some(PullSecret {
            secret: self.secret.clone()?,
            hash: Digest::of(credential.as_bytes()).to_string(),
        })
    }

    /// The repository of an image with its registry, as patterns are compared with it: without tag
    /// and digest.
    pub fn repository(reference: &str) -> Result<String, ReferenceError> {
        Ok(Reference::parse(reference)?.qualified(DOCKER_HUB).name())
    }

    /// Whether a pattern covers such a repository.
    pub fn covers(pattern: &str, repository: &str) -> bool {
        let image = Reference::parse(repository);
        image.is_ok_and(|image| fits(&normal_pattern(pattern), &image.qualified(DOCKER_HUB)))
    }

    /// Those of `auths` that fit a qualified reference, in the order to be tried.
    pub(crate) fn matching<'a>(auths: &'a [Self], image: &Reference) -> Vec<&'a Self> {
        let mut fitting: Vec<(String, &Self)> = auths
            .iter()
            .map(|auth| (normal_pattern(&auth.pattern), auth))
            .filter(|(pattern, _)| fits(pattern, image))
            .collect();
        fitting.sort_by(|(a, of_a), (b, of_b)| {
            let of_node = of_a.secret.is_none().cmp(&of_b.secret.is_none());
            of_node.then(b.cmp(a))
        });
        fitting.into_iter().map(|(_, auth)| auth).collect()
    }
}

impl Entry {
    fn into_auth(self, pattern: String, secret: &SecretId) -> Option<RegistryAuth> {
        let config =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = GeneralPurpose::new(&STANDARD, config)
            .decode(self.auth.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let (username, password) = match decoded.as_deref().and_then(|auth| auth.split_once(':')) {
            Some((username, password)) => {
                (username.to_owned(), password.trim_matches('\0').to_owned())
            }
            None => (self.username, self.password),
        };
        (!username.is_empty()).then_some(RegistryAuth {
            pattern,
            username,
            password,
            secret: Some(secret.clone()),
        })
    }
}

/// Without scheme, without the path of an API version, Docker Hub by its usual name.
fn normal_pattern(pattern: &str) -> String {
    let pattern = pattern
        .strip_prefix("https://")
        .or_else(|| pattern.strip_prefix("http://"))
        .unwrap_or(pattern);
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let path = match path.strip_prefix("v1").or_else(|| path.strip_prefix("v2")) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        other => other,
    };
    match path.trim_end_matches('/') {
        "" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

fn fits(pattern: &str, image: &Reference) -> bool {
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let image_host = image.registry().unwrap_or(DOCKER_HUB);
    let split = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) => (name.to_owned(), Some(port.to_owned())),
        None => (host.to_owned(), None),
    };
    let ((name, port), (image_name, image_port)) = (split(host), split(image_host));
    let labels: Vec<&str> = name.split('.').collect();
    let image_labels: Vec<&str> = image_name.split('.').collect();
    port == image_port
        && labels.len() == image_labels.len()
        && labels
            .iter()
            .zip(image_labels)
            .all(|(glob, label)| glob_matches(glob.as_bytes(), label.as_bytes()))
        && image.repository().starts_with(path)
}

fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    // The last star seen, and how much of the text it covers, suffice to backtrack.
    let (mut g, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((at, covered)) => {
                    g = at + 1;
                    t = covered + 1;
                    star = Some((at, covered + 1));
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn secret(type_: &str, key: &str, value: &str) -> core::Secret {
        core::Secret {
            type_: Some(type_.into()),
            data: Some(BTreeMap::from([(
                key.into(),
                k8s_openapi::ByteString(value.into()),
            )])),
            ..Default::default()
        }
    }

    #[test]
    fn both_secret_types() {
        let json = r#"{"auths":{"r.example":{"auth":"dXNlcjpwYTpzcw=="},
            "q.example":{"username":"u","password":"p"},"empty.example":{}}}"#;
        let auths = RegistryAuth::from_secret(&secret(
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            json,
        ))
        .unwrap();
        let found: Vec<_> = auths
            .iter()
            .map(|a| (a.pattern.as_str(), a.username.as_str(), a.password.as_str()))
            .collect();
        assert_eq!(
            found,
            [("q.example", "u", "p"), ("r.example", "user", "pa:ss")]
        );
        let old = r#"{"r.example":{"auth":"dXNlcjpwdw"}}"#;
        let auths =
            RegistryAuth::from_secret(&secret("kubernetes.io/dockercfg", ".dockercfg", old));
        let auths = auths.unwrap();
        assert_eq!(auths[0].password, "pw");
        let same = RegistryAuth {
            pattern: "elsewhere".into(),
            ..auths[0].clone()
        };
        assert_eq!(auths[0].pull_secret(), same.pull_secret());
        let other = RegistryAuth {
            username: "userp".into(),
            password: "w".into(),
            ..same.clone()
        };
        let hash = |auth: &RegistryAuth| auth.pull_secret().map(|of| of.hash);
        assert_ne!(hash(&other), hash(&same));
        let of_node = RegistryAuth {
            secret: None,
            ..same
        };
        assert_eq!(of_node.pull_secret(), None);
        assert_eq!(
            RegistryAuth::from_secret(&secret("Opaque", ".dockercfg", "x")).unwrap(),
            []
        );
        let bad = secret("kubernetes.io/dockercfg", ".dockercfg", "{\"s3cret");
        let error = RegistryAuth::from_secret(&bad).unwrap_err().to_string();
        assert!(
            error.contains(".dockercfg") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn patterns_fit_as_the_kubelet_matches_them() {
        for (pattern, image, expected) in [
            ("r.example", "r.example/app", true),
            ("https://r.example/v2/", "r.example/app", true),
            ("r.example/team", "r.example/team/app", true),
            ("r.example/team", "r.example/other/app", false),
            ("r.example", "r.example:5000/app", false),
            ("r.example:5000", "r.example:5000/app", true),
            ("*.example", "r.example/app", true),
            ("*.example", "a.r.example/app", false),
            ("re?-*.example", "reg-1.example/app", true),
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "docker.io/library/nginx", true),
            ("r.example", "nginx", false),
        ] {
            let auth = RegistryAuth {
                pattern: pattern.into(),
                username: "u".into(),
                password: "p".into(),
                secret: Some(SecretId::default()),
            };
            let image = Reference::parse(image).unwrap().qualified(DOCKER_HUB);
            assert_eq!(RegistryAuth::covers(pattern, &image.name()), expected);
            let auths = [auth];
            let found = RegistryAuth::matching(&auths, &image);
            assert_eq!(!found.is_empty(), expected, "{pattern} {image}");
        }
    }

    #[test]
    fn the_longest_goes_first_and_the_pods_before_the_nodes() {
        let auth = |pattern: &str, of_node: bool| RegistryAuth {
            pattern: pattern.into(),
            username: "u".into(),
            password: "p".into(),
            secret: (!of_node).then(SecretId::default),
        };
        let auths = [
            auth("r.example/team/app", true),
            auth("r.example", false),
            auth("r.example/team", false),
        ];
        let image = Reference::parse("r.example/team/app").unwrap();
        let found = RegistryAuth::matching(&auths, &image);
        let found: Vec<&str> = found.iter().map(|auth| &*auth.pattern).collect();
        assert_eq!(found, ["r.example/team", "r.example", "r.example/team/app"]);
    }
}
