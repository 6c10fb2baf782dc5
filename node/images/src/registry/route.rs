//! Paths of the registry. Names of repositories hold slashes, so a path is read from its end.

use crate::Digest;

use super::error::{Code, RegistryError};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Version,
    Catalog,
    Tags { name: String },
    Referrers { name: String, digest: Digest },
    Blob { name: String, digest: Digest },
    Manifest { name: String, version: Version },
    Uploads { name: String },
    Upload { name: String, id: String },
}

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tag(String),
    Digest(Digest),
}

/// Reads what follows `/v2/`.
pub(super) fn parse(path: &str) -> Result<Route, RegistryError> {
    let parts: Vec<&str> = path.split('/').collect();
    let named = |end: usize| name(&parts[..parts.len() - end]);
    match parts[..] {
        [""] => Ok(Route::Version),
        ["_catalog"] => Ok(Route::Catalog),
        [.., "tags", "list"] => Ok(Route::Tags { name: named(2)? }),
        [.., "blobs", "uploads"] => Ok(Route::Uploads { name: named(2)? }),
        [.., "blobs", "uploads", ""] => Ok(Route::Uploads { name: named(3)? }),
        [.., "blobs", "uploads", id] => Ok(Route::Upload {
            name: named(3)?,
            id: id.to_owned(),
        }),
        [.., "blobs", text] => Ok(Route::Blob {
            name: named(2)?,
            digest: digest(text)?,
        }),
        [.., "referrers", text] => Ok(Route::Referrers {
            name: named(2)?,
            digest: digest(text)?,
        }),
        [.., "manifests", text] => Ok(Route::Manifest {
            name: named(2)?,
            version: if text.contains(':') {
                Version::Digest(digest(text)?)
            } else if is_tag(text) {
                Version::Tag(text.to_owned())
            } else {
                let message = format!("{text:?} is no tag");
                return Err(RegistryError::new(Code::ManifestInvalid, message));
            },
        }),
        _ => Err(RegistryError::new(Code::NameUnknown, "no such path")),
    }
}

/// A repository's name, as the specification's grammar has it.
pub(super) fn name(parts: &[&str]) -> Result<String, RegistryError> {
    let name = parts.join("/");
    let valid = !parts.is_empty() && name.len() <= 255 && parts.iter().all(|p| is_component(p));
    if valid {
        Ok(name)
    } else {
        let message = format!("{name:?} is no name of a repository");
        Err(RegistryError::new(Code::NameInvalid, message))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`: no underscore first, so that no name meets a folder
/// of the registry's own.
fn is_component(text: &str) -> bool {
    let alphanumeric =
        |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && text
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|between| {
                matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
            })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && bytes.first().is_some_and(|&b| word(b))
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

pub(super) fn digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|error: crate::DigestError| {
        RegistryError::new(Code::DigestInvalid, error.to_string())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let digest = Digest::of(b"");
        let name = |name: &str| name.to_owned();
        for (path, expected) in [
            ("", Route::Version),
            ("_catalog", Route::Catalog),
            ("a/b/tags/list", Route::Tags { name: name("a/b") }),
            ("a/blobs/uploads/", Route::Uploads { name: name("a") }),
            ("a/blobs/uploads", Route::Uploads { name: name("a") }),
            (
                "a/blobs/uploads/1-2",
                Route::Upload {
                    name: name("a"),
                    id: name("1-2"),
                },
            ),
            (
                &format!("blobs/blobs/{digest}"),
                Route::Blob {
                    name: name("blobs"),
                    digest: digest.clone(),
                },
            ),
            (
                "a/manifests/v1.0",
                Route::Manifest {
                    name: name("a"),
                    version: Version::Tag(name("v1.0")),
                },
            ),
            (
                &format!("a/manifests/{digest}"),
                Route::Manifest {
                    name: name("a"),
                    version: Version::Digest(digest.clone()),
                },
            ),
            (
                &format!("a/referrers/{digest}"),
                Route::Referrers {
                    name: name("a"),
                    digest: digest.clone(),
                },
            ),
        ] {
            assert_eq!(parse(path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (path, code) in [
            ("../x/tags/list", Code::NameInvalid),
            ("_tags/tags/list", Code::NameInvalid),
            ("A/tags/list", Code::NameInvalid),
            ("a//b/tags/list", Code::NameInvalid),
            ("tags/list", Code::NameInvalid),
            ("a/blobs/sha256:xyz", Code::DigestInvalid),
            ("a/manifests/.hidden", Code::ManifestInvalid),
            ("a/manifests/..", Code::ManifestInvalid),
            ("a/nothing", Code::NameUnknown),
        ] {
            assert_eq!(parse(path).unwrap_err().code, code, "{path}");
        }
    }
}
