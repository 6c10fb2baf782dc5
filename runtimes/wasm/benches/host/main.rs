//! Figures of wasm guests, for people and for the project's table: `cargo bench -p coracle-wasm`.
//!
//! Real processes and real sockets, no cluster. Every figure is a line of JSON on standard output,
//! `{"figure": …, "value": …, "unit": …}`. Words after `--` choose among `requests`, `neighbours`,
//! `idle` and `commands`. Nothing fails for being slow.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement that fails, fails loudly"
)]

#[path = "../../tests/guests/network.rs"]
mod network;
#[path = "../../tests/guests/node.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod node;
#[path = "../../../../tests/bench/peer.rs"]
mod peer;
mod pods;
#[path = "../../tests/guests/programs.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod programs;
mod requests;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Prints a figure.
pub(crate) fn figure(name: &str, value: f64, unit: &str) {
    let line = serde_json::json!({ "figure": name, "value": value, "unit": unit });
    println!("{line}");
}

/// The value at a percentile of a sorted sample.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = coracle_wasm::subcommand(&args, network::open) {
        return code;
    }
    let words: Vec<String> = args
        .iter()
        .filter_map(|arg| arg.to_str())
        .filter(|arg| !arg.starts_with("--"))
        .map(str::to_owned)
        .collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if wanted("requests") {
            requests::run().await;
        }
        if wanted("neighbours") {
            pods::neighbours().await;
        }
        if wanted("idle") {
            pods::idle().await;
        }
        if wanted("commands") {
            pods::commands().await;
        }
    });
    ExitCode::SUCCESS
}
