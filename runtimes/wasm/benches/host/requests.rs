//! Requests per second to a Pod's own address, and to the same component under wasmtime's own
//! `ProxyHandler`, by `wrk`.

use std::path::Path;

use crate::figure;
use crate::node::Node;
use crate::peer::{COMPONENT, Peer, rates};

const CONNECTIONS: [u32; 2] = [1, 64];

pub(crate) async fn run() {
    let node = Node::new().await;
    let pod = node
        .start(&node.sample(COMPONENT), |config| {
            config.env = vec![("POD_NAME".into(), "web".into())];
        })
        .await;
    let (_, ours) = node.listener(&pod).await;
    let measure = move || {
        let peer = Peer::start(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        let ours = ours.to_string();
        let mut addresses = vec![ours.as_str()];
        addresses.extend(peer.as_ref().map(|peer| peer.address.as_str()));
        for connections in CONNECTIONS {
            let Some(rates) = rates(&addresses, connections) else {
                eprintln!("no requests are measured: wrk is not installed");
                return;
            };
            let of = |what: &str| format!("{what}, {connections} connections");
            figure(&of("requests to a Pod"), rates[0], "1/s");
            if let Some(theirs) = rates.get(1) {
                figure(&of("requests to wasmtime's ProxyHandler"), *theirs, "1/s");
                let ratio = rates[0] / theirs;
                figure(&of("requests, ours to wasmtime's"), ratio, "ratio");
            }
        }
    };
    tokio::task::spawn_blocking(measure).await.unwrap();
}
