//! The table through loads, changes and what others do to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;

#[test]
fn loading_anew_leaves_no_gap_and_mends_what_others_did() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let mut node = Node::single();
        let client = pod("client", 130);
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
        let rules = |text: &str| Rules {
            ports: vec![service(text)],
        };
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let until = async |reached: bool| {
            let tried = async {
                while call(None, "10.43.0.9:80").is_ok() != reached {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let tried = tokio::time::timeout(Duration::from_secs(20), tried).await;
            tried.unwrap_or_else(|_| panic!("reached: {}", !reached));
        };
        runtime.block_on(async {
            let kept = ServiceRules::start(node.frame.clone(), Vec::new());
            // Nothing is known yet, and nothing is touched.
            tokio::task::yield_now().await;
            assert!(!nftables::exists(&node.frame.table).unwrap());
            kept.set(rules("10.43.0.9 80/tcp -> 10.42.3.2:80"));
            until(true).await;
            kept.set(rules("10.43.0.9 80/tcp ->"));
            until(false).await;
            kept.set(rules("10.43.0.9 80/tcp -> 10.42.3.2:80"));
            until(true).await;
            kept.close().await;
            // The table is left to the next one.
            until(true).await;
        });
        drop(server);
    });
}

/// Prints what the README's aims are measured by.
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
            let rules = |services: &[String]| Rules {
                ports: services.iter().map(|text| service(text)).collect(),
            };
            let bring = |node: &mut Node, rules: &Rules| {
                let begun = Instant::now();
                let table = plan(rules, &[], &node.frame);
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
            eprintln!(
                "{count} Services of 3 endpoints: {whole:.1?} to load, {:.1?} for a change (median)",
                changes[changes.len() / 2]
            );
        }
    });
}
