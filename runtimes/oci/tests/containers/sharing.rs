//! What containers share: processes with each other, mounts with the machine.

use coracle_runtime::{
    ContainerConfig, ContainerState, Mount, Propagation, RuntimeService, SandboxState,
};
use futures::StreamExt;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use crate::node::{self, DEADLINE, Node, Pod};

const RUNS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

/// A Pod of two containers that share their processes.
async fn two(node: &Node, first: &str, second: &str) -> [Pod; 2] {
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let mut config = node.sandbox_config();
    config.namespaces.share_processes = true;
    let sandbox = node.runtime.run_pod_sandbox(config.clone()).await.unwrap();
    let start = async |name: &str, script: &str| {
        let mut container = node.container_config(script);
        container.name = name.into();
        container.log_path = format!("{name}/0.log").into();
        node.start_in(&sandbox, &config, container).await
    };
    [start("first", first).await, start("second", second).await]
}

pub(crate) async fn containers_see_each_others_processes() {
    let node = Node::new().await;
    let [first, second] = two(&node, &format!("sleep 1234567 & {RUNS}"), RUNS).await;
    let (_, listed) = node.exec(&second, &["ps"]).await;
    assert!(listed.contains("sleep 1234567"), "{listed}");
    // Each is in its own cgroup, which the other sees nothing of.
    let folders = ["ls", "/sys/fs/cgroup", "/sys/fs/cgroup/memory"];
    let (_, groups) = node.exec(&second, &folders).await;
    let files = ["memory.limit_in_bytes", "memory.max"];
    assert!(files.iter().any(|file| groups.contains(file)), "{groups}");
    let id = &node.runtime.list_pod_sandboxes().await.unwrap()[0]
        .config
        .pod
        .uid;
    assert!(!groups.contains(id.as_str()), "{groups}");
    // The first process of the Pod has nothing, and cannot be ended from within.
    let script = "grep -E '^(Cap(Eff|Prm)|Uid|Seccomp|NoNewPrivs):' /proc/1/status; kill -9 1; \
                  ls /proc/1/root/ 2>&1; ls /proc/1/fd 2>&1; kill -0 1 && echo alive";
    let (_, said) = node.exec(&second, &["sh", "-c", script]).await;
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "Uid:\t65535\t65535\t65535\t65535",
        "NoNewPrivs:\t1",
        "alive",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    assert!(said.contains("/proc/1/root/: Permission denied"), "{said}");
    // What is left of a process that has lost its parent is reaped.
    node.exec(&second, &["sh", "-c", "sleep 0.2 & exit"]).await;
    let reaped = async {
        let ps = ["ps", "-o", "stat,args"];
        // A process that has ended has lost its arguments, and is shown in brackets.
        while let listed = node.exec(&second, &ps).await.1
            && (listed.contains("sleep 0.2") || listed.contains("[sleep]"))
        {}
    };
    tokio::time::timeout(DEADLINE, reaped).await.unwrap();

    // The end of one is its own, and of what it has started.
    node.runtime
        .stop_container(&first.container, DEADLINE)
        .await
        .unwrap();
    assert_eq!(node::exit(&node.runtime, &first.container).await.code, 0);
    let status = node.runtime.container_status(&second.container).await;
    let state = status.unwrap().state;
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    let (_, listed) = node.exec(&second, &["ps"]).await;
    assert!(!listed.contains("sleep 1234567"), "{listed}");
    node.runtime
        .remove_pod_sandbox(&first.sandbox)
        .await
        .unwrap();
}

/// A container may be made among another's processes, while that runs, and ends with it.
pub(crate) async fn a_container_sees_the_processes_of_its_target() {
    let node = Node::new().await;
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let (sandbox, config) = node.sandbox().await;
    let configure = |name: &str, script: &str, target: Option<&Pod>| {
        let mut container = node.container_config(script);
        container.name = name.into();
        container.log_path = format!("{name}/0.log").into();
        container.target = target.map(|target| target.container.clone());
        container
    };
    let script = format!("sleep 1234567 & {RUNS}");
    let target = configure("target", &script, None);
    let target = node.start_in(&sandbox, &config, target).await;
    let debugger = configure("debugger", RUNS, Some(&target));
    let debugger = node.start_in(&sandbox, &config, debugger).await;
    let other = configure("other", RUNS, None);
    let other = node.start_in(&sandbox, &config, other).await;
    let (_, listed) = node.exec(&debugger, &["ps"]).await;
    assert!(listed.contains("sleep 1234567"), "{listed}");
    // Through it, its files are seen too.
    let (_, seen) = node.exec(&debugger, &["ls", "/proc/1/root/bin"]).await;
    assert!(seen.contains("busybox"), "{seen}");
    let (_, listed) = node.exec(&other, &["ps"]).await;
    assert!(!listed.contains("sleep 1234567"), "{listed}");

    // The debugger's own end is its own; the target's is that of all who see its processes.
    let again = configure("again", RUNS, Some(&target));
    let again = node.start_in(&sandbox, &config, again).await;
    let grace = DEADLINE;
    let stop = async |pod: &Pod| node.runtime.stop_container(&pod.container, grace).await;
    stop(&debugger).await.unwrap();
    assert_eq!(node::exit(&node.runtime, &debugger.container).await.code, 0);
    let (_, listed) = node.exec(&again, &["ps"]).await;
    assert!(listed.contains("sleep 1234567"), "{listed}");
    stop(&target).await.unwrap();
    assert_eq!(node::exit(&node.runtime, &again.container).await.code, 137);

    let late = configure("late", RUNS, Some(&target));
    let late = node.runtime.create_container(&sandbox, late).await.unwrap();
    let refused = node.runtime.start_container(&late).await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("does not run"), "{refused}");
    node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

/// Nothing can be started in a Pod whose first process is gone.
pub(crate) async fn a_pod_ends_with_its_first_process() {
    let node = Node::new().await;
    let mut events = node.runtime.events();
    let [first, second] = two(&node, RUNS, RUNS).await;
    let link = node.shim_folder(&first.sandbox).join("processes");
    let link = std::fs::read_link(link).unwrap();
    let pid = link.iter().nth(2).unwrap().to_str().unwrap();
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    for pod in [&first, &second] {
        assert_eq!(node::exit(&node.runtime, &pod.container).await.code, 137);
    }
    let gone = async {
        loop {
            let sandboxes = node.runtime.list_pod_sandboxes().await.unwrap();
            if sandboxes[0].state == SandboxState::NotReady {
                return;
            }
            events.next().await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
    node.runtime
        .remove_pod_sandbox(&first.sandbox)
        .await
        .unwrap();
}

/// A file system in memory whose mounts are shared, for the time of a test.
struct Shared(std::path::PathBuf);

impl Shared {
    fn new(path: std::path::PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        mount("shared", &path, "tmpfs", MountFlags::empty(), None).unwrap();
        let shared = Self(path);
        mount_change(&shared.0, MountPropagationFlags::SHARED).unwrap();
        shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let below = mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1));
        for path in below.filter(|path| std::path::Path::new(path).starts_with(&self.0)) {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}

pub(crate) async fn mounts_are_seen_where_a_volume_says_so() {
    let node = Node::new().await;
    let shared = Shared::new(node.folder.path().join("shared"));
    let volume = |propagation| Mount {
        host_path: shared.0.clone(),
        container_path: "/v".into(),
        propagation,
        ..Mount::default()
    };
    let with = |mount: Mount| {
        |config: &mut ContainerConfig| {
            config.mounts = vec![mount];
            config.security.privileged = true;
        }
    };
    let private = node.start(RUNS, with(volume(Propagation::Private))).await;
    let from = node
        .start(RUNS, with(volume(Propagation::FromMachine)))
        .await;
    let both = node.start(RUNS, with(volume(Propagation::Both))).await;
    let pods = [&private, &from, &both];
    let seen = async |name: &str| {
        let mut seen = Vec::new();
        for pod in pods {
            let path = format!("/v/{name}/file");
            seen.push(node.exec(pod, &["ls", &path]).await.0 == 0);
        }
        seen
    };
    for name in ["machine", "from", "both"] {
        std::fs::create_dir(shared.0.join(name)).unwrap();
    }
    let below = shared.0.join("machine");
    mount("below", &below, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(below.join("file"), "").unwrap();
    assert_eq!(seen("machine").await, [false, true, true]);
    for (name, pod, expected) in [
        ("from", &from, [false, true, false]),
        ("both", &both, [false, true, true]),
    ] {
        let script = format!("mount -t tmpfs none /v/{name} && : > /v/{name}/file");
        let (code, said) = node.exec(pod, &["sh", "-c", &script]).await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(seen(name).await, expected, "{name}");
        let on_machine = shared.0.join(name).join("file").exists();
        assert_eq!(on_machine, name == "both", "{name}");
    }
    // What is mounted below is read-only only where that is said.
    for (recursive_read_only, code) in [(false, 0), (true, 1)] {
        let mount = Mount {
            read_only: true,
            recursive_read_only,
            ..volume(Propagation::Private)
        };
        let script = "touch /v/x && exit 7; touch /v/machine/x";
        let (exit, said) = node.run(script, with(mount)).await;
        assert_eq!(exit.code.min(1), code, "{said}");
    }
    for pod in pods {
        node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    }
    // The mount below is not shared.
    mount_change(&shared.0, MountPropagationFlags::PRIVATE).unwrap();
    let (sandbox, _) = node.sandbox().await;
    let mut config = node.container_config("true");
    config.mounts = vec![volume(Propagation::Both)];
    let refused = node.runtime.create_container(&sandbox, config).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("it is not a shared mount"), "{refused}");
    node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

/// Another container of the Pod may put a link where a folder was when the kubelet looked.
pub(crate) async fn volumes_that_have_become_links_are_not_followed() {
    let node = Node::new().await;
    let volume = node.folder.path().canonicalize().unwrap().join("volume");
    std::fs::create_dir_all(volume.join("real/below")).unwrap();
    std::os::unix::fs::symlink("real", volume.join("link")).unwrap();
    let with = |path: &str| {
        let mount = Mount {
            host_path: volume.join(path),
            container_path: "/v".into(),
            without_links: true,
            ..Mount::default()
        };
        |config: &mut ContainerConfig| config.mounts = vec![mount]
    };
    let (exit, said) = node.run("touch /v/made", with("real/below")).await;
    assert_eq!(exit.code, 0, "{said}");
    assert!(volume.join("real/below/made").exists());
    for path in ["link", "link/below"] {
        let pod = node.create("true", with(path)).await;
        let error = node.runtime.start_container(&pod.container).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    }
}
