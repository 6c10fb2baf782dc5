//! Who asks, and whether they may.

pub mod authentication;
pub mod authorization;
pub(crate) mod impersonation;
pub(crate) mod rules;
pub mod tokens;

use std::collections::BTreeMap;

/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of the kubelets.
pub const NODES: &str = "system:nodes";
/// The group of everybody whom the server knows.
pub const AUTHENTICATED: &str = "system:authenticated";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Name, unique in the cluster.
    pub name: String,
    /// Identifier that survives renaming; often empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user in these groups.
    #[must_use]
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self {
            name: name.into(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Whether the user is in a group.
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
