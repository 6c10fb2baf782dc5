//! The network of Pods with containers: a namespace of their own, in which their guests live too.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Cluster, Kubectl, eventually, http_get, sample};
use crate::pod_network::routes_into;

/// A Pod of a container that serves `/cgi-bin/count`, one of a guest that asks it by its Service's
/// name, and one that has both: its guest asks its container on localhost.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: store, labels: {app: store}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:v1
    command:
    - sh
    - -c
    - |
      mkdir -p /www/cgi-bin
      cat > /www/cgi-bin/count <<'END'
      #!/bin/sh
      printf 'Content-Type: text/plain\\r\\n\\r\\n42\\n'
      END
      chmod 755 /www/cgi-bin/count
      exec httpd -f -p 8080 -h /www
    readinessProbe: {httpGet: {port: 8080, path: /cgi-bin/count}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: store}
spec:
  clusterIP: None
  selector: {app: store}
  ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: store-by-address}
spec:
  selector: {app: store}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec:
  containers:
  - name: web
    image: kv-web:v1
    ports: [{containerPort: 8080}]
    env: [{name: STORE_URL, value: 'http://store-by-address/cgi-bin/count'}]
---
apiVersion: v1
kind: Pod
metadata: {name: mixed}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: kv-web:v1
    ports: [{containerPort: 8080}]
    env: [{name: STORE_URL, value: 'http://127.0.0.1:8081/cgi-bin/count'}]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
  - name: store
    image: busybox:v1
    command:
    - sh
    - -c
    - |
      mkdir -p /www/cgi-bin
      cat > /www/cgi-bin/count <<'END'
      #!/bin/sh
      printf 'Content-Type: text/plain\\r\\n\\r\\n43\\n'
      END
      chmod 755 /www/cgi-bin/count
      exec httpd -f -p 127.0.0.1:8081 -h /www
";

fn address(kubectl: &Kubectl, pod: &str) -> String {
    kubectl.value(&["pod", pod], ".status.podIP")
}

/// What a container of the Pod `store` gets from a URL.
fn fetched(kubectl: &Kubectl, url: &str) -> String {
    // Without a time limit, on which this wget is known to fault.
    kubectl.ok(&["exec", "store", "--", "wget", "-q", "-O", "-", url])
}

/// Files of namespaces that belong to a node with Pods in a range such as 10.128.0.0/16.
fn namespaces_in(cidr: &str) -> Vec<String> {
    let start = format!("-{}", cidr.trim_end_matches("0.0/16"));
    let files = std::fs::read_dir("/run/netns").into_iter().flatten();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(&start)).collect()
}

/// Answers one request on the machine, at an address that it returns.
fn machine() -> (u16, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).unwrap() > 0);
        let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\nmachine\n";
        stream.write_all(answer).unwrap();
    });
    (port, served)
}

fn everybody_is_reached(kubectl: &Kubectl) {
    let [store, guest, mixed] = ["store", "guest", "mixed"].map(|pod| address(kubectl, pod));
    // From the machine: a container, a guest that asks a container by its Service, and one that
    // asks the container beside it.
    for (at, path, body) in [
        (&store, "/cgi-bin/count", "42\n"),
        (&guest, "/", "visit 42\n"),
        (&mixed, "/", "visit 43\n"),
    ] {
        eventually("an answer", || {
            match http_get(&format!("{at}:8080"), path) {
                Ok((200, found)) if found == body => Ok(()),
                other => Err(format!("{at}{path}: {other:?}")),
            }
        });
    }
    // From a container: itself, a guest, another Pod with a container, and by name.
    for (at, body) in [
        ("127.0.0.1:8080/cgi-bin/count".to_owned(), "42\n"),
        ("store:8080/cgi-bin/count".to_owned(), "42\n"),
        (format!("{guest}:8080/"), "visit 42\n"),
        (format!("{mixed}:8080/"), "visit 43\n"),
    ] {
        assert_eq!(fetched(kubectl, &format!("http://{at}")), body, "{at}");
    }
    // A container finds the guest beside it on localhost, and the other way round above.
    let beside = [
        "exec", "mixed", "-c", "store", "--", "wget", "-q", "-O", "-",
    ];
    let beside = [&beside[..], &["http://127.0.0.1:8080/"]].concat();
    assert_eq!(kubectl.ok(&beside), "visit 43\n");
}

#[test]
fn containers_and_guests_are_reached_under_their_addresses_and_names() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    cluster.coracle(&["push", sample("kv-counter").to_str().unwrap()]);
    kubectl.apply(PODS);
    for pod in ["store", "guest", "mixed"] {
        let condition = ["wait", "--for=condition=Ready", "--timeout=60s"];
        kubectl.ok(&[&condition[..], &[&format!("pod/{pod}")]].concat());
    }
    everybody_is_reached(&kubectl);
    let store = address(&kubectl, "store");
    let (port, served) = machine();
    let host = kubectl.value(&["pod", "store"], ".status.hostIP");
    assert_eq!(
        fetched(&kubectl, &format!("http://{host}:{port}/")),
        "machine\n"
    );
    served.join().unwrap();

    let lookup = |name: &str| kubectl.ok(&["exec", "store", "--", "nslookup", name]);
    let name = "store-by-address.default.svc.cluster.local";
    let by_address = kubectl.value(&["service", "store-by-address"], ".spec.clusterIP");
    let found = lookup(name);
    assert!(found.contains(&by_address), "{found}");
    let found = lookup("store.default.svc.cluster.local");
    assert!(found.contains(&store), "{found}");
    let config = kubectl.ok(&["exec", "store", "--", "cat", "/etc/resolv.conf"]);
    assert!(config.contains("default.svc.cluster.local"), "{config}");
    // Nothing but its own is in it.
    let links = kubectl.ok(&["exec", "store", "--", "ls", "/sys/class/net"]);
    assert_eq!(links.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);

    // What runs goes on with its addresses when the agent is killed and comes back.
    let range = format!("{}.0.0/16", store.rsplitn(3, '.').last().unwrap());
    let identities = |kubectl: &Kubectl| {
        let of = ["store", "guest", "mixed"].map(|pod| {
            let restarts = ".status.containerStatuses[*].restartCount";
            (
                address(kubectl, pod),
                kubectl.value(&["pod", pod], restarts),
            )
        });
        format!("{of:?}")
    };
    let before = identities(&kubectl);
    let folder = cluster.kill();
    assert_eq!(
        http_get(&format!("{store}:8080"), "/cgi-bin/count")
            .unwrap()
            .1,
        "42\n"
    );
    let mut cluster = Cluster::up_in(folder, &["--cluster-cidr", &range]);
    let kubectl = cluster.kubectl();
    everybody_is_reached(&kubectl);
    assert_eq!(identities(&kubectl), before);

    // A Pod that goes takes its namespace with it, and the node all that is left.
    assert_eq!(namespaces_in(&range).len(), 2);
    kubectl.ok(&["delete", "pod", "store", "--timeout=60s"]);
    // Without a grace period the object goes first.
    eventually("its namespace is gone", || match namespaces_in(&range) {
        left if left.len() == 1 => Ok(()),
        left => Err(format!("{left:?}")),
    });
    let refused = http_get(&format!("{store}:8080"), "/").unwrap_err();
    assert!(!refused.is_empty());
    cluster.process.signal(libc::SIGINT);
    assert!(cluster.process.wait().success());
    assert_eq!(namespaces_in(&range), Vec::<String>::new());
    assert_eq!(routes_into(&range), Vec::<String>::new());
}
