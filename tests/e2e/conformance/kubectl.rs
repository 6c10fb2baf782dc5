//! Behaviours of Kubernetes' conformance that are kubectl's, named as those of the API server's
//! tests in `tests/api/conformance`. Images are WebAssembly.

use std::path::Path;

use super::cluster_with_named;
use crate::cluster::{Cluster, Kubectl, eventually, sample};

/// A cluster whose registry has `app:v1` and `app:v2`, where there is a kubectl.
fn cluster() -> Option<(Cluster, Kubectl)> {
    let versions = ["app:v1", "app:v2"];
    cluster_with_named(versions.map(|name| ("hello-http", name.to_owned())).into())
}

fn write(folder: &Path, text: &str) -> String {
    let file = folder.join("object");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Must: the versions that are told include v1
#[test]
fn kubectl_client_kubectl_api_versions_should_check_if_v1_is_in_available_api_versions() {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    let versions = kubectl.ok(&["api-versions"]);
    assert!(versions.lines().any(|line| line == "v1"), "{versions}");
}

/// Must: cluster-info tells of the control plane, which runs
#[test]
fn kubectl_client_kubectl_cluster_info_should_check_if_kubernetes_control_plane_services_is_included_in_cluster_info()
 {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    let info = kubectl.ok(&["cluster-info"]);
    let running = "Kubernetes control plane is running at";
    // Colours stand between the words on some terminals; here there is none.
    assert!(info.contains(running), "{info}");
}

/// Must: the versions of client and server are told, major, minor and the rest
#[test]
fn kubectl_client_kubectl_version_should_check_is_all_data_is_printed() {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    let printed = kubectl.ok(&["version"]);
    for side in ["Client Version: v", "Server Version: v"] {
        let line = printed.lines().find_map(|line| line.strip_prefix(side));
        let numbers: Vec<&str> = line.expect(side).splitn(3, '.').collect();
        let [major, minor, rest] = numbers[..] else {
            panic!("{printed}");
        };
        assert!(
            major.parse::<u8>().is_ok() && minor.parse::<u8>().is_ok(),
            "{printed}"
        );
        assert!(
            rest.starts_with(|digit: char| digit.is_ascii_digit()),
            "{printed}"
        );
    }
}

/// Must: the difference between a Deployment that is there and one that is declared has both
/// images
#[test]
fn kubectl_client_kubectl_diff_should_check_if_kubectl_diff_finds_a_difference_for_deployments() {
    let Some((cluster, kubectl)) = cluster() else {
        return;
    };
    let declare = |image: &str| {
        kubectl.ok(&[
            "create",
            "deployment",
            "app",
            &format!("--image={image}"),
            "--dry-run=client",
            "-o",
            "yaml",
        ])
    };
    let live = write(cluster.folder(), &declare("app:v1"));
    kubectl.ok(&["create", "-f", &live]);
    let declared = write(cluster.folder(), &declare("app:v2"));
    let output = kubectl.run(&["diff", "-f", &declared]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    let has = |sign: char, image: &str| {
        let mut lines = printed.lines().filter(|line| line.starts_with(sign));
        lines.any(|line| line.ends_with(&format!("image: {image}")))
    };
    assert!(has('-', "app:v1") && has('+', "app:v2"), "{printed}");
}

/// Must: a label is put on a running Pod, and is shown
/// Must: by the label the Pod is found
/// Must: once it is taken away, it is neither shown nor found
#[test]
fn kubectl_client_kubectl_label_should_update_the_label_on_a_resource() {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    kubectl.ok(&["run", "pause", "--image=app:v1"]);
    kubectl.wait_value(&["pod", "pause"], ".status.phase", "Running");
    let shown = || kubectl.ok(&["get", "pod", "pause", "-L", "testing-label"]);
    let found = || {
        kubectl.ok(&[
            "get",
            "pods",
            "-l",
            "testing-label=some-value",
            "-o",
            "name",
        ])
    };
    kubectl.ok(&["label", "pods", "pause", "testing-label=some-value"]);
    assert!(shown().contains("some-value"));
    assert_eq!(found(), "pod/pause\n");
    kubectl.ok(&["label", "pods", "pause", "testing-label-"]);
    assert!(!shown().contains("some-value"));
    assert_eq!(found(), "");
}

/// Must: a Pod runs with the image that it was made with
/// Must: a patch with another image is taken where it is only tried on the server
/// Must: the Pod's image stays what it was
#[test]
fn kubectl_client_kubectl_server_side_dry_run_should_check_if_kubectl_can_dry_run_update_pods() {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    kubectl.ok(&["run", "tried", "--image=app:v1", "--labels=run=tried"]);
    let patch = r#"{"spec":{"containers":[{"name":"tried","image":"app:v2"}]}}"#;
    let would = kubectl.ok(&[
        "patch",
        "pod",
        "tried",
        "-p",
        patch,
        "--dry-run=server",
        "-o",
        "jsonpath={.spec.containers[0].image}",
    ]);
    assert_eq!(would, "app:v2");
    let image = kubectl.value(&["pod", "tried"], ".spec.containers[0].image");
    assert_eq!(image, "app:v1");
}

/// Must: `kubectl run` makes a Pod with one container of the image, which is never restarted
#[test]
fn kubectl_client_kubectl_run_pod_should_create_a_pod_from_an_image_when_restart_is_never() {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    kubectl.ok(&["run", "once", "--restart=Never", "--image=app:v1"]);
    let images = kubectl.value(&["pod", "once"], ".spec.containers[*].image");
    assert_eq!(images, "app:v1");
    let policy = kubectl.value(&["pod", "once"], ".spec.restartPolicy");
    assert_eq!(policy, "Never");
    kubectl.wait_value(&["pod", "once"], ".status.phase", "Running");
}

/// Must: a running Pod that is replaced with another image has that image
/// Must: it then runs it
#[test]
fn kubectl_client_kubectl_replace_should_update_a_single_container_pod_s_image() {
    let Some((cluster, kubectl)) = cluster() else {
        return;
    };
    kubectl.ok(&["run", "replaced", "--image=app:v1", "--labels=run=replaced"]);
    kubectl.wait_value(
        &["pod", "replaced"],
        ".status.containerStatuses[0].ready",
        "true",
    );
    let object = kubectl.ok(&["get", "pod", "replaced", "-o", "json"]);
    let other = object.replacen(r#""image": "app:v1""#, r#""image": "app:v2""#, 1);
    assert_ne!(object, other);
    kubectl.ok(&["replace", "-f", &write(cluster.folder(), &other)]);
    let image = kubectl.value(&["pod", "replaced"], ".spec.containers[0].image");
    assert_eq!(image, "app:v2");
    // A container of the new image has taken the place of the old one's.
    kubectl.wait_value(
        &["pod", "replaced"],
        ".status.containerStatuses[0].restartCount",
        "1",
    );
    let running = ".status.containerStatuses[0].state.running.startedAt";
    eventually("the new container", || {
        match kubectl.value(&["pod", "replaced"], running) {
            started if started.is_empty() => Err(started),
            _ => Ok(()),
        }
    });
}

/// Must: a running Pod has logs, with what it is known to write
/// Must: of them one can have the last line, one byte, a line with its time in RFC 3339, and only
/// those that are younger than a duration
#[test]
fn kubectl_logs_logs_should_be_able_to_retrieve_and_filter_logs() {
    let Some((cluster, kubectl)) = cluster() else {
        return;
    };
    let echo = sample("tcp-echo");
    let echo = echo.to_str().unwrap();
    cluster.coracle(&["push", echo]);
    kubectl.ok(&["apply", "-f", echo]);
    kubectl.ok(&["rollout", "status", "deployment/tcp-echo", "--timeout=60s"]);
    let logs =
        |option: &[&str]| kubectl.ok(&[&["logs", "deployment/tcp-echo"][..], option].concat());
    let address = ("127.0.0.1", kubectl.node_port("tcp-echo"));
    eventually("several lines", || {
        drop(std::net::TcpStream::connect(address));
        match logs(&[]) {
            all if all.contains("listening on") && all.lines().count() > 2 => Ok(()),
            all => Err(all),
        }
    });
    let last = logs(&["--tail=1"]);
    assert_eq!(last.lines().count(), 1, "{last}");
    // The guest may still be told of connections that were made, so that there is another last one.
    let is_said = |line: &str| logs(&[]).lines().any(|said| said == line.trim_end());
    assert!(is_said(&last), "{last}");
    assert_eq!(logs(&["--limit-bytes=1"]), "l");
    let timed = logs(&["--tail=1", "--timestamps"]);
    let (time, line) = timed.split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{timed}");
    assert!(is_said(line), "{timed}");
    // Nobody connects any more, so that all lines grow old.
    eventually("no line of the last second", || {
        match logs(&["--since=1s"]) {
            recent if recent.is_empty() => Ok(()),
            recent => Err(recent),
        }
    });
    assert!(logs(&["--since=24h"]).lines().count() > 2);
}
