//! Proxies through the API server to guests, Pods' containers and nodes, as kubectl uses them.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{
    Cluster, DEADLINE, Kubectl, eventually, http_get, kubectl_available, sample, websocket,
};

/// What is at a path of the API.
#[track_caller]
fn raw(kubectl: &Kubectl, path: &str) -> String {
    kubectl.ok(&["get", "--raw", path])
}

/// Asks guests by their Service, a Pod of theirs, and the node.
fn proxies_lead_to_guests(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    let folder = sample("hello-http");
    let folder = folder.to_str().unwrap();
    cluster.coracle(&["push", folder]);
    kubectl.ok(&["apply", "-f", folder]);
    let rollout = [
        "rollout",
        "status",
        "deployment/hello-http",
        "--timeout=60s",
    ];
    kubectl.ok(&rollout);
    let core = "/api/v1/namespaces/default";
    eventually("an endpoint", || {
        let output = kubectl.run(&[
            "get",
            "--raw",
            &format!("{core}/services/hello-http:80/proxy/"),
        ]);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
    for service in ["hello-http:80", "hello-http:http", "http:hello-http:80"] {
        let said = raw(
            &kubectl,
            &format!("{core}/services/{service}/proxy/some/path?x"),
        );
        assert!(said.contains("you asked for /some/path"), "{said}");
    }
    let pod = kubectl.value(&["pods", "-l", "app=hello-http"], ".items[0].metadata.name");
    for pod in [pod.clone(), format!("{pod}:8080"), format!("{pod}:http")] {
        let said = raw(&kubectl, &format!("{core}/pods/{pod}/proxy/a/"));
        assert!(said.contains("you asked for /a/"), "{said}");
    }
    // Without a path kubectl is led to one.
    let said = raw(&kubectl, &format!("{core}/pods/{pod}/proxy"));
    assert!(said.contains("you asked for /\n"), "{said}");
    let refused = kubectl.fails(&["get", "--raw", &format!("{core}/pods/{pod}:81/proxy/")]);
    assert!(
        refused.contains("error trying to reach service"),
        "{refused}"
    );
    let none = kubectl.fails(&["get", "--raw", &format!("{core}/services/none:x/proxy/")]);
    assert!(none.contains("no endpoints available"), "{none}");
    // The API server is no Pod.
    let own = format!("{core}/services/https:kubernetes:https/proxy/");
    let own = kubectl.fails(&["get", "--raw", &own]);
    assert!(own.contains("no endpoints available"), "{own}");

    let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
    let node = format!("/api/v1/nodes/{node}/proxy");
    assert_eq!(raw(&kubectl, &format!("{node}/healthz")), "ok");
    let pods: Value = serde_json::from_str(&raw(&kubectl, &format!("{node}/pods"))).unwrap();
    assert_eq!(pods["kind"], "PodList");

    let output = cluster.folder().join("proxy");
    let (_running, address) = websocket::proxy(&kubectl, &output);
    let path = format!("{core}/services/hello-http:80/proxy/by/kubectl");
    let (status, said) = http_get(&address, &path).unwrap();
    assert!(
        said.contains("you asked for /by/kubectl"),
        "{status} {said}"
    );
}

#[test]
fn proxies_lead_to_guests_at_their_addresses() {
    if kubectl_available() {
        proxies_lead_to_guests(&Cluster::up(&[]));
    }
}

#[test]
fn proxies_lead_to_guests_of_a_user_without_rights() {
    if kubectl_available() {
        proxies_lead_to_guests(&Cluster::up_as_nobody(&[]));
    }
}

/// A line that is sent comes back, over a connection that has been upgraded.
#[test]
fn connections_to_containers_are_upgraded_and_localhost_is_the_pods_own() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    kubectl.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:v1
    command:
    - sh
    - -c
    - |
      cat > /echo <<'END'
      #!/bin/sh
      while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
      printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n'
      exec cat
      END
      chmod +x /echo
      mkdir /www && echo secret > /www/index.html
      httpd -p 127.0.0.1:8081 -h /www
      exec nc -ll -p 8080 -e /echo
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
"#,
    );
    let ready = r#".status.conditions[?(@.type=="Ready")].status"#;
    kubectl.wait_value(&["pod", "box"], ready, "True");
    let output = cluster.folder().join("proxy");
    let (_running, address) = websocket::proxy(&kubectl, &output);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let root = "/api/v1/namespaces/default/pods/box";
    write!(
        stream,
        "GET {root}:8080/proxy/ HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: echo\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for line in ["one\n", "two\n"] {
        stream.write_all(line.as_bytes()).unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, line.as_bytes());
    }
    // What listens on the Pod's localhost alone is not for others; port-forward is.
    let refused = kubectl.fails(&["get", "--raw", &format!("{root}:8081/proxy/")]);
    assert!(
        refused.contains("error trying to reach service"),
        "{refused}"
    );
}
