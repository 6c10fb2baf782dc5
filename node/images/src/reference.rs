//! References to images.
//!
//! The grammar is that of the distribution project. What differs is what an unqualified name
//! means: the repository of the embedded registry where it holds one of that name, else
//! Docker Hub (`app` is `docker.io/library/app`). A name is unqualified when its first
//! component is no host: no dot, no colon, and not `localhost`.

use std::fmt;

use crate::Digest;

/// A parsed reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference; the kubelet's `InvalidImageName`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {name:?}: {cause}")]
pub struct ReferenceError {
    name: String,
    cause: String,
}

/// Docker Hub, as references name it.
pub(crate) const DOCKER_HUB: &str = "docker.io";

impl Reference {
    /// Parses a reference. Without a tag and a digest the tag is `latest`.
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        let error = |cause: String| ReferenceError {
            name: name.chars().take(512).collect(),
            cause,
        };
        let parsed = match name.parse::<oci_client::Reference>() {
            Ok(parsed) => parsed,
            Err(_) if is_valid_but_for_case(name) => {
                return Err(error(
                    "invalid reference format: repository name must be lowercase".into(),
                ));
            }
            Err(cause) => return Err(error(cause.to_string())),
        };
        let digest = parsed
            .digest()
            .map(str::parse)
            .transpose()
            .map_err(|cause: crate::DigestError| error(cause.to_string()))?;
        let (registry, repository) = match name.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => {
                (Some(parsed.registry().to_owned()), parsed.repository())
            }
            _ => {
                let end = name.find(['@', ':']).unwrap_or(name.len());
                (None, &name[..end])
            }
        };
        Ok(Self {
            registry,
            repository: repository.to_owned(),
            tag: parsed.tag().map(str::to_owned),
            digest,
        })
    }

    /// The registry, unless the name is unqualified.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The repository; of an unqualified name as it was written.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one. It goes before the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask the registry for: the digest, or the tag.
    pub(crate) fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// The same reference in a registry, for an unqualified name; others stay as they are.
    pub(crate) fn qualified(&self, registry: &str) -> Self {
        let mut qualified = self.clone();
        if qualified.registry.is_none() {
            qualified.registry = Some(registry.to_owned());
            if registry == DOCKER_HUB && !self.repository.contains('/') {
                qualified.repository = format!("library/{}", self.repository);
            }
        }
        qualified
    }

    /// `registry/repository`, without what makes a version.
    pub(crate) fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.repository),
            None => self.repository.clone(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_valid_but_for_case(name: &str) -> bool {
    name.bytes().any(|b| b.is_ascii_uppercase())
        && name
            .to_ascii_lowercase()
            .parse::<oci_client::Reference>()
            .is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn table() {
        let digest = format!("sha256:{HEX}");
        let at = format!("app@{digest}");
        let both = format!("ghcr.io/o/app:v1@{digest}");
        for (name, registry, repository, tag, hub) in [
            (
                "app",
                None,
                "app",
                Some("latest"),
                "docker.io/library/app:latest",
            ),
            (
                "app:v1",
                None,
                "app",
                Some("v1"),
                "docker.io/library/app:v1",
            ),
            (
                "team/app",
                None,
                "team/app",
                Some("latest"),
                "docker.io/team/app:latest",
            ),
            (
                "test.com:v1",
                None,
                "test.com",
                Some("v1"),
                "docker.io/library/test.com:v1",
            ),
            (
                "docker.io/nginx",
                Some("docker.io"),
                "library/nginx",
                Some("latest"),
                "docker.io/library/nginx:latest",
            ),
            (
                "index.docker.io/a/b:1",
                Some("docker.io"),
                "a/b",
                Some("1"),
                "docker.io/a/b:1",
            ),
            (
                "localhost/app",
                Some("localhost"),
                "app",
                Some("latest"),
                "localhost/app:latest",
            ),
            (
                "127.0.0.1:5000/x/app:v1",
                Some("127.0.0.1:5000"),
                "x/app",
                Some("v1"),
                "127.0.0.1:5000/x/app:v1",
            ),
            (&at, None, "app", None, &format!("docker.io/library/{at}")),
            (&both, Some("ghcr.io"), "o/app", Some("v1"), &both),
        ] {
            let parsed = Reference::parse(name).unwrap();
            assert_eq!(parsed.registry(), registry, "{name}");
            assert_eq!(parsed.repository(), repository, "{name}");
            assert_eq!(parsed.tag(), tag, "{name}");
            assert_eq!(parsed.qualified(DOCKER_HUB).to_string(), hub, "{name}");
        }
        assert_eq!(Reference::parse(&both).unwrap().version(), digest);
    }

    #[test]
    fn invalid_names_say_why() {
        for (name, cause) in [
            ("", "at least one component"),
            ("App:v1", "must be lowercase"),
            ("a//b", "invalid reference format"),
            ("../etc", "invalid reference format"),
            ("app:", "invalid reference format"),
            ("app@sha256:12", "invalid reference format"),
            ("http://x/app", "invalid reference format"),
            (&format!("app@sha512:{HEX}{HEX}"), "not supported"),
            (&"a/".repeat(200).add_end("b"), "not be more than 255"),
        ] {
            let error = Reference::parse(name).unwrap_err().to_string();
            assert!(error.contains(cause), "{name}: {error}");
            assert!(error.starts_with("couldn't parse image name"), "{error}");
        }
    }

    trait AddEnd {
        fn add_end(self, end: &str) -> String;
    }
    impl AddEnd for String {
        fn add_end(mut self, end: &str) -> String {
            self.push_str(end);
            self
        }
    }
}
