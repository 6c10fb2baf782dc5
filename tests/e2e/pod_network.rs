//! The network of Pods in both its forms: with a namespace as root, and on loopback for all others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use crate::cluster::{
    CORACLE, Cluster, Kubectl, cluster_cidr, eventually, http_get, is_root, kubectl_available,
    processes_of, sample, succeeded,
};

/// Routes of this machine into a range such as 10.128.0.0/16.
fn routes_into(cidr: &str) -> Vec<String> {
    let octets: Vec<u8> = cidr
        .split('.')
        .take(2)
        .map(|octet| octet.parse().unwrap())
        .collect();
    // Addresses are hexadecimal there, in the order of the machine.
    let ending = format!("{:02X}{:02X}", octets[1], octets[0]);
    std::fs::read_to_string("/proc/net/route")
        .unwrap()
        .lines()
        .filter(|line| {
            line.split('\t')
                .nth(1)
                .is_some_and(|to| to.ends_with(&ending))
        })
        .map(str::to_owned)
        .collect()
}

/// The network namespaces that processes of a folder are in, but for this one's own.
fn namespaces_of(folder: &Path) -> Vec<String> {
    let of = |pid: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
        Some(link.display().to_string())
    };
    let own = of("self");
    let mut found: Vec<String> = processes_of(folder)
        .iter()
        .filter_map(|(id, _)| of(&id.to_string()))
        .filter(|namespace| Some(namespace) != own.as_ref())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Whether a namespace is pinned to a name.
fn is_pinned(namespace: &str) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.contains(namespace)
}

fn pod_address(kubectl: &Kubectl, label: &str) -> String {
    kubectl.value(&["pods", "-l", label], ".items[0].status.podIP")
}

fn deploy(cluster: &Cluster, name: &str, deployments: &[&str]) {
    let folder = sample(name);
    let folder = folder.to_str().unwrap();
    cluster.coracle(&["push", folder]);
    let kubectl = cluster.kubectl();
    kubectl.ok(&["apply", "-f", folder]);
    for deployment in deployments {
        let deployment = format!("deployment/{deployment}");
        kubectl.ok(&["rollout", "status", &deployment, "--timeout=60s"]);
    }
}

fn echo(address: &str) -> Result<String, String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"ahoy")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    match exchange() {
        Ok(text) if !text.is_empty() => Ok(text),
        other => Err(format!("{other:?}")),
    }
}

/// What holds in both forms: Pods find each other by name and through Services, and NodePorts
/// lead to them.
fn pods_serve_each_other(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    deploy(cluster, "kv-counter", &["kv-store", "kv-web"]);
    deploy(cluster, "tcp-echo", &["tcp-echo"]);
    let web = format!("127.0.0.1:{}", kubectl.node_port("kv-web"));
    eventually("a visit", || match http_get(&web, "/") {
        Ok((200, body)) if body.starts_with("visit ") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let port = format!("127.0.0.1:{}", kubectl.node_port("tcp-echo"));
    assert_eq!(eventually("an echo", || echo(&port)), "ahoy");
}

/// The machine reaches Services by their addresses: one of guests, and the API server, which
/// listens on the machine's loopback. Who has no endpoints refuses at once.
fn the_machine_dials_services(kubectl: &Kubectl) {
    let address = |service: &str| kubectl.value(&["service", service], ".spec.clusterIP");
    let port = |service: &str| kubectl.value(&["service", service], ".spec.ports[0].port");
    let web = format!("{}:{}", address("kv-web"), port("kv-web"));
    eventually("a visit by the Service's address", || {
        match http_get(&web, "/") {
            Ok((200, body)) if body.starts_with("visit ") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let api = format!("{}:443", address("kubernetes"));
    TcpStream::connect(&api).unwrap();
    kubectl.ok(&["scale", "deployment/kv-web", "--replicas=0"]);
    eventually("a refusal", || match TcpStream::connect(&web) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
    kubectl.ok(&["scale", "deployment/kv-web", "--replicas=1"]);
    kubectl.ok(&["rollout", "status", "deployment/kv-web", "--timeout=60s"]);
    eventually("a visit again", || match http_get(&web, "/") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn as_root_the_machine_dials_pods_and_nothing_stays_behind() {
    if !kubectl_available() || !is_root() {
        return;
    }
    // The machine goes by the table of the node that was first with a range of Services.
    let (cidr, services) = (cluster_cidr(), cluster_cidr());
    let mut cluster = Cluster::up(&[
        "--pod-network",
        "namespaced",
        "--cluster-cidr",
        &cidr,
        "--service-cidr",
        &services,
    ]);
    pods_serve_each_other(&cluster);
    let kubectl = cluster.kubectl();
    the_machine_dials_services(&kubectl);

    let web = pod_address(&kubectl, "app=kv-web");
    assert!(web.starts_with(cidr.trim_end_matches("0.0/16")), "{web}");
    let (status, _) = http_get(&format!("{web}:8080"), "/").unwrap();
    assert_eq!(status, 200);
    let unserved: SocketAddr = format!("{web}:9").parse().unwrap();
    let refused = TcpStream::connect(unserved).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    // A guest sees who calls: the node by its own address.
    let node = kubectl.value(&["nodes"], ".items[0].status.addresses[0].address");
    let echoing = pod_address(&kubectl, "app=tcp-echo");
    assert_eq!(echo(&format!("{echoing}:7000")).unwrap(), "ahoy");
    eventually("the caller's address in the log", || {
        let log = kubectl.ok(&["logs", "deployment/tcp-echo"]);
        if log.contains(&format!("{node}:")) {
            Ok(())
        } else {
            Err(log)
        }
    });

    let folder = cluster.data();
    let namespaces = namespaces_of(&folder);
    assert_eq!(namespaces.len(), 1, "{namespaces:?}");
    assert!(is_pinned(&namespaces[0]));
    assert!(!routes_into(&cidr).is_empty());
    cluster.process.signal(libc::SIGINT);
    assert!(cluster.process.wait().success());
    assert!(!is_pinned(&namespaces[0]));
    assert_eq!(routes_into(&cidr), Vec::<String>::new());
    assert_eq!(processes_of(&folder), []);
}

#[test]
fn without_rights_pods_serve_each_other_all_the_same() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up_as_nobody(&[]);
    pods_serve_each_other(&cluster);
    assert_eq!(namespaces_of(&cluster.data()), Vec::<String>::new());
}

#[test]
fn reset_takes_what_a_killed_cluster_has_left() {
    if !kubectl_available() {
        return;
    }
    let cidr = cluster_cidr();
    let cluster = Cluster::up(&["--cluster-cidr", &cidr]);
    deploy(&cluster, "tcp-echo", &["tcp-echo"]);
    deploy(&cluster, "hello-http", &["hello-http"]);
    let data = cluster.data();
    let reset = || {
        std::process::Command::new(CORACLE)
            .args(["reset", "--delete-data", "--data-dir"])
            .arg(&data)
            .output()
            .unwrap()
    };
    // What runs is left alone.
    let refused = reset();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("in use"), "{said}");
    assert_eq!(
        cluster
            .kubectl()
            .value(&["deployment", "tcp-echo"], ".status.readyReplicas"),
        "1"
    );
    let _folder = cluster.kill();
    assert!(!processes_of(&data).is_empty());
    succeeded(&reset());
    assert_eq!(processes_of(&data), []);
    assert_eq!(routes_into(&cidr), Vec::<String>::new());
    assert!(!data.exists());
}
