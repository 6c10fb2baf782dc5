//! The samples run as their README says.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::cluster::{Cluster, eventually, http_get, kubectl_available, sample};

#[test]
fn up_applies_hello_http_and_its_url_answers() {
    let mut cluster = Cluster::up(&["--apply", sample("hello-http").to_str().unwrap()]);
    let line = cluster.process.wait_for_line("http://127.0.0.1:");
    let authority = line
        .split_once("http://")
        .unwrap()
        .1
        .trim_end_matches(|c: char| !c.is_ascii_digit())
        .to_owned();
    let (status, body) = http_get(&authority, "/greet").unwrap();
    assert_eq!(status, 200);
    assert!(
        body.contains("Hello from hello-http-") && body.contains("/greet"),
        "{body}"
    );
}

#[test]
fn kv_counter_counts_across_its_services() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let folder = sample("kv-counter");
    let folder = folder.to_str().unwrap();
    cluster.coracle(&["push", folder]);
    kubectl.ok(&["apply", "-f", folder]);
    kubectl.ok(&["rollout", "status", "deployment/kv-store", "--timeout=60s"]);
    kubectl.ok(&["rollout", "status", "deployment/kv-web", "--timeout=60s"]);
    let authority = format!("127.0.0.1:{}", kubectl.node_port("kv-web"));
    // The name of the Service may reach the guests a moment after the Deployment is ready.
    eventually("the first visit", || match http_get(&authority, "/") {
        Ok((200, body)) => Ok(body),
        other => Err(format!("{other:?}")),
    });
    let visits = || -> u64 {
        let (status, body) = http_get(&authority, "/").unwrap();
        assert_eq!(status, 200, "{body}");
        body.trim()
            .strip_prefix("visit ")
            .and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("{body:?}"))
    };
    let first = visits();
    assert_eq!(visits(), first + 1);
    assert_eq!(visits(), first + 2);
}

#[test]
fn tcp_echo_echoes_through_its_node_port() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let folder = sample("tcp-echo");
    let folder = folder.to_str().unwrap();
    cluster.coracle(&["push", folder]);
    kubectl.ok(&["apply", "-f", folder]);
    kubectl.ok(&["rollout", "status", "deployment/tcp-echo", "--timeout=60s"]);
    let address = ("127.0.0.1", kubectl.node_port("tcp-echo"));
    let echoed = eventually("an echo", || {
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
    });
    assert_eq!(echoed, "ahoy");
}

#[test]
fn batch_hello_completes_and_its_log_is_kept() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&["--apply", sample("batch-hello").to_str().unwrap()]);
    let kubectl = cluster.kubectl();
    kubectl.wait_value(&["pod", "batch-hello"], ".status.phase", "Succeeded");
    assert_eq!(
        kubectl.ok(&["logs", "batch-hello"]),
        "Hello, Ada\nHello, Grace\n"
    );
    assert!(kubectl.ok(&["get", "pods"]).contains("Completed"));
}
