//! The benchmarks behind the README's table: `cargo bench`.
//!
//! Each row is measured on the binary as a user runs it, over its sockets; where a peer is
//! installed it is measured in the same run and the ratio is what counts. Missing peers are
//! named in the table. Nothing here fails for being slow: machines differ.
//!
//! `cargo bench -- NAME…` runs only the rows whose names contain one of the words.

#![allow(clippy::unwrap_used, reason = "a measurement that fails, fails loudly")]

mod applies;
#[path = "../e2e/cluster/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod cluster;
mod containers;
mod control_plane;
mod figures;
mod footprint;
mod go;
mod peer;
mod pods;
mod reads;
mod serving;

/// A line of the table, which is printed as soon as it is measured.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Ours.
    pub(crate) ours: String,
    /// The peer's, with its name.
    pub(crate) peer: String,
    /// What we aim at.
    pub(crate) aim: &'static str,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, ours: impl Into<String>, aim: &'static str) -> Self {
        Self {
            what: what.into(),
            ours: ours.into(),
            peer: String::new(),
            aim,
        }
    }

    /// Adds what the peer does and the ratio of ours to it.
    pub(crate) fn beside(mut self, name: &str, ours: f64, peer: Option<f64>) -> Self {
        self.peer = match peer {
            Some(peer) if peer > 0.0 => format!("{name} {peer:.0}, ratio {:.2}", ours / peer),
            _ => format!("{name} not installed"),
        };
        self
    }

    pub(crate) fn print(&self) {
        let Self {
            what,
            ours,
            peer,
            aim,
        } = self;
        println!("| {what} | {ours} | {peer} | {aim} |");
    }
}

/// The value at a percentile of an unsorted sample.
pub(crate) fn percentile(sample: &mut [f64], percent: f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    let last = sample.len().saturating_sub(1);
    sample
        .get(((last as f64) * percent / 100.0).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// A named group of rows, and what prints them.
type Group = (&'static str, fn());

const GROUPS: &[Group] = &[
    ("footprint", footprint::rows),
    ("pods", pods::rows),
    ("control-plane", control_plane::rows),
    ("reads", reads::rows),
    ("reads-applies", applies::rows),
    ("serving", serving::rows),
    ("containers", containers::rows),
];

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    println!("| what | Coracle | peer | aim |\n|---|---|---|---|");
    for (name, rows) in GROUPS {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            rows();
        }
    }
}
