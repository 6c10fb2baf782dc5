//! Where images are, and with which credentials: for the node's own pulls, and for others on this
//! machine that pull by themselves.

use super::Puller;
use crate::reference::DOCKER_HUB;
use crate::{Reference, RegistryAuth};

/// User and password.
type Credential = (String, String);

/// What to try for a qualified reference, in order; `own` is the node's.
pub(super) fn credentials(
    auths: &[RegistryAuth],
    reference: &Reference,
    own: Option<Credential>,
) -> Vec<Option<Credential>> {
    let fitting = RegistryAuth::matching(auths, reference).into_iter();
    let fitting = fitting.map(|auth| (auth.username.clone(), auth.password.clone()));
    let all: Vec<Option<Credential>> = fitting.chain(own).map(Some).collect();
    match all.is_empty() {
        true => vec![None],
        false => all,
    }
}

impl Puller {
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
            .map(|credential| (place.clone(), credential))
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::{ContentStore, EmbeddedRegistry, PullerConfig};

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
            of_node: false,
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
