//! How a cluster starts, ends, and comes back.

use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::{CORACLE, Cluster, eventually, kubectl_available, processes_of, sample};

#[test]
fn an_interrupt_ends_everything() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut cluster = Cluster::up(&[
            "--apply",
            sample("hello-http").to_str().unwrap(),
            "--apply",
            sample("tcp-echo").to_str().unwrap(),
        ]);
        cluster.process.wait_for_line("http://127.0.0.1:");
        cluster.process.signal(signal);
        let status = cluster.process.wait();
        assert!(status.success(), "{status}: {}", cluster.process.printed());
        let left = processes_of(&cluster.data());
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_data_directory_in_use_is_one_clear_line() {
    let cluster = Cluster::up(&[]);
    let output = Command::new(CORACLE)
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--registry-listen",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(cluster.data())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in use"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_taken_port_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(CORACLE)
        .args([
            "up",
            "--registry-listen",
            "127.0.0.1:0",
            "--listen",
            &address,
        ])
        .arg("--data-dir")
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_manifest_that_does_not_read_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("broken.yaml");
    std::fs::write(&manifest, "apiVersion: v1\nkind: ConfigMap\nmetadata: [\n").unwrap();
    let output = Command::new(CORACLE)
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--registry-listen",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .arg("--apply")
        .arg(&manifest)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("broken.yaml"), "{said}");
    assert!(said.contains('3') || said.contains('4'), "the line: {said}");
}

#[test]
fn everything_acknowledged_survives_a_kill() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (kubectl, stop) = (&kubectl, &stop);
                scope.spawn(move || {
                    let mut names = Vec::new();
                    for number in 0.. {
                        let name = format!("kept-{writer}-{number}");
                        let literal = format!("--from-literal=number={number}");
                        let made = kubectl.run(&["create", "configmap", &name, &literal]);
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        if made.status.success() {
                            names.push(name);
                        }
                    }
                    names
                })
            })
            .collect();
        eventually("some objects", || {
            let found = kubectl.ok(&["get", "configmaps", "-o", "name"]);
            let count = found.matches("kept-").count();
            if count >= 20 {
                Ok(())
            } else {
                Err(format!("{count}"))
            }
        });
        let folder = cluster.kill();
        stop.store(true, Ordering::SeqCst);
        let names: Vec<String> = writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect();
        (folder, names)
    });
    let (folder, names) = acknowledged;
    assert!(!names.is_empty());
    let cluster = Cluster::up_in(folder, &[]);
    let found = cluster.kubectl().ok(&["get", "configmaps", "-o", "name"]);
    for name in names {
        assert!(
            found
                .lines()
                .any(|line| line == format!("configmap/{name}")),
            "{name} was acknowledged and is gone"
        );
    }
}
