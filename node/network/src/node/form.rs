//! Which form the network of a node takes.
//!
//! Whether there are rights is found out by trying: root alone says nothing in a container. A
//! node that has Pods keeps the form in which they were started, as far as it can: their guests
//! live on, with sockets where that form put them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::namespace::{NamespaceError, PodNamespace};
use crate::snapshot::Form;

/// What is asked of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FormChoice {
    /// A namespace for Pods where that is possible, virtual addresses elsewhere.
    #[default]
    Auto,
    /// A namespace for Pods, or an error.
    Namespaced,
    /// Virtual addresses.
    Virtual,
}

/// What it got.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) namespace: Option<PodNamespace>,
    /// Why it is not the namespace.
    pub(super) fallback: Option<String>,
}

impl Chosen {
    pub(super) fn form(&self) -> Form {
        match self.namespace {
            Some(_) => Form::Namespaced,
            None => Form::Virtual,
        }
    }
}

/// The ranges of Pods' addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    pub(super) cluster: IpNet,
    /// The node's, if it has been here before.
    pub(super) node: Option<IpNet>,
}

/// Decides, and makes the namespace if it comes to that.
pub(super) fn choose(
    choice: FormChoice,
    folder: &Path,
    cluster: &str,
    ranges: Ranges,
    node: IpAddr,
) -> Result<Chosen, NamespaceError> {
    let virtually = |fallback| Chosen {
        namespace: None,
        fallback,
    };
    if choice == FormChoice::Virtual {
        return Ok(virtually(None));
    }
    if choice == FormChoice::Auto && has_pods(folder) && recorded(folder) == Form::Virtual {
        let reason = "its Pods were started with virtual addresses: \
                      delete them and restart the node for a namespace";
        return Ok(virtually(Some(reason.to_owned())));
    }
    let opened = PodNamespace::open(folder, cluster, ranges.cluster, node);
    let opened = opened.and_then(|namespace| {
        if let Some(range) = ranges.node {
            namespace.use_range(range)?;
        }
        Ok(namespace)
    });
    match opened {
        Ok(namespace) => Ok(Chosen {
            namespace: Some(namespace),
            fallback: None,
        }),
        Err(error) if choice == FormChoice::Namespaced => Err(error),
        // Whoever opened the network says so, once.
        Err(error) => Ok(virtually(Some(error.to_string()))),
    }
}

/// Remembers the form for the next start.
pub(super) fn record(folder: &Path, form: Form) -> std::io::Result<()> {
    let text = match form {
        Form::Virtual => "virtual\n",
        Form::Namespaced => "namespaced\n",
    };
    std::fs::write(path(folder), text)
}

fn recorded(folder: &Path) -> Form {
    match std::fs::read_to_string(path(folder)) {
        Ok(text) if text.trim() == "namespaced" => Form::Namespaced,
        // Nodes that recorded nothing had one form.
        _ => Form::Virtual,
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("form")
}

fn has_pods(folder: &Path) -> bool {
    std::fs::read_dir(folder.join("addresses"))
        .is_ok_and(|mut addresses| addresses.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose_in(folder: &Path, choice: FormChoice, range: &str) -> Result<Chosen, NamespaceError> {
        let node = "192.0.2.1".parse().unwrap();
        let ranges = Ranges {
            cluster: range.parse().unwrap(),
            node: None,
        };
        choose(choice, folder, "c1", ranges, node)
    }

    #[test]
    fn what_cannot_be_a_namespace_falls_back_with_its_reason_or_fails() {
        let folder = tempfile::tempdir().unwrap();
        let range = "fd00:42::/56";
        let chosen = choose_in(folder.path(), FormChoice::Auto, range).unwrap();
        assert_eq!(chosen.form(), Form::Virtual);
        let reason = chosen.fallback.unwrap();
        assert!(reason.contains("--cluster-cidr"), "{reason}");
        assert!(choose_in(folder.path(), FormChoice::Namespaced, range).is_err());
        let chosen = choose_in(folder.path(), FormChoice::Virtual, range).unwrap();
        assert_eq!(chosen.fallback, None);
    }

    #[test]
    fn pods_keep_the_form_in_which_they_were_started() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_pods(folder.path()));
        std::fs::create_dir(folder.path().join("addresses")).unwrap();
        std::fs::write(folder.path().join("addresses/10.42.0.2"), "a\nb\nc\n").unwrap();
        record(folder.path(), Form::Virtual).unwrap();
        let chosen = choose_in(folder.path(), FormChoice::Auto, "10.42.0.0/16").unwrap();
        assert_eq!(chosen.form(), Form::Virtual);
        assert!(chosen.fallback.unwrap().contains("Pods were started"));
        record(folder.path(), Form::Namespaced).unwrap();
        assert_eq!(recorded(folder.path()), Form::Namespaced);
    }
}
