//! What the suite for all runtimes does not ask.

use std::fs;

use coracle_cri::{CriConfig, CriRuntime};
use coracle_runtime::{
    ContainerState, Error, Mount, Resources, RuntimeService, SandboxState, Security,
};
use futures::StreamExt;

use crate::node::{DEADLINE, Node, exit};

pub(crate) async fn what_is_no_runtime_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let said = async |endpoint: String| {
        let config = CriConfig {
            endpoint,
            state_dir: folder.path().join("node"),
            exe: std::env::current_exe().unwrap(),
        };
        let error = CriRuntime::new(config).await.err().unwrap().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let socket = folder.path().join("none.sock");
    let error = said(format!("unix://{}", socket.display())).await;
    assert!(
        error.contains("no container runtime answers at unix://"),
        "{error}"
    );
    let error = said("tcp://127.0.0.1:1".into()).await;
    assert!(error.contains("unix:///PATH"), "{error}");
    // Something else listens there.
    let path = folder.path().join("http.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let executor = hyper_util::rt::TokioExecutor::new();
            let answer =
                hyper::service::service_fn(|_: http::Request<hyper::body::Incoming>| async {
                    let response = http::Response::builder().status(404);
                    response.body(http_body_util::Full::<bytes::Bytes>::default())
                });
            let http = hyper::server::conn::http2::Builder::new(executor);
            let stream = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(http.serve_connection(stream, answer));
        }
    });
    let error = said(format!("unix://{}", path.display())).await;
    assert!(error.contains("does not serve runtime.v1"), "{error}");
    serving.abort();
}

pub(crate) async fn use_is_measured_and_limits_change() {
    let node = Node::new().await;
    let script = "trap 'exit 0' TERM; while true; do :; done";
    let mut config = node.container_config(script);
    config.resources = Resources {
        cpu_request_millis: Some(100),
        cpu_limit_millis: Some(200),
        memory_limit_bytes: Some(64 << 20),
        ..Resources::default()
    };
    let mut sandbox = node.sandbox_config();
    sandbox.resources = config.resources.clone();
    sandbox.cgroup_parent = Some(format!("test/pod{}", sandbox.pod.uid).into());
    let group = sandbox.cgroup_parent.clone().unwrap();
    let pod = node.run(sandbox, config).await;
    let measured = async {
        loop {
            let stats = node.runtime.stats().await.unwrap();
            let own = stats.into_iter().find(|of| of.id == pod.container);
            if let Some(own) = own.filter(|own| !own.cpu.is_zero()) {
                return own;
            }
        }
    };
    let own = tokio::time::timeout(DEADLINE, measured).await.unwrap();
    assert!(own.memory_bytes > 0);
    let more = Resources {
        cpu_limit_millis: Some(400),
        memory_limit_bytes: Some(96 << 20),
        ..Default::default()
    };
    let (sandbox, container) = (&pod.sandbox, &pod.container);
    let resized = node
        .runtime
        .update_pod_sandbox_resources(sandbox, more.clone());
    resized.await.unwrap();
    let updated = node.runtime.update_container_resources(container, more);
    updated.await.unwrap();
    for place in [group.clone(), group.join(&pod.container.0)] {
        let older = std::path::Path::new("/sys/fs/cgroup/memory").join(&place);
        let limit = match fs::read_to_string(older.join("memory.limit_in_bytes")) {
            Ok(limit) => limit,
            Err(_) => {
                let unified = std::path::Path::new("/sys/fs/cgroup").join(&place);
                fs::read_to_string(unified.join("memory.max")).unwrap()
            }
        };
        assert_eq!(limit.trim(), (96 << 20).to_string(), "{}", place.display());
    }
    let written = node.runtime.writable_layer(container).await;
    written.unwrap();
    node.remove(&pod).await;
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"] {
        assert!(!std::path::Path::new(root).join(&group).exists());
    }
    node.end().await;
}

pub(crate) async fn volumes_and_rights_are_as_the_pod_asks() {
    let node = Node::new().await;
    let volume = node.path().join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(volume.join("sub/file"), "kept").unwrap();
    let mount = |host: &str, inside: &str| Mount {
        host_path: volume.join(host),
        container_path: inside.into(),
        ..Mount::default()
    };
    let script = "cat /sub/file; echo; touch /sub/new; touch /volume/no || echo read-only; \
                  id -u; grep NoNewPrivs /proc/self/status; echo said > /dev/termination-log; \
                  touch /no || echo root is read-only; echo $FROM";
    let mut config = node.container_config(script);
    config.env = vec![("FROM".into(), "the Pod".into())];
    config.mounts = vec![
        Mount {
            read_only: true,
            ..mount("", "/volume")
        },
        Mount {
            without_links: true,
            ..mount("sub", "/sub")
        },
    ];
    config.termination_message = Some(node.path().join("message"));
    fs::write(node.path().join("message"), "").unwrap();
    config.security = Security {
        no_new_privileges: true,
        read_only_root: true,
        ..Default::default()
    };
    let pod = node.run(node.sandbox_config(), config).await;
    exit(&node.runtime, &pod.container).await;
    let output = pod.output();
    let said: Vec<&str> = output.lines().collect();
    for line in [
        "kept",
        "read-only",
        "0",
        "NoNewPrivs:\t1",
        "root is read-only",
        "the Pod",
    ] {
        assert!(said.contains(&line), "{line}: {output}");
    }
    let message = fs::read_to_string(node.path().join("message"));
    assert_eq!(message.unwrap(), "said\n");
    node.remove(&pod).await;
    assert!(volume.join("sub/new").exists() && volume.join("sub/file").exists());

    // A link that was put in the path meanwhile leads nowhere.
    std::os::unix::fs::symlink("/etc", volume.join("link")).unwrap();
    let mut config = node.container_config("true");
    config.mounts = vec![Mount {
        without_links: true,
        ..mount("link", "/sub")
    }];
    let sandbox = node.runtime.run_pod_sandbox(node.sandbox_config()).await;
    let sandbox = sandbox.unwrap();
    let refused = node.runtime.create_container(&sandbox, config).await;
    assert!(
        matches!(refused, Err(Error::InvalidConfig(_))),
        "{refused:?}"
    );
    node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    node.end().await;
}

pub(crate) async fn what_cannot_be_done_is_refused_by_name() {
    let node = Node::new().await;
    let runtime = &node.runtime;
    let mut config = node.sandbox_config();
    config.handler = Some("kata".into());
    let error = runtime.run_pod_sandbox(config).await.unwrap_err();
    assert!(error.to_string().contains("kata"), "{error}");
    assert!(runtime.handlers().contains(&"runc".to_owned()));
    let mut config = node.sandbox_config();
    config.handler = Some("runc".into());
    let sandbox = runtime.run_pod_sandbox(config).await.unwrap();
    runtime.ensure_image(&node.busybox).await.unwrap();
    let mut privileged = node.container_config("true");
    privileged.security.privileged = true;
    let error = runtime.create_container(&sandbox, privileged).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("privileged"), "{error}");
    let mut config = node.container_config("true");
    config.command = vec!["no-such-program".into()];
    let id = runtime.create_container(&sandbox, config).await.unwrap();
    let error = runtime.start_container(&id).await.unwrap_err();
    assert!(matches!(error, Error::Start(_)), "{error:?}");
    let ended = exit(runtime, &id).await;
    assert_ne!(ended.code, 0, "{ended:?}");
    runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    node.end().await;
}

pub(crate) async fn a_runtime_that_starts_again_has_its_containers_still() {
    let mut node = Node::new().await;
    let pod = node
        .script("trap 'exit 3' TERM; while true; do sleep 0.1; done")
        .await;
    let mut events = node.runtime.events();
    node.restart_daemon();
    let status = node.runtime.container_status(&pod.container).await.unwrap();
    assert!(matches!(status.state, ContainerState::Running { .. }));
    let sandboxes = node.runtime.list_pod_sandboxes().await.unwrap();
    assert_eq!(sandboxes[0].state, SandboxState::Ready);
    let stopped = node.runtime.stop_container(&pod.container, DEADLINE).await;
    stopped.unwrap();
    assert_eq!(exit(&node.runtime, &pod.container).await.code, 3);
    let told = tokio::time::timeout(DEADLINE, events.next()).await;
    assert!(told.unwrap().is_some());
    node.remove(&pod).await;
    node.end().await;
}
