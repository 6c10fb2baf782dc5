//! Users of a Pod's own (`hostUsers: false`).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use coracle_runtime::{ContainerConfig, IdRange, Mount, PodSandboxConfig, RuntimeService};

use crate::node::{DEADLINE, Node, Pod};

/// A range of users.
pub(crate) const RANGE: IdRange = IdRange {
    first: 2_100_035_584,
};
const MAP: &str = "0 2100035584 65536";
const RUNS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

/// A sandbox of a Pod with users of its own, and how to make containers in it.
async fn start(
    node: &Node,
    script: &str,
    sandbox: impl FnOnce(&mut PodSandboxConfig),
    container: impl FnOnce(&mut ContainerConfig),
) -> Pod {
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let mut config = node.sandbox_config();
    config.namespaces.users = Some(RANGE);
    sandbox(&mut config);
    let id = node.runtime.run_pod_sandbox(config.clone()).await.unwrap();
    let mut of = node.container_config(&format!("{script}; {RUNS}"));
    container(&mut of);
    node.start_in(&id, &config, of).await
}

/// Waits for a line of a container's.
async fn says(pod: &Pod, line: &str) {
    let said = async {
        while !pod.output().lines().any(|said| said == line) {
            tokio::task::yield_now().await;
        }
    };
    let heard = tokio::time::timeout(DEADLINE, said).await;
    assert!(heard.is_ok(), "{line}: {}", pod.output());
}

async fn end(node: &Node, pod: &Pod) {
    let stopped = node.runtime.stop_container(&pod.container, DEADLINE).await;
    stopped.unwrap();
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

/// Who they are, and what they may do.
const WHO: &str = "id; echo $(cat /proc/self/uid_map); \
                   grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd|Groups):' /proc/self/status; echo end";

pub(crate) async fn first_and_further_processes_are_of_the_pods_users() {
    let node = Node::new().await;
    for user in [None, Some(33)] {
        let edit = |config: &mut ContainerConfig| config.security.user = user;
        let pod = start(&node, WHO, |_| (), edit).await;
        says(&pod, "end").await;
        let first = pod.output();
        let (code, further) = node.exec(&pod, &["sh", "-c", WHO]).await;
        assert_eq!((code, further.trim()), (0, first.trim()));
        let id = user.unwrap_or(0);
        assert!(first.starts_with(&format!("uid={id}(")), "{first}");
        assert!(first.lines().any(|line| line == MAP), "{first}");
        assert!(first.contains("Seccomp:\t2"), "{first}");
        // The machine sees IDs of the range alone.
        let mut processes = String::new();
        for of_pod in node.cgroups(&pod.sandbox).await {
            // Not every hierarchy has one for each container.
            let of_container = of_pod.join(&pod.container.0).join("cgroup.procs");
            processes += &fs::read_to_string(of_container).unwrap_or_default();
        }
        assert!(!processes.is_empty());
        for process in processes.lines() {
            let status = fs::read_to_string(format!("/proc/{process}/status"));
            // It may have ended.
            let Ok(status) = status else { continue };
            let uid = format!("Uid:\t{}\t", RANGE.first + id);
            assert!(status.contains(&uid), "{status}");
        }
        end(&node, &pod).await;
    }
}

pub(crate) async fn files_are_as_without_users_of_its_own() {
    let node = Node::new().await;
    let volume = node.folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("secret"), "secret\n").unwrap();
    let private = |path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    private(volume.join("secret"), 0o600).unwrap();
    private(volume.clone(), 0o700).unwrap();
    let message = node.folder.path().join("message");
    fs::write(&message, "").unwrap();
    let script = "stat -c '%u:%g' / /bin/sh /v/secret /etc/hosts /made/by/it; cat /v/secret; \
                  touch /v/new /new /dev/shm/new; chown 7:8 /v/new; echo 'the end' > /dev/termination-log; \
                  grep -q pod- /etc/hosts && pwd; echo out > /dev/stdout; echo x > /dev/null; \
                  stat -c '%u:%g' /v/new; echo end";
    let edit = |config: &mut ContainerConfig| {
        config.working_dir = Some("/made/by/it".into());
        config.termination_message = Some(message.clone());
        config.mounts = vec![Mount {
            host_path: volume.clone(),
            container_path: "/v".into(),
            ..Mount::default()
        }];
    };
    let pod = start(&node, script, |_| (), edit).await;
    says(&pod, "end").await;
    let expected = "0:0\n0:0\n0:0\n0:0\n0:0\nsecret\n/made/by/it\nout\n7:8\nend";
    assert_eq!(pod.output(), expected);
    // On the disk they have the IDs that they have inside.
    let new = fs::metadata(volume.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (7, 8));
    assert_eq!(fs::read_to_string(&message).unwrap(), "the end\n");
    end(&node, &pod).await;
}

pub(crate) async fn the_kernels_files_are_the_pods() {
    let node = Node::new().await;
    let sandbox = |config: &mut PodSandboxConfig| {
        let sysctl = ("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
        config.namespaces.sysctls.extend([sysctl]);
    };
    let script = "cat /proc/sys/kernel/shm_rmid_forced; hostname; ls /sys/class/net; \
                  (echo 9 > /proc/sys/kernel/shm_rmid_forced) 2> /dev/null || echo read-only; echo end";
    let pod = start(&node, script, sandbox, |_| ()).await;
    says(&pod, "end").await;
    let said = pod.output();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(lines[1].starts_with("pod-"), "{said}");
    assert!(
        lines.contains(&"lo") && lines.contains(&"read-only"),
        "{said}"
    );
    end(&node, &pod).await;

    // Without masks, which users of its own alone are given.
    let unmask = |config: &mut ContainerConfig| config.security.unmasked_proc = true;
    let script = "grep -c ' /proc' /proc/self/mounts; echo end";
    let pod = start(&node, script, |_| (), unmask).await;
    says(&pod, "end").await;
    assert_eq!(pod.output(), "1\nend");
    end(&node, &pod).await;
}

pub(crate) async fn processes_are_shared_among_the_pods_users() {
    let node = Node::new().await;
    let share = |config: &mut PodSandboxConfig| config.namespaces.share_processes = true;
    let pod = start(&node, "sleep 1234567 & true", share, |_| ()).await;
    let script = "ps; grep ^Uid: /proc/1/status; kill -9 1; kill -0 1 || echo alive; \
                  ls /proc/1/root/ 2>&1";
    let (_, said) = node.exec(&pod, &["sh", "-c", script]).await;
    assert!(said.contains("sleep 1234567"), "{said}");
    assert!(said.contains("Uid:\t65535\t65535"), "{said}");
    assert!(said.contains("/proc/1/root/: Permission denied"), "{said}");
    // What sees the processes of another container.
    let mut config = node.sandbox_config();
    config.namespaces.users = Some(RANGE);
    end(&node, &pod).await;
    let sandbox = node.runtime.run_pod_sandbox(config.clone()).await.unwrap();
    let container = |name: &str, script: &str| {
        let mut container = node.container_config(&format!("{script}; {RUNS}"));
        container.name = name.into();
        container.log_path = format!("{name}/0.log").into();
        container
    };
    let first = container("first", "sleep 7654321 & true");
    let first = node.start_in(&sandbox, &config, first).await;
    let mut second = container("second", "true");
    second.target = Some(first.container.clone());
    let second = node.start_in(&sandbox, &config, second).await;
    let (_, listed) = node.exec(&second, &["ps"]).await;
    assert!(listed.contains("sleep 7654321"), "{listed}");
    end(&node, &second).await;
}

pub(crate) async fn a_volume_that_cannot_have_them_is_named() {
    let node = Node::new().await;
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let mut config = node.sandbox_config();
    config.namespaces.users = Some(RANGE);
    let sandbox = node.runtime.run_pod_sandbox(config.clone()).await.unwrap();
    let mut container = node.container_config(RUNS);
    // Nobody's IDs are mapped there.
    container.mounts = vec![Mount {
        host_path: "/proc/sys".into(),
        container_path: "/v".into(),
        ..Mount::default()
    }];
    let created = node.runtime.create_container(&sandbox, container).await;
    let error = node.runtime.start_container(&created.unwrap()).await;
    let error = error.unwrap_err().to_string();
    let why = "volume /proc/sys: its file system cannot be mounted with a Pod's own users";
    assert!(error.contains(why), "{error}");
    node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}
