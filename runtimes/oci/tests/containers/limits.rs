//! Limits, and what is measured.

use std::time::Duration;

use coracle_runtime::{Resources, RuntimeService};

use crate::node::{DEADLINE, Node};

pub(crate) async fn too_much_memory_is_told_as_such() {
    let node = Node::new().await;
    // A string that is doubled until there is no room.
    let script = "x=xxxxxxxxxxxxxxxx; while true; do x=$x$x; done";
    let limit = |config: &mut coracle_runtime::ContainerConfig| {
        config.resources.memory_limit_bytes = Some(16 << 20);
    };
    let (exit, _) = node.run(script, limit).await;
    assert_eq!((exit.code, &*exit.reason), (137, "OOMKilled"));
    // Not what merely was killed.
    let pod = node.start("sleep 1000", limit).await;
    node.runtime
        .stop_container(&pod.container, Duration::ZERO)
        .await
        .unwrap();
    let exit = crate::node::exit(&node.runtime, &pod.container).await;
    assert_eq!((exit.code, &*exit.reason), (137, "Error"));
}

pub(crate) async fn use_is_measured_and_limits_change() {
    let node = Node::new().await;
    let pod = node.start("while true; do :; done", |_| ()).await;
    let measured = async {
        loop {
            let stats = node.runtime.stats().await.unwrap();
            let own = stats
                .iter()
                .find(|stats| stats.id == pod.container)
                .unwrap();
            if own.cpu > Duration::from_millis(20) && own.memory_bytes > 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, measured).await.unwrap();
    for limit in [Some(64 << 20), Some(32 << 20), Some(128 << 20), None] {
        let resources = Resources {
            cpu_request_millis: Some(100),
            cpu_limit_millis: Some(200),
            memory_limit_bytes: limit,
        };
        node.runtime
            .update_container_resources(&pod.container, resources)
            .await
            .unwrap();
    }
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    assert!(node.runtime.stats().await.unwrap().is_empty());
}
