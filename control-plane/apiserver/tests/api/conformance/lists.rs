//! The lists of `tests/conformance/`: names of behaviours and endpoints, and what some wait for.
//! They are tables of facts, one a line, columns apart by tabs; lines that begin with `#` are
//! remarks.

use std::path::{Path, PathBuf};

/// What a behaviour or an endpoint can wait for, as the page explains it.
pub(crate) const CAPABILITIES: &[(&str, &str)] = &[
    (
        "admission policies",
        "policies in CEL that the API server enforces",
    ),
    ("aggregation", "requests handed on to API servers of others"),
    ("controllers", "controllers of kinds that have none yet"),
    ("custom resources", "CustomResourceDefinitions"),
    ("scheduling", "preemption"),
    ("several nodes", "a test cluster of more than one node"),
    ("webhooks", "webhooks that the API server asks"),
];

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

fn rows<const COLUMNS: usize>(name: &str) -> Vec<[String; COLUMNS]> {
    let path = root().join("tests/conformance").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let columns: Vec<String> = line.split('\t').map(str::to_owned).collect();
            columns
                .try_into()
                .unwrap_or_else(|_| panic!("{name}: {COLUMNS} columns wanted: {line}"))
        })
        .collect()
}

/// A behaviour that conformance demands.
pub(crate) struct Behaviour {
    /// As upstream names it.
    pub(crate) name: String,
    /// Where upstream tests it.
    pub(crate) file: String,
    /// How often its description says MUST.
    pub(crate) musts: usize,
}

impl Behaviour {
    /// What a test of ours is named that shows it.
    pub(crate) fn test_name(&self) -> String {
        let mut slug = String::new();
        let mut in_tag = false;
        for letter in self.name.chars() {
            match letter {
                '[' => in_tag = true,
                ']' => in_tag = false,
                _ if in_tag => {}
                _ if letter.is_ascii_alphanumeric() => slug.push(letter.to_ascii_lowercase()),
                _ if slug.is_empty() || slug.ends_with('_') => {}
                _ => slug.push('_'),
            }
        }
        slug.trim_end_matches('_').to_owned()
    }
}

pub(crate) fn behaviours() -> Vec<Behaviour> {
    rows("behaviours.tsv")
        .into_iter()
        .map(|[name, file, musts]| Behaviour {
            name,
            file,
            musts: musts.parse().unwrap(),
        })
        .collect()
}

/// What behaviours wait for: by the file of the upstream test, or by name; `-` is nothing.
pub(crate) fn waits() -> Vec<[String; 2]> {
    rows("waits.tsv")
}

/// An endpoint that tests of conformance call.
pub(crate) struct Endpoint {
    pub(crate) name: String,
    /// `list`, `put`, `deletecollection`; `-` for documents of discovery.
    pub(crate) action: String,
    /// With `{namespace}` and `{name}`.
    pub(crate) path: String,
}

pub(crate) fn endpoints() -> Vec<Endpoint> {
    rows("endpoints.tsv")
        .into_iter()
        .map(|[name, action, path, _group, _version]| Endpoint { name, action, path })
        .collect()
}

/// Paths of endpoints that do not answer as their kinds should, and what they wait for.
pub(crate) struct Waiting(pub(crate) Vec<[String; 2]>);

impl Waiting {
    pub(crate) fn read() -> Self {
        Self(rows("endpoints_waiting.tsv"))
    }

    /// The path that an endpoint's is or is below, and what it waits for.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Option<(&str, &str)> {
        let found = self.0.iter().find(|[path, _]| {
            let below = endpoint.path.strip_prefix(path.as_str());
            below
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || path.ends_with('/'))
        });
        found.map(|[path, what]| (path.as_str(), what.as_str()))
    }
}

#[test]
fn behaviours_are_named_as_tests_are() {
    let table = [
        (
            "[sig-a] Watchers should [X:y] see [Conformance] [Serial]",
            "watchers_should_see",
        ),
        ("[sig-b] it's `quoted`, (twice)!", "it_s_quoted_twice"),
    ];
    for (name, want) in table {
        let behaviour = Behaviour {
            name: name.to_owned(),
            file: String::new(),
            musts: 0,
        };
        assert_eq!(behaviour.test_name(), want);
    }
}
