//! Where images are, and with which credentials: for the node's own pulls, and for others on this
//! machine that pull by themselves.

use std::collections::BTreeMap;

use super::{Puller, is_loopback};
use crate::client::{Basic, ClientError, Repository, Trust};
use crate::reference::DOCKER_HUB;
use crate::{Access, Reference, RegistryAuth};

/// User and password.
type Credential = (String, String);

/// Where an image may be had, with one credential.
pub(super) struct Place {
    pub(super) repository: Repository,
    /// `registry/repository`.
    name: String,
    /// Who may have the image that is had there.
    access: Access,
}

impl Place {
    /// See [`crate::StoredImage::pulled`].
    pub(super) fn pulled(&self) -> BTreeMap<String, Access> {
        BTreeMap::from([(self.name.clone(), self.access.clone())])
    }
}

/// What to try for a qualified reference, in order, and who may have what is had with it; `own` is
/// the node's.
fn credentials(
    auths: &[RegistryAuth],
    reference: &Reference,
    own: Option<Credential>,
) -> Vec<(Option<Credential>, Access)> {
    let fitting = RegistryAuth::matching(auths, reference).into_iter();
    let fitting = fitting.map(|auth| {
        let credential = (auth.username.clone(), auth.password.clone());
        let access = auth.pull_secret().map(|secret| vec![secret]);
        let access = access.map_or(Access::Everybody, Access::Secrets);
        (Some(credential), access)
    });
    let own = own.map(|own| (Some(own), Access::Everybody));
    let all: Vec<_> = fitting.chain(own).collect();
    match all.is_empty() {
        true => vec![(None, Access::Everybody)],
        false => all,
    }
}

impl Puller {
    /// The places and credentials to try for a qualified reference, in order.
    pub(super) async fn places(
        &self,
        reference: &Reference,
        auths: &[RegistryAuth],
    ) -> Result<Vec<Place>, ClientError> {
        let registry = reference.registry().unwrap_or(DOCKER_HUB);
        let ours = self.config.embedded.as_ref();
        let ours = ours.filter(|ours| ours.is_named(registry));
        let (endpoints, trust, own) = match ours {
            Some(ours) => (
                ours.endpoints.clone(),
                Trust::Cluster,
                ours.credential.clone(),
            ),
            _ if registry == DOCKER_HUB => (
                vec!["https://registry-1.docker.io".into()],
                Trust::Machine,
                None,
            ),
            _ if is_loopback(registry) => {
                (vec![format!("http://{registry}")], Trust::Cluster, None)
            }
            _ => (vec![format!("https://{registry}")], Trust::Machine, None),
        };
        let for_all = own.is_some();
        let credentials = credentials(auths, reference, own);
        let http = self.http.get(trust).await?;
        let mut places = Vec::new();
        for (credential, access) in credentials {
            for endpoint in &endpoints {
                let basic = credential.clone();
                let basic = basic.map(|(username, password)| Basic { username, password });
                let name = reference.repository();
                places.push(Place {
                    repository: Repository::new(http.clone(), endpoint, name, basic, "pull"),
                    name: reference.name(),
                    // The node itself could have it, whoever asked first.
                    access: match for_all {
                        true => Access::Everybody,
                        false => access.clone(),
                    },
                });
            }
        }
        Ok(places)
    }

    /// Where somebody else on this machine may have an image from, by its digest, and with which user
    /// and password: what was [`super::Image::id`].
    pub fn sources(&self, id: &str, auths: &[RegistryAuth]) -> Vec<(String, Option<Credential>)> {
        let Ok(reference) = Reference::parse(id) else {
            return Vec::new();
        };
        let registry = reference.registry().unwrap_or(DOCKER_HUB);
        let embedded = self.config.embedded.as_ref();
        let embedded = embedded.filter(|ours| ours.is_named(registry));
        let relay = embedded.and(self.config.relay);
        let host = relay.map_or_else(|| registry.to_owned(), |relay| relay.to_string());
        let (repository, version) = (reference.repository(), reference.version());
        let place = format!("{host}/{repository}@{version}");
        let own = embedded.and_then(|ours| ours.credential.clone());
        let credentials = credentials(auths, &reference, own).into_iter();
        credentials
            .map(|(credential, _)| (place.clone(), credential))
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::{ContentStore, EmbeddedRegistry, PullerConfig, SecretId};

    use super::*;

    #[test]
    fn others_are_told_where_an_image_is_and_what_fits() {
        let folder = tempfile::tempdir().unwrap();
        let pair = |user: &str| (user.to_owned(), "secret".to_owned());
        let config = PullerConfig {
            embedded: Some(EmbeddedRegistry {
                name: "127.0.0.1:5000".into(),
                aliases: vec!["localhost:5000".into()],
                credential: Some(pair("node")),
                ..EmbeddedRegistry::default()
            }),
            relay: Some(([127, 0, 0, 1], 6000).into()),
            ..PullerConfig::default()
        };
        let store = ContentStore::open(folder.path()).unwrap();
        let puller = Puller::new(store, config).unwrap();
        let digest = format!("sha256:{}", "1".repeat(64));
        let auths = [RegistryAuth {
            pattern: "registry.example".into(),
            username: "user".into(),
            password: "secret".into(),
            secret: Some(SecretId::default()),
        }];
        for (id, place, credential) in [
            ("127.0.0.1:5000/a/app", "127.0.0.1:6000/a/app", Some("node")),
            ("localhost:5000/app", "127.0.0.1:6000/app", Some("node")),
            ("registry.example/app", "registry.example/app", Some("user")),
            ("docker.io/library/app", "docker.io/library/app", None),
        ] {
            let found = puller.sources(&format!("{id}@{digest}"), &auths);
            let expected = (format!("{place}@{digest}"), credential.map(pair));
            assert_eq!(found, [expected], "{id}");
        }
    }
}
