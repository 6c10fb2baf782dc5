//! The network of Pods, which is the node's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_cri::CriRuntime;
use coracle_runtime::{Namespaces, Network, RuntimeService};
use tokio::io::AsyncReadExt;

use crate::node::{DEADLINE, Node};

/// A namespace as the node's network makes one.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("test-{}-{name}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        let link = ["-n", &name, "link", "add", "near", "type", "veth"];
        ip(&[&link[..], &["peer", "name", "far"]].concat());
        ip(&["-n", &name, "addr", "add", "10.99.0.7/32", "dev", "near"]);
        Self(name)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
}

pub(crate) async fn pods_are_in_the_namespace_that_the_node_has_made() {
    let node = Node::new().await;
    let namespace = Namespace::new("own");
    let mut sandbox = node.sandbox_config();
    sandbox.namespaces.network = Network::Namespace(namespace.path());
    let pod = node
        .run(sandbox, node.container_config("exec sleep 1000"))
        .await;
    let (code, shown) = node.exec(&pod, &["ip", "addr"]).await;
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("10.99.0.7/32"), "{shown}");
    let (_, hosts) = node.exec(&pod, &["cat", "/etc/hosts"]).await;
    assert!(hosts.contains("pod-0"), "{hosts}");
    node.remove(&pod).await;
    // It is the node's, and stays.
    ip(&["-n", &namespace.0, "link", "show", "near"]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = mounts.lines().filter(|line| line.contains(&namespace.0));
    assert_eq!(own.count(), 1, "{mounts}");

    // The machine's, where the Pod shares that.
    let mut sandbox = node.sandbox_config();
    sandbox.namespaces = Namespaces {
        network: Network::Host,
        ..Default::default()
    };
    let pod = node
        .run(sandbox, node.container_config("exec sleep 1000"))
        .await;
    let (_, shown) = node.exec(&pod, &["ls", "/sys/class/net"]).await;
    for link in fs::read_dir("/sys/class/net/").unwrap().flatten() {
        let name = link.file_name().to_string_lossy().into_owned();
        // Those of other tests come and go.
        if name == "lo" || name == "eth0" {
            assert!(shown.contains(&name), "{name}: {shown}");
        }
    }
    node.remove(&pod).await;
    node.end().await;
}

pub(crate) async fn ports_of_a_pod_are_reached_from_within() {
    let node = Node::new().await;
    let script = "nc -l -p 8080 -e echo hi & exec sleep 1000";
    let namespace = Namespace::new("ports");
    for network in [Network::Namespace(namespace.path()), Network::Loopback] {
        let mut sandbox = node.sandbox_config();
        sandbox.ips = vec![[127, 0, 0, 77].into()];
        sandbox.namespaces.network = network;
        let pod = node.run(sandbox, node.container_config(script)).await;
        // Until it listens.
        let connected = async {
            loop {
                match node.runtime.connect(&pod.sandbox, 8080).await {
                    Ok(stream) => break stream.unwrap(),
                    Err(error) => assert!(error.to_string().contains("8080"), "{error}"),
                }
            }
        };
        let connected = tokio::time::timeout(DEADLINE, connected).await;
        let mut stream = connected.unwrap_or_else(|_| panic!("{}", pod.output()));
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hi\n");
        assert!(node.runtime.connect(&pod.sandbox, 8081).await.is_err());
        node.remove(&pod).await;
    }
    node.end().await;
}

pub(crate) async fn another_network_is_left_as_it_was() {
    let node = Node::new().await;
    let networks = node.path().join("networks");
    let other = networks.join("10-other.conflist");
    fs::write(&other, "{}").unwrap();
    let mut config = node.config();
    config.state_dir = node.path().join("another");
    let error = CriRuntime::new(config).await.err().unwrap().to_string();
    assert!(error.contains("serves the node of"), "{error}");
    let pod = node.script("exec sleep 1000").await;
    node.remove(&pod).await;
    let path = node.path().to_owned();
    node.runtime.detach().await;
    node.runtime.leave().unwrap();
    let left: Vec<_> = fs::read_dir(&networks).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(other.exists() && !path.join("plugins/coracle-cni").exists());
}
