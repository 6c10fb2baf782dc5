//! Limits, and what is measured.

use std::path::Path;
use std::time::Duration;

use coracle_runtime::cgroup::Hierarchies;
use coracle_runtime::{Exit, Resources, RuntimeService};

use crate::node::{DEADLINE, Node, exit, hierarchies, request};

pub(crate) async fn too_much_memory_is_told_as_such() {
    let node = Node::new().await;
    // A string that is doubled until there is no room.
    let script = "x=xxxxxxxxxxxxxxxx; while true; do x=$x$x; done";
    let limit = |config: &mut coracle_runtime::ContainerConfig| {
        config.resources.memory_limit_bytes = Some(16 << 20);
    };
    let (ended, _) = node.run(script, limit).await;
    assert_eq!((ended.code, &*ended.reason), (137, "OOMKilled"));
    // All of it, as kubelets have it, where the kernel can: not what asked for it alone.
    let below = format!("({script}); exit 3");
    let (ended, _) = node.run(&below, limit).await;
    let unified = Hierarchies::detect().unwrap().unified();
    assert_eq!(ended.code, if unified { 137 } else { 3 });
    // Not what merely was killed.
    let pod = node.start("sleep 1000", limit).await;
    node.runtime
        .stop_container(&pod.container, Duration::ZERO)
        .await
        .unwrap();
    let exit = exit(&node.runtime, &pod.container).await;
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
    let of_pod = node.cgroups(&pod.sandbox).await;
    let weight = || {
        let folders = of_pod.iter().map(|of| of.join(&pod.container.0));
        let files = folders.map(|of| of.join("cpu.weight"));
        files.flat_map(std::fs::read_to_string).next()
    };
    let before = weight();
    for limit in [Some(64 << 20), Some(32 << 20), Some(128 << 20), None] {
        let resources = Resources {
            cpu_request_millis: Some(100),
            cpu_limit_millis: Some(200),
            memory_limit_bytes: limit,
            ..Resources::default()
        };
        node.runtime
            .update_container_resources(&pod.container, resources)
            .await
            .unwrap();
    }
    // Who has what it had is weighed as before, whoever has written it.
    for millis in [500, 1000] {
        let resources = Resources {
            cpu_request_millis: Some(millis),
            ..Resources::default()
        };
        let updated = node
            .runtime
            .update_container_resources(&pod.container, resources);
        updated.await.unwrap();
        assert!(before.is_none() || (before == weight()) == (millis == 1000));
    }
    // A limit of memory is none where what is over it goes to a disk.
    for folder in &of_pod {
        let swap = std::fs::read_to_string(folder.join("memory.swap.max"));
        assert!(swap.is_err() || swap.is_ok_and(|swap| swap == "0\n"));
    }
    // So does what all containers of the Pod may use together, which is recorded.
    let together = Resources {
        memory_limit_bytes: Some(256 << 20),
        ..request()
    };
    let update = node
        .runtime
        .update_pod_sandbox_resources(&pod.sandbox, together.clone());
    update.await.unwrap();
    let groups = node.cgroups(&pod.sandbox).await;
    let files = ["memory.limit_in_bytes", "memory.max"];
    let limits = groups.iter().flat_map(|of| files.map(|file| of.join(file)));
    let limits: Vec<String> = limits.flat_map(std::fs::read_to_string).collect();
    assert_eq!(limits, ["268435456\n"]);
    let sandboxes = node.runtime.list_pod_sandboxes().await.unwrap();
    assert_eq!(sandboxes[0].config.resources, together);
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    assert!(node.runtime.stats().await.unwrap().is_empty());
}

/// Runs a script in a Pod with limits of its own: how it ended, and what it wrote.
async fn run_within(
    node: &Node,
    resources: Resources,
    pids: Option<u64>,
    script: &str,
) -> (Exit, String) {
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let mut config = node.sandbox_config();
    let place = format!("coracle-test-{}", std::process::id());
    let path = Path::new(&place).join("class").join(&config.pod.uid);
    config.cgroup_parent = Some(path.clone());
    config.resources = resources;
    config.pids_limit = pids;
    let log = config.log_directory.join("main/0.log");
    let sandbox = node.runtime.run_pod_sandbox(config).await.unwrap();
    let container = node.container_config(script);
    let container = node.runtime.create_container(&sandbox, container);
    let container = container.await.unwrap();
    node.runtime.start_container(&container).await.unwrap();
    let exit = exit(&node.runtime, &container).await;
    node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    for root in hierarchies() {
        assert!(!root.join(&path).exists(), "{} is left", root.display());
    }
    (exit, std::fs::read_to_string(log).unwrap_or_default())
}

pub(crate) async fn a_pods_containers_share_its_limits() {
    let node = Node::new().await;
    let resources = Resources {
        cpu_request_millis: Some(500),
        cpu_limit_millis: Some(1000),
        memory_limit_bytes: Some(16 << 20),
        ..Resources::default()
    };
    let script = "x=xxxxxxxxxxxxxxxx; while true; do x=$x$x; done";
    let (exit, _) = run_within(&node, resources, None, script).await;
    assert_eq!((exit.code, &*exit.reason), (137, "OOMKilled"));
    let forks = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; echo all";
    let (exit, log) = run_within(&node, request(), Some(20), forks).await;
    assert!(exit.code != 0 && !log.contains("all"), "{exit:?}: {log}");
    let (exit, log) = run_within(&node, request(), Some(80), forks).await;
    assert!(exit.code == 0 && log.contains("all"), "{exit:?}: {log}");
}

pub(crate) async fn a_class_has_the_share_of_the_pods_that_run() {
    let node = Node::new().await;
    let place = format!("coracle-test-{}/share", std::process::id());
    let weight = || {
        let files = ["cpu.shares", "cpu.weight"];
        let paths = hierarchies().map(|root| root.join(&place));
        let mut read =
            paths.flat_map(|path| files.map(|file| std::fs::read_to_string(path.join(file))));
        let text = read.find_map(Result::ok).unwrap();
        text.trim().parse::<u64>().unwrap()
    };
    let mut sandboxes = Vec::new();
    let mut weights = Vec::new();
    for _ in 0..2 {
        let mut config = node.sandbox_config();
        config.cgroup_parent = Some(Path::new(&place).join(&config.pod.uid));
        sandboxes.push(node.runtime.run_pod_sandbox(config).await.unwrap());
        weights.push(weight());
    }
    assert!(weights[1] > weights[0], "{weights:?}");
    node.runtime.stop_pod_sandbox(&sandboxes[1]).await.unwrap();
    assert_eq!(weight(), weights[0], "what has ended asks for nothing");
    for sandbox in &sandboxes {
        node.runtime.remove_pod_sandbox(sandbox).await.unwrap();
    }
}
