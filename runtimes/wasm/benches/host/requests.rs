//! Requests per second to a Pod's own address, and to the same component under wasmtime's own
//! `ProxyHandler`, by `wrk`. The two take turns, so that both meet the same machine.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::figure;
use crate::node::Node;

const COMPONENT: &str = "hello-http/hello-http.wasm";
const ROUNDS: usize = 3;
const CONNECTIONS: [u32; 2] = [1, 64];

pub(crate) async fn run() {
    let node = Node::new().await;
    let pod = node
        .start(&node.sample(COMPONENT), |config| {
            config.env = vec![("POD_NAME".into(), "web".into())];
        })
        .await;
    let (_, ours) = node.listener(&pod).await;
    let peer = Peer::start();
    for connections in CONNECTIONS {
        let mut rates = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let rate = wrk(&ours.to_string(), connections).await;
            rates.0.extend(rate);
            if let Some(peer) = &peer {
                rates.1.extend(wrk(&peer.address, connections).await);
            }
        }
        let (ours, theirs) = (median(rates.0), median(rates.1));
        let of = |what: &str| format!("{what}, {connections} connections");
        if let Some(ours) = ours {
            figure(&of("requests to a Pod"), ours, "1/s");
        } else {
            eprintln!("no requests are measured: wrk is not installed");
        }
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            figure(&of("requests to wasmtime's ProxyHandler"), theirs, "1/s");
            figure(&of("requests, ours to wasmtime's"), ours / theirs, "ratio");
        }
    }
}

fn median(mut rates: Vec<f64>) -> Option<f64> {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

/// Requests per second.
async fn wrk(address: &str, connections: u32) -> Option<f64> {
    let url = format!("http://{address}/");
    let load = move || {
        let connections = format!("-c{connections}");
        let run = Command::new("wrk")
            .args(["-t1", &connections, "-d5", &url])
            .output();
        let text = String::from_utf8(run.ok()?.stdout).unwrap();
        assert!(!text.contains("Non-2xx"), "{text}");
        let rate = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
        Some(rate.unwrap().trim().parse::<f64>().unwrap())
    };
    tokio::task::spawn_blocking(load).await.unwrap()
}

/// wasmtime's own handler, in a process of its own.
struct Peer {
    process: Child,
    address: String,
}

impl Peer {
    /// Builds the peer, which takes minutes the first time, and starts it.
    fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxy-handler");
        let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
            .current_dir(root.join("tests/bench/proxy-handler"))
            .env("CARGO_TARGET_DIR", &target)
            .args(["build", "--release", "--locked"])
            .status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("wasmtime's ProxyHandler is not measured: it could not be built");
            return None;
        }
        let mut process = Command::new(target.join("release/proxy-handler"))
            .arg(root.join("wasm-samples").join(COMPONENT))
            .arg("POD_NAME=web")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "the ProxyHandler ended at once");
        Some(Self {
            process,
            address: address.trim().to_owned(),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
