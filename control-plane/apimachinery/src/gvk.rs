//! Names of types: group, version, kind and resource, in the forms that messages use.

use std::borrow::Cow;
use std::fmt;

/// A string that is nearly always a constant.
pub type Name = Cow<'static, str>;

/// A kind within a group, whatever the version. Displayed as `Deployment.apps`, or `Pod`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKind {
    /// API group; empty for the core group.
    pub group: Name,
    /// Kind, such as `Deployment`.
    pub kind: Name,
}

impl GroupKind {
    /// A kind of a group.
    pub fn new(group: impl Into<Name>, kind: impl Into<Name>) -> Self {
        Self {
            group: group.into(),
            kind: kind.into(),
        }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.kind, &self.group)
    }
}

/// A resource within a group, whatever the version. Displayed as `deployments.apps`, or `pods`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupResource {
    /// API group; empty for the core group.
    pub group: Name,
    /// Plural name, such as `deployments`; for a subresource `deployments/scale`.
    pub resource: Name,
}

impl GroupResource {
    /// A resource of a group.
    pub fn new(group: impl Into<Name>, resource: impl Into<Name>) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
        }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.resource, &self.group)
    }
}

/// A version of a group. Displayed and parsed as `apiVersion`: `apps/v1`, or `v1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersion {
    /// API group; empty for the core group.
    pub group: Name,
    /// Version, such as `v1`.
    pub version: Name,
}

impl GroupVersion {
    /// A version of a group.
    pub fn new(group: impl Into<Name>, version: impl Into<Name>) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
        }
    }

    /// Reads the `apiVersion` of an object; `None` where it has more than one slash or no version.
    pub fn parse(api_version: &str) -> Option<Self> {
        let (group, version) = match api_version.split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", api_version),
        };
        if version.is_empty() || version.contains('/') {
            return None;
        }
        Some(Self::new(group.to_owned(), version.to_owned()))
    }

    /// A kind in this version.
    pub fn with_kind(&self, kind: impl Into<Name>) -> GroupVersionKind {
        GroupVersionKind {
            group: self.group.clone(),
            version: self.version.clone(),
            kind: kind.into(),
        }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        f.write_str(&self.version)
    }
}

/// A kind in one version of its group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionKind {
    /// API group; empty for the core group.
    pub group: Name,
    /// Version, such as `v1`.
    pub version: Name,
    /// Kind, such as `Deployment`.
    pub kind: Name,
}

impl GroupVersionKind {
    /// A kind of a version of a group.
    pub fn new(group: impl Into<Name>, version: impl Into<Name>, kind: impl Into<Name>) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        }
    }

    /// The kind of a `k8s-openapi` type.
    pub fn of<T: k8s_openapi::Resource>() -> Self {
        Self::new(T::GROUP, T::VERSION, T::KIND)
    }

    /// The kind without its version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind {
            group: self.group.clone(),
            kind: self.kind.clone(),
        }
    }

    /// The version without its kind.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion {
            group: self.group.clone(),
            version: self.version.clone(),
        }
    }

    /// What stands in an object's `apiVersion`.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

fn qualified(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    f.write_str(name)?;
    if !group.is_empty() {
        write!(f, ".{group}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions() {
        let apps = GroupVersion::new("apps", "v1");
        assert_eq!(GroupVersion::parse("apps/v1"), Some(apps.clone()));
        assert_eq!(GroupVersion::parse("v1"), Some(GroupVersion::new("", "v1")));
        assert_eq!(GroupVersion::parse(""), None);
        assert_eq!(GroupVersion::parse("a/b/c"), None);
        assert_eq!(apps.to_string(), "apps/v1");
        assert_eq!(
            apps.with_kind("Deployment").group_kind().to_string(),
            "Deployment.apps"
        );
        assert_eq!(
            apps.with_kind("Deployment").to_string(),
            "apps/v1, Kind=Deployment"
        );
        assert_eq!(GroupResource::new("", "pods").to_string(), "pods");
    }
}
