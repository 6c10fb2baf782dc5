//! How containers begin and end.

use std::time::{Duration, Instant};

use coracle_runtime::identity::Identity;
use coracle_runtime::{ContainerState, Error, RuntimeService, SandboxState};

use crate::node::{self, DEADLINE, Node, exit};

/// A script that runs until it is asked to end.
const RUNS: &str = "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done";

pub(crate) async fn what_cannot_be_executed_is_named() {
    let node = Node::new().await;
    for (command, cause) in [
        (
            "nonsense",
            "exec: \"nonsense\": executable file not found in $PATH",
        ),
        (
            "/bin/nonsense",
            "exec: \"/bin/nonsense\": no such file or directory",
        ),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let pod = node
            .create("", |config| config.command = vec![command.into()])
            .await;
        let started = node.runtime.start_container(&pod.container).await;
        let Err(Error::Start(message)) = started else {
            panic!("{command}: {started:?}");
        };
        assert!(message.contains(cause), "{message} lacks {cause}");
        let exit = exit(&node.runtime, &pod.container).await;
        assert_eq!((exit.code, &*exit.reason), (128, "StartError"));
    }
    let pod = node.start(RUNS, |_| ()).await;
    let (_, error) = node.exec(&pod, &["nonsense"]).await;
    assert!(
        error.contains("executable file not found in $PATH"),
        "{error}"
    );
}

pub(crate) async fn further_processes_run_beside_the_first() {
    let node = Node::new().await;
    let pod = node
        .start(RUNS, |config| {
            config.env = vec![("A".into(), "b c".into())];
            config.working_dir = Some("/made/for/it".into());
        })
        .await;
    let (code, output) = node
        .exec(
            &pod,
            &["sh", "-c", "echo $A; pwd; cat /proc/1/comm; exit 7"],
        )
        .await;
    assert_eq!((code, &*output), (7, "b c\n/made/for/it\nsh\n"));
    let (code, _) = node.exec(&pod, &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!(code, 137);
    // Many at once, while the first writes.
    let runs = (0..8).map(|_| node.exec(&pod, &["true"]));
    for (code, output) in futures::future::join_all(runs).await {
        assert_eq!((code, &*output), (0, ""));
    }
    node.runtime
        .stop_container(&pod.container, DEADLINE)
        .await
        .unwrap();
    assert_eq!(exit(&node.runtime, &pod.container).await.code, 0);
    let (code, error) = node.exec(&pod, &["true"]).await;
    assert!(code == -1 && error.contains("does not run"), "{error}");
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn a_container_ends_while_no_agent_is_there() {
    let node = Node::new().await;
    let gate = node.folder.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let script = "echo before; while [ ! -e /gate/open ]; do sleep 0.05; done; echo after; exit 5";
    let pod = node
        .start(script, |config| {
            config.mounts = vec![coracle_runtime::Mount {
                host_path: gate.clone(),
                container_path: "/gate".into(),
                read_only: true,
                ..Default::default()
            }];
        })
        .await;
    node.runtime.detach().await;
    std::fs::write(gate.join("open"), "").unwrap();
    // The shim alone can tell, by the record that it writes.
    let record = node
        .folder
        .path()
        .join("oci/containers")
        .join(&pod.container.0)
        .join("exit.json");
    let written = async {
        while !record.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.unwrap();
    let next = node.restart().await;
    let exit = exit(&next, &pod.container).await;
    assert_eq!((exit.code, &*exit.reason), (5, "Error"));
    assert_eq!(pod.output(), "before\nafter");
    next.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn the_death_of_a_shim_ends_its_containers() {
    let node = Node::new().await;
    let pod = node.start(RUNS, |_| ()).await;
    let (pid, shim) = Identity::living(&node.shim_folder(&pod.sandbox))
        .unwrap()
        .unwrap();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    assert_eq!(threads.count(), 1, "what forks has no threads");
    // What made the container may still be on its way out.
    let only_child = async {
        loop {
            let children = format!("/proc/{pid}/task/{pid}/children");
            let children = std::fs::read_to_string(children).unwrap();
            if let Ok(child) = children.trim().parse::<i32>() {
                return child;
            }
            tokio::task::yield_now().await;
        }
    };
    let child = tokio::time::timeout(DEADLINE, only_child).await.unwrap();
    let container = Identity::of(child).unwrap();
    rustix::process::pidfd_send_signal(&shim, rustix::process::Signal::KILL).unwrap();
    let exit = exit(&node.runtime, &pod.container).await;
    assert_eq!((exit.code, &*exit.reason), (137, "Error"));
    assert!(
        exit.message.contains("killed by signal 9"),
        "{}",
        exit.message
    );
    assert!(
        container.open().is_none_or(|pidfd| ended(&pidfd)),
        "the container lives on"
    );
    let mut sandboxes = node.runtime.list_pod_sandboxes().await.unwrap();
    assert_eq!(sandboxes.pop().unwrap().state, SandboxState::NotReady);
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

/// However far it is. What is made goes with the shim, or with the container's cgroup.
pub(crate) async fn a_shim_that_dies_while_it_makes_a_container_leaves_nothing() {
    let node = Node::new().await;
    for _ in 0..8 {
        let pod = node.create(RUNS, |_| ()).await;
        let pods = node.cgroups(&pod.sandbox).await;
        let (pid, shim) = Identity::living(&node.shim_folder(&pod.sandbox))
            .unwrap()
            .unwrap();
        let kill = async {
            let children = format!("/proc/{pid}/task/{pid}/children");
            while std::fs::read_to_string(&children).unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            rustix::process::pidfd_send_signal(&shim, rustix::process::Signal::KILL).unwrap();
        };
        let start = node.runtime.start_container(&pod.container);
        let (started, killed) = tokio::join!(start, tokio::time::timeout(DEADLINE, kill));
        killed.unwrap();
        let exit = exit(&node.runtime, &pod.container).await;
        // It may have been made just then.
        let expected = if started.is_ok() { 137 } else { 128 };
        assert_eq!(exit.code, expected, "{exit:?}");
        let ended = async {
            let runs = |pod: &std::path::PathBuf, container: &str| {
                let processes = pod.join(container).join("cgroup.procs");
                std::fs::read_to_string(processes).is_ok_and(|all| !all.is_empty())
            };
            while pods.iter().any(|of| runs(of, &pod.container.0)) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.unwrap();
        node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
        for pod in &pods {
            assert!(!pod.exists(), "{} is left", pod.display());
        }
    }
}

/// Its answer and its end are heard at once, and who waits for the answer may be the last to hear.
pub(crate) async fn a_shim_that_dies_when_it_has_made_a_container_ends_it() {
    let node = Node::new().await;
    let pod = node.create(RUNS, |_| ()).await;
    let (pid, shim) = Identity::living(&node.shim_folder(&pod.sandbox))
        .unwrap()
        .unwrap();
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let kill = async {
        let asked = async {
            while children().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, asked).await.unwrap();
        // The start, which is of the same task, hears nothing until the shim is dead.
        tokio::task::block_in_place(|| {
            let since = Instant::now();
            let is_made = || {
                let said = std::fs::read_to_string(&pod.log).unwrap_or_default();
                said.contains("ready") && children().split_whitespace().count() == 1
            };
            while !is_made() {
                assert!(since.elapsed() < DEADLINE, "it is not made");
                std::thread::yield_now();
            }
            rustix::process::pidfd_send_signal(&shim, rustix::process::Signal::KILL).unwrap();
            assert!(ended(&shim));
        });
    };
    let (started, ()) = tokio::join!(node.runtime.start_container(&pod.container), kill);
    let exit = exit(&node.runtime, &pod.container).await;
    // It may have died before it could answer.
    let expected = if started.is_ok() { 137 } else { 128 };
    assert_eq!(exit.code, expected, "{exit:?}");
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

/// Whether a process has ended, though nobody may have waited for it.
fn ended(pidfd: &std::os::fd::OwnedFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(
        pidfd,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None).unwrap() > 0
}

pub(crate) async fn signals_end_containers_with_their_codes() {
    let node = Node::new().await;
    let quits = node::image(
        &node.content,
        "quits",
        &[node::archive(&[])],
        coracle_images::ImageConfig {
            stop_signal: "SIGQUIT".into(),
            ..Default::default()
        },
    );
    node.runtime.ensure_image(&quits).await.unwrap();
    let script =
        "trap 'exit 4' QUIT; trap 'exit 5' USR1; echo ready; while true; do sleep 0.05; done";
    // What the Pod says goes before what its image says.
    for (signal, code) in [(None, 4), (Some("SIGUSR1"), 5)] {
        let pod = node
            .start(script, |config| {
                config.image_digest = quits.digest.clone();
                config.stop_signal = signal.map(str::to_owned);
            })
            .await;
        let ready = async {
            while pod.output().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, ready).await.unwrap();
        node.runtime
            .stop_container(&pod.container, DEADLINE)
            .await
            .unwrap();
        let ended = exit(&node.runtime, &pod.container).await;
        assert_eq!(ended.code, code, "{ended:?}");
    }

    // The first process of a namespace hears no signal that it has no answer for.
    let (exit, _) = node
        .run("kill -TERM $$; kill -KILL $$; exit 6", |_| ())
        .await;
    assert_eq!(exit.code, 6);
    let pod = node.start("sleep 1000", |_| ()).await;
    node.runtime
        .stop_container(&pod.container, Duration::ZERO)
        .await
        .unwrap();
    let ContainerState::Exited(exit) = node
        .runtime
        .container_status(&pod.container)
        .await
        .unwrap()
        .state
    else {
        panic!("it runs");
    };
    assert_eq!((exit.code, &*exit.reason), (137, "Error"));
}

pub(crate) async fn containers_of_a_pod_share_what_is_the_pods() {
    let node = Node::new().await;
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let (sandbox, config) = node.sandbox().await;
    let script = "hostname; ls /sys/class/net; for n in net uts ipc pid mnt; do stat -L -c %i /proc/self/ns/$n; done";
    let mut outputs = Vec::new();
    for name in ["one", "two"] {
        let mut container = node.container_config(script);
        container.name = name.into();
        container.log_path = format!("{name}/0.log").into();
        let id = node
            .runtime
            .create_container(&sandbox, container)
            .await
            .unwrap();
        node.runtime.start_container(&id).await.unwrap();
        exit(&node.runtime, &id).await;
        let log = config.log_directory.join(format!("{name}/0.log"));
        let log = std::fs::read_to_string(log).unwrap();
        let lines: Vec<String> = log
            .lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned())
            .collect();
        outputs.push(lines);
    }
    assert_eq!(outputs[0][..2], [config.hostname, "lo".into()]);
    assert_eq!(
        outputs[0][..5],
        outputs[1][..5],
        "network, name and IPC are the Pod's"
    );
    let host =
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/net").unwrap());
    assert_ne!(outputs[0][2], host.to_string());
    node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();

    let mut config = node.sandbox_config();
    node::host_network(&mut config);
    let sandbox = node.runtime.run_pod_sandbox(config.clone()).await.unwrap();
    let container = node.container_config("stat -L -c %i /proc/self/ns/net");
    let id = node
        .runtime
        .create_container(&sandbox, container)
        .await
        .unwrap();
    node.runtime.start_container(&id).await.unwrap();
    exit(&node.runtime, &id).await;
    let log = std::fs::read_to_string(config.log_directory.join("main/0.log")).unwrap();
    assert!(log.trim().ends_with(&format!(" {host}")), "{log}");
}

pub(crate) async fn what_a_container_writes_is_its_own() {
    let node = Node::new().await;
    let (exit, output) = node
        .run("echo x > /etc/passwd; cat /etc/passwd", |_| ())
        .await;
    assert_eq!((exit.code, &*output), (0, "x"));
    let (exit, output) = node.run("head -1 /etc/passwd", |_| ()).await;
    assert_eq!((exit.code, &*output), (0, "root:x:0:0::/root:/bin/sh"));
    let (exit, output) = node
        .run(
            "(echo x > /new) 2>/dev/null || echo refused; touch /dev/shm/x && echo ok",
            |config| {
                config.security.read_only_root = true;
            },
        )
        .await;
    assert_eq!((exit.code, &*output), (0, "refused\nok"));
}

pub(crate) async fn a_shim_that_no_agent_comes_back_for_ends() {
    let node = Node::patient(Some(Duration::from_millis(200))).await;
    let pod = node.start(RUNS, |_| ()).await;
    let (_, shim) = Identity::living(&node.shim_folder(&pod.sandbox))
        .unwrap()
        .unwrap();
    node.runtime.detach().await;
    let waited = tokio::task::spawn_blocking(move || ended(&shim));
    assert!(
        tokio::time::timeout(DEADLINE, waited)
            .await
            .unwrap()
            .unwrap()
    );
    let left = node.cgroups(&pod.sandbox).await;
    assert!(left.is_empty(), "{left:?} are left");
    let next = node.restart().await;
    assert_eq!(exit(&next, &pod.container).await.code, 137);
    next.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

/// A container's process may have moved itself further down, and outlive the first where it sees
/// the machine's processes.
pub(crate) async fn no_cgroup_of_a_pod_is_left() {
    let node = Node::new().await;
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let mut config = node.sandbox_config();
    config.namespaces.host_pid = true;
    let sandbox = node.runtime.run_pod_sandbox(config.clone()).await.unwrap();
    // It is ready for its end when it says so.
    let script = "trap 'exit 0' TERM; sleep 100000 & echo $!; while true; do sleep 0.1; done";
    let container = node.container_config(script);
    let log = config.log_directory.join(&container.log_path);
    let container = node.runtime.create_container(&sandbox, container);
    let container = container.await.unwrap();
    node.runtime.start_container(&container).await.unwrap();
    let said = async {
        loop {
            let log = std::fs::read_to_string(&log).unwrap();
            if let Some(pid) = log
                .trim()
                .rsplit(' ')
                .next()
                .and_then(|pid| pid.parse().ok())
            {
                return pid;
            }
            tokio::task::yield_now().await;
        }
    };
    let sleeper: i32 = tokio::time::timeout(DEADLINE, said).await.unwrap();
    let sleeper = Identity::of(sleeper).unwrap();
    let pods = node.cgroups(&sandbox).await;
    assert!(!pods.is_empty());
    for pod in &pods {
        let below = pod.join(&container.0).join("further/down");
        std::fs::create_dir_all(&below).unwrap();
        let moved = std::fs::write(below.join("cgroup.procs"), sleeper.pid.to_string());
        // Not every hierarchy takes processes where nothing is set up for them.
        assert!(moved.is_ok() || pods.len() > 1, "{moved:?}");
    }
    node.runtime
        .stop_container(&container, DEADLINE)
        .await
        .unwrap();
    assert_eq!(exit(&node.runtime, &container).await.code, 0);
    assert!(
        sleeper.open().is_none_or(|pidfd| ended(&pidfd)),
        "what the container has left lives on"
    );
    for pod in &pods {
        assert!(
            !pod.join(&container.0).exists(),
            "{} is left",
            pod.display()
        );
    }
    node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    for pod in &pods {
        assert!(!pod.exists(), "{} is left", pod.display());
    }
}

/// Neither may leave what is in the Pod's cgroup to the other.
pub(crate) async fn two_sandboxes_of_a_pod_go_at_once() {
    let node = Node::new().await;
    let (first, config) = node.sandbox().await;
    let second = node.runtime.run_pod_sandbox(config).await.unwrap();
    let pods = node.cgroups(&first).await;
    assert!(!pods.is_empty());
    for pod in &pods {
        // What shims do not remove.
        std::fs::create_dir(pod.join("left")).unwrap();
    }
    let (one, other) = tokio::join!(
        node.runtime.remove_pod_sandbox(&first),
        node.runtime.remove_pod_sandbox(&second),
    );
    one.unwrap();
    other.unwrap();
    for pod in &pods {
        assert!(!pod.exists(), "{} is left", pod.display());
    }
}

/// Probes may come due all at once.
pub(crate) async fn many_further_processes_begin_at_once() {
    let node = Node::new().await;
    let pod = node.start(RUNS, |_| ()).await;
    let runs = (0..24).map(|_| node.exec(&pod, &["true"]));
    for (code, output) in futures::future::join_all(runs).await {
        assert_eq!((code, &*output), (0, ""));
    }
    let status = node.runtime.container_status(&pod.container).await.unwrap();
    assert!(
        matches!(status.state, ContainerState::Running { .. }),
        "{status:?}"
    );
}
