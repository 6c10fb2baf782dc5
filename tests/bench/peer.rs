//! wasmtime's own handler as the peer of our HTTP host, and the load that both get.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The component that both serve.
pub(crate) const COMPONENT: &str = "hello-http/hello-http.wasm";
/// Turns that each takes.
const ROUNDS: usize = 3;

/// wasmtime's `ProxyHandler`, in a process of its own.
pub(crate) struct Peer {
    process: Child,
    /// Where it listens.
    pub(crate) address: String,
}

impl Peer {
    /// Builds the peer, which takes minutes the first time, and starts it. `root` is the folder
    /// of the project.
    pub(crate) fn start(root: &Path) -> Option<Self> {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("proxy-handler");
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

/// Median rates of several servers that take turns, so that all meet the same machine. None where
/// `wrk` is not installed.
pub(crate) fn rates(addresses: &[&str], connections: u32) -> Option<Vec<f64>> {
    let mut rates = vec![Vec::new(); addresses.len()];
    for _ in 0..ROUNDS {
        for (address, rates) in addresses.iter().zip(&mut rates) {
            rates.push(wrk(address, connections)?);
        }
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    Some(rates.into_iter().map(median).collect())
}

/// Requests per second.
fn wrk(address: &str, connections: u32) -> Option<f64> {
    let connections = format!("-c{connections}");
    let url = format!("http://{address}/");
    let run = Command::new("wrk")
        .args(["-t1", &connections, "-d5", &url])
        .output();
    let text = String::from_utf8(run.ok()?.stdout).unwrap();
    assert!(!text.contains("Non-2xx"), "{text}");
    let rate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    Some(rate.unwrap().trim().parse().unwrap())
}
