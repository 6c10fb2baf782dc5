//! The table through loads, changes and what others do to it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use super::*;

/// `NFNLGRP_NFTABLES`, as a bit.
const NFTABLES: u32 = 1 << (7 - 1);
/// Of nftables: `NFT_MSG_NEWGEN`, with which the kernel's account of a batch ends.
const BATCH_MADE: u16 = 10 << 8 | 15;

/// What the kernel tells of nftables, from when this was made.
struct Batches(OwnedFd);

impl Batches {
    fn open() -> Self {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(NETFILTER)).unwrap();
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, NFTABLES)).unwrap();
        Self(socket)
    }

    /// Waits until the next batch has been made, off the thread on which the keeper runs.
    async fn next(self: &Arc<Self>) {
        let this = self.clone();
        let made = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; 80 << 10];
            loop {
                ready(&[&this.0]);
                let (length, _) = recv(&this.0, &mut buffer[..], RecvFlags::empty()).unwrap();
                if is_batch_made(&buffer[..length]) {
                    return;
                }
            }
        });
        made.await.unwrap();
    }
}

/// Whether one of these messages says so.
fn is_batch_made(mut messages: &[u8]) -> bool {
    while let [a, b, c, d, low, high, ..] = *messages {
        if u16::from_ne_bytes([low, high]) == BATCH_MADE {
            return true;
        }
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap();
        let next = length.next_multiple_of(4);
        messages = messages.get(next..).unwrap_or_default();
    }
    false
}

#[test]
fn loading_anew_leaves_no_gap_and_mends_what_others_did() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        let server = listen(&node.guests, socket("10.42.3.2:80")).unwrap();
        let services = ["10.43.0.9 80/tcp -> 10.42.3.2:80"];
        node.set(&services);
        let done = AtomicBool::new(false);
        let calls = std::thread::scope(|scope| {
            let calls = scope.spawn(|| {
                let mut calls = 0;
                while !done.load(Ordering::Relaxed) {
                    called(&[&server], call(Some(&client), "10.43.0.9:80").unwrap());
                    calls += 1;
                }
                calls
            });
            for _ in 0..50 {
                node.kernel = Kernel::default();
                node.set(&services);
            }
            done.store(true, Ordering::Relaxed);
            calls.join().unwrap()
        });
        assert!(calls > 0);
        // Somebody flushes what is not theirs: all of it, or some.
        nftables::remove(&node.frame.table).unwrap();
        node.set(&services);
        called(&[&server], call(Some(&client), "10.43.0.9:80").unwrap());
        let mut batch = nftables::Batch::default();
        encode::frame(&mut batch, &node.frame, true);
        batch.commit().unwrap();
        assert_eq!(
            refusal(Some(&client), "10.43.0.9:80"),
            ErrorKind::ConnectionRefused
        );
        node.set(&["10.43.0.9 80/tcp -> 10.42.3.2:80 10.42.3.3:80"]);
        node.set(&services);
        called(&[&server], call(Some(&client), "10.43.0.9:80").unwrap());
    });
}

#[test]
fn the_keeper_brings_what_it_is_told() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let node = Node::single();
        let server = listen(&node.guests, socket("10.42.3.2:80")).unwrap();
        let rules = |text: &str| of(vec![service(text)]);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let reached = || call(None, "10.43.0.9:80").is_ok();
        runtime.block_on(async {
            let batches = Arc::new(Batches::open());
            let kept = ServiceRules::start(node.frame.clone(), Vec::new());
            // Nothing is known yet, and nothing is touched.
            tokio::task::yield_now().await;
            assert!(!nftables::exists(&node.frame.table).unwrap());
            kept.set(rules("10.43.0.9 80/tcp -> 10.42.3.2:80"), Vec::new());
            batches.next().await;
            assert!(reached());
            kept.set(rules("10.43.0.9 80/tcp ->"), Vec::new());
            batches.next().await;
            assert!(!reached());
            // The last ones are brought although the agent ends, and left to the next one.
            kept.set(rules("10.43.0.9 80/tcp -> 10.42.3.2:80"), Vec::new());
            kept.close().await;
            assert!(reached());
        });
        drop(server);
    });
}

/// Prints what the README's aims are measured by, for `tests/bench/containers.rs` to read.
#[test]
fn many_services_are_loaded_in_one_batch_and_changed_by_elements() {
    on_a_machine_of_its_own(|| {
        let mut node = Node::single();
        for count in [1000_u16, 5000] {
            let text = |service: u16, endpoints: u16| {
                let [high, low] = service.to_be_bytes();
                let endpoints: String = (0..endpoints)
                    .map(|endpoint| format!(" 10.42.{high}.{low}:{}", 8000 + endpoint))
                    .collect();
                format!("10.43.{high}.{low} 80/tcp ->{endpoints}")
            };
            let mut services: Vec<String> = (0..count).map(|n| text(n, 3)).collect();
            let rules =
                |services: &[String]| of(services.iter().map(|text| service(text)).collect());
            let bring = |node: &mut Node, rules: &Rules| {
                let begun = Instant::now();
                let table = plan(rules, &[], &[], &node.frame);
                node.kernel.bring(table).unwrap();
                begun.elapsed()
            };
            node.kernel = Kernel::default();
            let whole = bring(&mut node, &rules(&services));
            let there = || {
                nftables::elements(&node.frame.table, "endpoints")
                    .unwrap()
                    .len()
            };
            assert_eq!(there(), usize::from(count) * 3);
            let mut changes: Vec<Duration> = Vec::new();
            for endpoints in [4, 3, 2, 3, 5, 3, 0, 3, 1] {
                services[7] = text(7, endpoints);
                let rules = rules(&services);
                changes.push(bring(&mut node, &rules));
            }
            let there = nftables::elements(&node.frame.table, "endpoints")
                .unwrap()
                .len();
            assert_eq!(there, usize::from(count) * 3 - 2);
            changes.sort();
            for (what, took) in [
                ("loaded", whole),
                ("one changed", changes[changes.len() / 2]),
            ] {
                let figure = serde_json::json!({
                    "figure": format!("{count} Services of 3 endpoints, {what}"),
                    "value": took.as_secs_f64() * 1e3,
                    "unit": "ms",
                });
                println!("{figure}");
            }
        }
    });
}
