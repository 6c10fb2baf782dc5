//! With whose credentials an image was pulled (KEP-2535), which decides who may use it from the store
//! without asking its registry again.
//!
//! It is kept with the image, by the repository from which it was pulled, and is there as soon as the
//! image is: nobody finds one of which it is not known yet. Passwords are kept as digests.
//!
//! Deliberately absent: the decision, which is the kubelet's; tokens of ServiceAccounts, with which
//! nobody here pulls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Secrets that are remembered of one image and repository; the oldest go first. Whoever has one that
/// is not remembered pulls again.
const MOST_SECRETS: usize = 100;
/// Repositories that are remembered of one image; whoever names another pulls each time.
const MOST_REPOSITORIES: usize = 100;

/// A Secret of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which of all that had that name.
    pub uid: String,
}

/// A Secret that gave access to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullSecret {
    /// The Secret.
    pub secret: SecretId,
    /// Digest of the credential in it, see [`crate::RegistryAuth::pull_secret`].
    pub hash: String,
}

/// Who has had access to an image in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// Whoever is on the node: it took no credentials, or the node's own.
    Everybody,
    /// Those who have one of these.
    Secrets(Vec<PullSecret>),
}

impl Access {
    /// Takes in what another pull has shown. What a Secret held before gives no access any more.
    pub(crate) fn extend(&mut self, other: Self) {
        let new = match other {
            Self::Secrets(new) => new,
            Self::Everybody => {
                *self = Self::Everybody;
                return;
            }
        };
        let Self::Secrets(known) = self else {
            return;
        };
        for secret in new {
            if !known.contains(&secret) {
                known.retain(|old| old.secret != secret.secret);
                known.push(secret);
            }
        }
        let excess = known.len().saturating_sub(MOST_SECRETS);
        known.drain(..excess);
    }
}

/// What is known of an image by repository, and what another pull has shown.
pub(crate) fn merged(
    known: &BTreeMap<String, Access>,
    new: BTreeMap<String, Access>,
) -> BTreeMap<String, Access> {
    let mut all = known.clone();
    for (repository, access) in new {
        if let Some(known) = all.get_mut(&repository) {
            known.extend(access);
        } else if all.len() < MOST_REPOSITORIES {
            all.insert(repository, access);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, hash: &str) -> PullSecret {
        PullSecret {
            secret: SecretId {
                name: name.into(),
                ..SecretId::default()
            },
            hash: hash.into(),
        }
    }

    fn after(first: Access, then: Access) -> Access {
        let mut access = first;
        access.extend(then);
        access
    }

    #[test]
    fn access_widens_and_never_narrows() {
        let of = |secrets: &[(&str, &str)]| {
            let secrets = secrets.iter().map(|(name, hash)| secret(name, hash));
            Access::Secrets(secrets.collect())
        };
        let all = || Access::Everybody;
        for (first, then, expected) in [
            (all(), of(&[("a", "1")]), all()),
            (of(&[("a", "1")]), all(), all()),
            (
                of(&[("a", "1")]),
                of(&[("b", "1")]),
                of(&[("a", "1"), ("b", "1")]),
            ),
            // The same stay where they are, so that nothing is written.
            (
                of(&[("a", "1"), ("b", "1")]),
                of(&[("a", "1")]),
                of(&[("a", "1"), ("b", "1")]),
            ),
            // What it held before is not known to be good still.
            (of(&[("a", "1")]), of(&[("a", "2")]), of(&[("a", "2")])),
        ] {
            assert_eq!(after(first, then), expected);
        }
    }

    #[test]
    fn secrets_are_bounded() {
        let mut access = Access::Secrets(Vec::new());
        for n in 0..MOST_SECRETS + 2 {
            access.extend(Access::Secrets(vec![secret(&n.to_string(), "1")]));
        }
        let Access::Secrets(known) = access else {
            panic!("{access:?}");
        };
        assert_eq!(known.len(), MOST_SECRETS);
        assert_eq!(known[0].secret.name, "2");
    }

    #[test]
    fn repositories_are_apart_and_bounded() {
        let of = |name: &str, access| BTreeMap::from([(name.to_owned(), access)]);
        let one = of("r/one", Access::Secrets(vec![secret("a", "1")]));
        let both = merged(&one, of("r/two", Access::Everybody));
        assert_eq!(both["r/one"], one["r/one"]);
        assert_eq!(both["r/two"], Access::Everybody);
        let mut many = both;
        for n in 0..MOST_REPOSITORIES {
            many = merged(&many, of(&format!("r/more{n}"), Access::Everybody));
        }
        assert_eq!(many.len(), MOST_REPOSITORIES);
        let widened = merged(&many, of("r/one", Access::Everybody));
        assert_eq!(widened["r/one"], Access::Everybody);
    }
}
