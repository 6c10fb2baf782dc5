//! Real clients against the real binary, each in a folder of its own beside this file. All go the
//! same ways: create, read, lists in pages, watches and informers through disconnects, the four
//! patch types, apply with conflicts, dynamic and metadata-only clients where they have them,
//! scale, eviction, events. Those of Go reach into containers too.
//!
//! Programs in other languages run with `KUBECONFIG` and `DISTURB_URL` in their environment, see
//! [`reach::Reach::run`]; `.ci/run` installs what they need.

mod gate;
mod helm;
mod kube_rs;
mod kubectl;
mod reach;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use self::reach::Reach;
use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{succeeded, tool_available};

/// The folder of a client.
fn folder(client: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(client)
}

/// The program that a variable names, or else the one of this name on the path.
fn program(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| name.into(), PathBuf::from)
}

/// Builds one package of the Go tests, where there is Go: the folder of the program, and the program.
fn build_go(package: &str) -> Option<(TempDir, PathBuf)> {
    let recent = |text: &str| {
        let minor = text.split_once("go1.").and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        });
        minor.is_some_and(|minor: u32| minor >= 26)
    };
    if !tool_available("go", Path::new("go"), &["version"], recent) {
        return None;
    }
    let built = tempfile::tempdir().unwrap();
    let test = built.path().join("test");
    succeeded(
        &Command::new("go")
            .args(["test", "-c", "-o"])
            .arg(&test)
            .arg(format!("./{package}"))
            .current_dir(folder("go"))
            .output()
            .unwrap(),
    );
    Some((built, test))
}

/// Runs one package of the Go tests.
fn go(package: &str) {
    if let Some((_built, test)) = build_go(package) {
        Reach::up().run(&mut Command::new(test));
    }
}

#[test]
fn client_go_reads_and_writes_all_wire_formats() {
    go("client");
}

#[test]
fn client_go_and_controller_runtime_live_through_disconnects() {
    go("life");
}

#[test]
fn client_go_reaches_into_containers_by_spdy_and_websockets() {
    let Some((_built, test)) = build_go("streams") else {
        return;
    };
    let Some((cluster, _)) = cluster_with_busybox(&[]) else {
        return;
    };
    let ran = Command::new(test)
        .args(["-test.v", "-test.timeout=5m"])
        .env("KUBECONFIG", cluster.data().join("kubeconfig"))
        .env("HOME", cluster.folder())
        .output();
    println!("{}", succeeded(&ran.unwrap()));
}

#[test]
fn the_python_client_lives_through_disconnects() {
    let python = program("PYTHON", "python3");
    let asked = "import kubernetes; print(kubernetes.__version__)";
    let pinned = include_str!("python/requirements.txt");
    let fits = |version: &str| pinned.contains(&format!("\nkubernetes=={}\n", version.trim()));
    if tool_available("Python client", &python, &["-c", asked], fits) {
        Reach::up().run(
            Command::new(python)
                .args(["-m", "unittest", "-v"])
                .current_dir(folder("python")),
        );
    }
}

#[test]
fn the_javascript_client_lives_through_disconnects() {
    let node = program("NODE", "node");
    let folder = folder("js");
    let installed = folder.join("node_modules/@kubernetes/client-node/package.json");
    let asked = format!("require({installed:?}).version");
    let pinned = include_str!("js/package.json");
    let fits = |version: &str| {
        pinned.contains(&format!(
            r#""@kubernetes/client-node": "{}""#,
            version.trim()
        ))
    };
    if tool_available("JavaScript client", &node, &["-p", &asked], fits) {
        Reach::up().run(Command::new(node).arg("life.test.mjs").current_dir(&folder));
    }
}
