//! The table of who may depend on whom, held against what Cargo knows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod containers_page;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crates of ours and which of ours each may depend on, for building (tests may use more).
const TABLE: &[(&str, &[&str])] = &[
    ("apimachinery", &[]),
    ("runtime", &[]),
    ("store", &["apimachinery"]),
    ("apiserver", &["store", "apimachinery"]),
    ("controllers", &["apimachinery"]),
    ("scheduler", &["apimachinery"]),
    ("images", &["apimachinery"]),
    ("network", &["apimachinery", "runtime"]),
    ("kubelet", &["runtime", "images", "apimachinery"]),
    ("wasm", &["runtime", "images"]),
    ("oci", &["runtime", "images"]),
    ("cri", &["runtime"]),
];

/// Crates from outside that only these of ours may use.
const RESERVED: &[(&str, &[&str])] = &[
    ("openraft", &["store"]),
    ("sled", &["store"]),
    ("wasmtime", &["wasm"]),
    ("wasmtime-wasi", &["wasm"]),
    ("wasmtime-wasi-http", &["wasm"]),
    ("oci-client", &["images"]),
    ("libcontainer", &["oci"]),
    ("rcgen", &["coracle"]),
    (
        "kube",
        &[
            "coracle",
            "controllers",
            "scheduler",
            "images",
            "network",
            "kubelet",
        ],
    ),
];

/// Name of a package of ours without its prefix → its dependencies for building.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let short = |name: &Value| {
        let name = name.as_str().unwrap();
        name.strip_prefix("coracle-").unwrap_or(name).to_owned()
    };
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"] != "dev")
                .map(|dependency| short(&dependency["name"]))
                .collect();
            (short(&package["name"]), dependencies)
        })
        .collect()
}

#[test]
fn nobody_knows_more_than_the_table_allows() {
    let found = dependencies();
    let ours: BTreeSet<_> = found.keys().cloned().collect();
    let listed: BTreeSet<_> = TABLE
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(["coracle".to_owned()])
        .collect();
    assert_eq!(ours, listed, "the table lists every crate");
    for (name, allowed) in TABLE {
        for dependency in found[*name].intersection(&ours) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} may not depend on {dependency}"
            );
        }
    }
}

#[test]
fn reserved_crates_stay_with_their_owners() {
    for (name, dependencies) in dependencies() {
        for (reserved, owners) in RESERVED {
            if dependencies.contains(*reserved) {
                assert!(
                    owners.contains(&name.as_str()),
                    "{name} may not use {reserved}"
                );
            }
        }
    }
}

/// What a section of the workspace's table says, line by line, without what it says of ours.
fn section(name: &str) -> BTreeSet<&'static str> {
    include_str!("../Cargo.toml")
        .split_once(&format!("\n[{name}]\n"))
        .unwrap()
        .1
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with("coracle") && !line.starts_with('#') && !line.is_empty())
        .collect()
}

/// Then Cargo gives both builds of a dependency one name, and `.ci/rustc-once` spares the second.
#[test]
fn dependencies_are_built_alike_for_running_and_for_testing() {
    for part in ["", ".build-override", ".package"] {
        assert_eq!(
            section(&format!("profile.dev{part}")),
            section(&format!("profile.release{part}"))
        );
    }
}

#[test]
fn ours_are_tested_with_every_check() {
    let checked = r#"{ opt-level = 0, codegen-units = 256, debug = "line-tables-only", debug-assertions = true, overflow-checks = true }"#;
    let manifest = include_str!("../Cargo.toml");
    let (_, dev) = manifest.split_once("\n[profile.dev.package]\n").unwrap();
    for name in dependencies().keys() {
        let package = match name.as_str() {
            "coracle" => name.clone(),
            _ => format!("coracle-{name}"),
        };
        let line = format!("{package} = {checked}");
        assert!(
            dev.lines().any(|found| found == line),
            "{package} has no settings of its own in the profile for tests"
        );
    }
}
