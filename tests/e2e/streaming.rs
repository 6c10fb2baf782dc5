//! exec, attach, cp and port-forward, as kubectl does them.

use std::path::Path;

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{
    Background, Cluster, Kubectl, eventually, http_get, kubectl_available, sample, succeeded,
};

/// Forwards a port of this machine, chosen by the kernel: where it leads from.
fn forward(kubectl: &Kubectl, to: &str, port: u16, output: &Path) -> (Background, String) {
    let ports = format!(":{port}");
    let running = kubectl.spawn(&["port-forward", to, &ports], output);
    let address = eventually("the forwarded port", || {
        let printed = running.printed();
        let line = printed
            .lines()
            .find_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"));
        let port = line.and_then(|line| line.split_whitespace().next());
        port.map(|port| format!("127.0.0.1:{port}")).ok_or(printed)
    });
    (running, address)
}

#[test]
fn kubectl_reaches_into_containers() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    kubectl.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:v1
    command: [sh, -c, 'mkdir /www && echo page > /www/index.html && httpd -f -p 8080 -h /www']
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: cat}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - {name: main, image: 'busybox:v1', command: [cat], stdin: true, stdinOnce: true}
",
    );
    for pod in ["box", "cat"] {
        kubectl.wait_value(&["pod", pod], ".status.phase", "Running");
    }
    kubectl.wait_value(
        &["pod", "box"],
        ".status.containerStatuses[0].ready",
        "true",
    );
    exec(&kubectl);
    cp(&kubectl, cluster.folder());

    let attached = kubectl.feed(&["attach", "-i", "cat"], b"meow\n");
    assert_eq!(succeeded(&attached), "meow\n");
    kubectl.wait_value(&["pod", "cat"], ".status.phase", "Succeeded");
    let shell = [
        "run",
        "shell",
        "--image=busybox:v1",
        "-i",
        "--rm",
        "--quiet",
    ];
    let shell = [&shell[..], &["--restart=Never", "--", "sh"]].concat();
    let ran = kubectl.feed(&shell, b"echo from $FROM\n");
    assert!(succeeded(&ran).contains("from image"), "{ran:?}");

    let output = cluster.folder().join("forward");
    let (_running, address) = forward(&kubectl, "pod/box", 8080, &output);
    for _ in 0..3 {
        assert_eq!(http_get(&address, "/"), Ok((200, "page\n".to_owned())));
    }
    let output = cluster.folder().join("refused");
    let (refused, address) = forward(&kubectl, "pod/box", 8081, &output);
    assert!(http_get(&address, "/").is_err());
    eventually("why there is no connection", || {
        let printed = refused.printed();
        match printed.contains("error forwarding port 8081 to pod box") {
            true => Ok(()),
            false => Err(printed),
        }
    });
}

fn exec(kubectl: &Kubectl) {
    let said = kubectl.ok(&["exec", "box", "--", "sh", "-c", "echo $FROM; id -u"]);
    assert_eq!(said, "image\n0\n");
    let failed = kubectl.run(&["exec", "box", "--", "sh", "-c", "echo oops >&2; exit 42"]);
    assert_eq!(failed.status.code(), Some(42), "{failed:?}");
    assert!(failed.stdout.is_empty());
    assert!(failed.stderr.starts_with(b"oops\n"), "{failed:?}");
    let missing = kubectl.fails(&["exec", "box", "--", "nonsense"]);
    assert!(
        missing.contains("\"nonsense\": executable file not found in $PATH"),
        "{missing}"
    );
    // More than any buffer on the way holds.
    let input = b"0123456789abcdef".repeat(1 << 17);
    let echoed = kubectl.feed(&["exec", "-i", "box", "--", "cat"], &input);
    assert!(echoed.status.success(), "{:?}", echoed.status);
    assert!(echoed.stdout == input, "{} bytes", echoed.stdout.len());
    // As with Kubernetes, kubectl tells the size when the command has begun.
    let shown = kubectl.on_terminal(
        31,
        97,
        "exec -it box -- sh -c 'test -t 0 && until stty size | grep 97; do sleep 0.1; done; exit 5'",
    );
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("31 97"),
        "{shown:?}"
    );
    assert_eq!(shown.status.code(), Some(5), "{shown:?}");
    let other = kubectl.fails(&["exec", "box", "-c", "other", "--", "id"]);
    assert!(
        other.contains("container other is not valid for pod box"),
        "{other}"
    );
    let none = kubectl.fails(&["exec", "none", "--", "id"]);
    assert!(none.contains("pods \"none\" not found"), "{none}");
}

fn cp(kubectl: &Kubectl, folder: &Path) {
    let (there, back) = (folder.join("there"), folder.join("back"));
    let content = "0123456789".repeat(100_000);
    std::fs::write(&there, &content).unwrap();
    kubectl.ok(&["cp", there.to_str().unwrap(), "box:/copied"]);
    kubectl.ok(&["cp", "box:/copied", back.to_str().unwrap()]);
    assert!(std::fs::read_to_string(&back).unwrap() == content);
}

#[test]
fn ports_of_guests_are_forwarded() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let folder = sample("hello-http");
    let folder = folder.to_str().unwrap();
    cluster.coracle(&["push", folder]);
    kubectl.ok(&["apply", "-f", folder]);
    kubectl.ok(&[
        "rollout",
        "status",
        "deployment/hello-http",
        "--timeout=60s",
    ]);
    // Of a Service kubectl is told the Service's port.
    for (to, port) in [("deployment/hello-http", 8080), ("service/hello-http", 80)] {
        let output = cluster.folder().join(format!("forward-{port}"));
        let (_running, address) = forward(&kubectl, to, port, &output);
        for _ in 0..3 {
            let (status, body) = http_get(&address, "/greet").unwrap();
            assert_eq!(status, 200);
            assert!(body.contains("Hello from hello-http-"), "{body}");
        }
    }
    let exec = ["exec", "deployment/hello-http", "--", "ls"];
    let refused = kubectl.run(&exec);
    assert_eq!(refused.status.code(), Some(126), "{refused:?}");
}
