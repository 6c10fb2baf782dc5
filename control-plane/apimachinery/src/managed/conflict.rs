//! Conflicts of an apply, in the words that kubectl shows.

use std::fmt;

use super::{Manager, Operation};
use crate::apply::{Path, Set};
use crate::status::Status;

/// A field that an apply would take from another manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who has it.
    pub manager: Manager,
    /// The field.
    pub path: Path,
}

/// All conflicts of an apply, by manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflicts {
    /// The fields.
    #[must_use]
    pub fn fields(&self) -> Set {
        let mut set = Set::default();
        for conflict in &self.0 {
            set.insert(&conflict.path);
        }
        set
    }

    /// The same, with managers that update in another version: a scale is none of its object's.
    #[must_use]
    pub fn in_version(mut self, api_version: &str) -> Self {
        for Conflict { manager, .. } in &mut self.0 {
            if manager.operation == Operation::Update {
                api_version.clone_into(&mut manager.api_version);
            }
        }
        self
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

struct Shown<'a>(&'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| write!(f, "{element}"))
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Conflict { manager, path }] = self.0.as_slice() {
            return write!(
                f,
                "Apply failed with 1 conflict: conflict with {manager}: {}",
                Shown(path)
            );
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut last = None;
        for Conflict { manager, path } in &self.0 {
            if last != Some(manager) {
                let line = if last.is_some() { "\n" } else { "" };
                write!(f, "{line}conflicts with {manager}:")?;
                last = Some(manager);
            }
            write!(f, "\n- {}", Shown(path))?;
        }
        Ok(())
    }
}

/// 409, with a cause for every field.
impl From<Conflicts> for Status {
    fn from(conflicts: Conflicts) -> Self {
        let status = Self::failure(409, "Conflict", conflicts.to_string());
        conflicts.0.iter().fold(status, |status, conflict| {
            status.with_cause(
                "FieldManagerConflict",
                &format!("conflict with {}", conflict.manager),
                &Shown(&conflict.path).to_string(),
            )
        })
    }
}
