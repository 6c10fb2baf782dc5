//! Requests per second to a guest, measured by `wrk`.

use std::process::Command;

use crate::Row;
use crate::cluster::{Cluster, eventually, http_get, sample};

const SECONDS: &str = "5s";

pub(crate) fn rows() -> Vec<Row> {
    let folder = sample("hello-http");
    let mut cluster = Cluster::up(&["--apply", folder.to_str().unwrap_or_default()]);
    let line = cluster.process.wait_for_line("http://127.0.0.1:");
    let authority = line
        .split_once("http://")
        .map(|(_, rest)| {
            rest.trim_end_matches(|c: char| !c.is_ascii_digit())
                .to_owned()
        })
        .unwrap_or_default();
    eventually("an answer", || http_get(&authority, "/"));
    let ours = wrk(&format!("http://{authority}/"));
    let shown = ours.map_or("wrk not installed".to_owned(), |rate| {
        format!("{rate:.0}/s")
    });
    vec![Row::new(
        "HTTP requests/s to hello-http (2 Pods) through its NodePort, 64 connections",
        shown,
        "≥ 1.0 of wasmtime's own handler",
    )]
}

/// Requests per second over 64 connections.
pub(crate) fn wrk(url: &str) -> Option<f64> {
    let output = Command::new("wrk")
        .args(["-t1", "-c64", "-d", SECONDS, url])
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|rate| rate.trim().parse().ok())
}
