//! Command guests: one process each.

use std::time::{Duration, Instant};

use coracle_runtime::streaming::Wanted;
use coracle_runtime::{ContainerConfig, ContainerState, Mount, RuntimeService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{DEADLINE, Node, entries, kill};
use crate::programs::{ECHO, EXIT_3, HELLO, SILENT, SLEEP, SPIN, handler};

pub(crate) async fn output_arguments_and_environment_arrive() {
    let node = Node::new().await;
    let image = node.image(HELLO.as_bytes());
    let (exit, pod) = node.run(&image, |_| ()).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"));
    assert_eq!(entries(&pod.log), ["stdout F hello"]);
}

pub(crate) async fn those_who_attach_hear_and_are_heard() {
    let node = Node::new().await;
    let pod = node
        .start(&node.image(ECHO.as_bytes()), |config| {
            config.stdio.stdin = true;
            config.stdio.once = true;
        })
        .await;
    let wanted = Wanted {
        stdin: true,
        stdout: true,
        stderr: true,
    };
    let mut session = node.runtime.attach(&pod.container, wanted).await.unwrap();
    let (mut stdin, mut stdout) = (
        session.stdin.take().unwrap(),
        session.stdout.take().unwrap(),
    );
    stdin.write_all(b"no end of line").await.unwrap();
    let mut heard = [0; 14];
    stdout.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"no end of line");
    // More than waits anywhere on the way.
    let text = vec![b'x'; 1 << 20];
    let mut rest = Vec::new();
    let write = async {
        stdin.write_all(&text).await.unwrap();
        drop(stdin);
    };
    let both = async { tokio::join!(write, stdout.read_to_end(&mut rest)) };
    let ((), read) = tokio::time::timeout(DEADLINE, both).await.unwrap();
    assert_eq!(read.unwrap(), text.len());
    assert_eq!(session.exit.await.unwrap(), 0);
    let attached = node.runtime.attach(&pod.container, wanted).await;
    assert!(attached.is_err(), "it has ended");
    // An HTTP guest has no input, and nothing to say.
    let http = node
        .start(&node.image(handler(SILENT).as_bytes()), |_| ())
        .await;
    let session = node.runtime.attach(&http.container, wanted).await.unwrap();
    assert!(session.stdin.is_none());
    let stop = node.runtime.stop_container(&http.container, DEADLINE);
    stop.await.unwrap();
    let mut silence = Vec::new();
    session
        .stdout
        .unwrap()
        .read_to_end(&mut silence)
        .await
        .unwrap();
    assert_eq!((silence.len(), session.exit.await.unwrap()), (0, 0));
}

pub(crate) async fn a_component_runs() {
    let node = Node::new().await;
    let image = node.sample("batch-hello/batch-hello.wasm");
    let (exit, pod) = node
        .run(&image, |config| {
            config.args = vec!["you".into(), "all".into()]
        })
        .await;
    assert_eq!(exit.code, 0, "{exit:?}");
    assert_eq!(
        entries(&pod.log),
        ["stdout F Hello, you", "stdout F Hello, all"]
    );
}

pub(crate) async fn faults_end_with_their_codes() {
    let node = Node::new().await;
    let exits = node.image(EXIT_3.as_bytes());
    let (exit, _) = node.run(&exits, |_| ()).await;
    assert_eq!((exit.code, exit.reason.as_str()), (3, "Error"));

    let message = node.folder.path().join("termination");
    std::fs::write(&message, "").unwrap();
    let (exit, _) = node
        .run(&node.sample("faults/trap.wasm"), |config| {
            config.termination_message = Some(message.clone());
        })
        .await;
    assert_eq!((exit.code, exit.reason.as_str()), (134, "Error"));
    assert!(exit.message.contains("unreachable"), "{}", exit.message);
    let told = std::fs::read_to_string(&message).unwrap();
    assert_eq!(told, exit.message);

    let (exit, _) = node
        .run(&node.sample("faults/oom.wasm"), |config| {
            config.resources.memory_limit_bytes = Some(16 << 20);
        })
        .await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
}

pub(crate) async fn what_cannot_run_is_named() {
    let node = Node::new().await;
    for (module, part) in [
        (&b"garbage"[..], "no WebAssembly"),
        (b"(module (func", "not valid"),
        (b"\0asm\x01\0\0", "truncated"),
        (b"(module)", "_start"),
        (
            b"(module (import \"env\" \"f\" (func)) (func (export \"_start\")))",
            "`env` `f`",
        ),
    ] {
        let refusal = node.refusal(&node.image(module)).await;
        assert!(refusal.contains(part), "{refusal}");
    }
    // What is refused leaves the node well.
    let (exit, _) = node.run(&node.image(HELLO.as_bytes()), |_| ()).await;
    assert_eq!(exit.code, 0);
}

pub(crate) async fn a_spinning_guest_is_stopped_at_once() {
    let node = Node::new().await;
    let pod = node.start(&node.image(SPIN.as_bytes()), |_| ()).await;
    let before = Instant::now();
    node.runtime
        .stop_container(&pod.container, DEADLINE)
        .await
        .unwrap();
    assert!(before.elapsed() < DEADLINE / 2);
    let exit = node.exit(&pod).await;
    assert_eq!((exit.code, exit.reason.as_str()), (143, "Error"));
}

pub(crate) async fn a_cpu_limit_throttles() {
    let node = Node::new().await;
    let image = node.image(SPIN.as_bytes());
    let pod = node
        .start(&image, |config| {
            config.resources.cpu_limit_millis = Some(100)
        })
        .await;
    let used = async || {
        let stats = node.runtime.stats().await.unwrap();
        let of = stats.iter().find(|of| of.id == pod.container).unwrap();
        of.cpu
    };
    // Wait until it has used three periods of its limit: that takes ten times as long.
    let before = Instant::now();
    while used().await < Duration::from_millis(30) {
        assert!(before.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    let (start, from) = (Instant::now(), used().await);
    while used().await < from + Duration::from_millis(50) {
        assert!(start.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(250),
        "50 ms of CPU took {took:?}"
    );
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

/// Makes `made` in the preopened directory, and exits with the error number.
fn creates_folder() -> String {
    r#"(module
      (import "wasi_snapshot_preview1" "path_create_directory"
        (func $create (param i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "made")
      (func (export "_start")
        (call $exit (call $create (i32.const 3) (i32.const 0) (i32.const 4)))))"#
        .into()
}

pub(crate) async fn volumes_are_preopened() {
    let node = Node::new().await;
    let image = node.image(creates_folder().as_bytes());
    let volume = node.folder.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mount = |read_only| Mount {
        host_path: volume.clone(),
        container_path: "/data".into(),
        read_only,
        ..Mount::default()
    };
    let (exit, _) = node
        .run(&image, |config| config.mounts = vec![mount(true)])
        .await;
    assert_ne!(exit.code, 0, "a read-only volume is not written to");
    assert!(!volume.join("made").exists());
    let (exit, _) = node
        .run(&image, |config| config.mounts = vec![mount(false)])
        .await;
    assert_eq!(exit.code, 0);
    assert!(volume.join("made").is_dir());
}

pub(crate) async fn an_image_is_a_volume_to_be_read() {
    let mut node = Node::new().await;
    std::fs::write(node.folder.path().join("secret"), "secret").unwrap();
    let files = node.image_of_files(
        &[("note", "from the image"), ("deep/er/note", "deeper")],
        &[
            ("link", "deep/er/note"),
            ("up", "../../../../../secret"),
            ("etc", "/etc"),
        ],
    );
    let inspect = node.sample("inspect/inspect.wasm");
    let mount = |path: &str, read_only| Mount {
        host_path: path.into(),
        image: Some(files.digest.clone()),
        container_path: "/data".into(),
        read_only,
        ..Mount::default()
    };
    node.runtime.ensure_volume(&files).await.unwrap();
    // The next agent has it still.
    node.restart().await;
    node.runtime.ensure_volume(&files).await.unwrap();
    let read = |path: &str, args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mounts = vec![mount(path, true)];
        move |config: &mut ContainerConfig| (config.args, config.mounts) = (args, mounts)
    };
    let paths = ["/data/note", "/data/link"];
    let (exit, pod) = node.run(&inspect, read("", &paths)).await;
    let expected = [
        "stdout F /data/note: from the image",
        "stdout F /data/link: deeper",
    ];
    assert_eq!(exit.code, 0);
    assert_eq!(entries(&pod.log), expected);
    // A part of it, as a folder and as a file.
    for (path, seen) in [("deep/er", "/data/note"), ("link", "/data")] {
        let (exit, pod) = node.run(&inspect, read(path, &[seen])).await;
        let expected = format!("stdout F {seen}: deeper");
        assert_eq!((exit.code, entries(&pod.log)), (0, vec![expected]));
    }
    // Nothing else is read, and nothing is written, whatever the mount says.
    for path in ["/data/up", "/data/etc/passwd", "/data/../secret"] {
        let (exit, pod) = node.run(&inspect, read("", &[path])).await;
        let log = entries(&pod.log).join("\n");
        assert!(exit.code == 1 && !log.contains("stdout"), "{path}: {log}");
    }
    let writes = node.image(creates_folder().as_bytes());
    let (exit, _) = node
        .run(&writes, |config| config.mounts = vec![mount("", false)])
        .await;
    assert_ne!(exit.code, 0);
    // The files go with the image.
    let volumes = node.folder.path().join("state/volumes");
    let names = || std::fs::read_dir(&volumes).unwrap().count();
    assert_eq!(names(), 2);
    node.runtime.remove_image(&files.digest).await.unwrap();
    assert_eq!(names(), 1, "nothing but where images are unpacked");
    let refused = node.runtime.ensure_volume(&inspect).await.unwrap_err();
    assert!(refused.to_string().contains("WebAssembly"), "{refused}");
}

pub(crate) async fn a_server_listens_under_the_pods_address() {
    let node = Node::new().await;
    let image = node.sample("tcp-echo/tcp-echo.wasm");
    let pod = node.start(&image, |_| ()).await;
    let (address, actual) = node.listener(&pod).await;
    assert_eq!(address, "10.42.0.1:7000".parse().unwrap());
    assert!(actual.ip().is_loopback());
    let echo = async {
        let mut stream = tokio::net::TcpStream::connect(actual).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(DEADLINE, echo).await.unwrap();
    assert_eq!(&answer, b"ping");
    let log = entries(&pod.log);
    assert_eq!(log[0], "stdout F listening on 0.0.0.0:7000");
    node.runtime
        .stop_container(&pod.container, DEADLINE)
        .await
        .unwrap();
    assert!(node.runtime.listeners().await.unwrap().is_empty());
}

pub(crate) async fn a_guest_ends_while_no_agent_is_there() {
    let mut node = Node::new().await;
    let image = node.sample("tcp-echo/tcp-echo.wasm");
    let pod = node.start(&image, |_| ()).await;
    let before = node.state(&pod).await;
    assert!(matches!(before, ContainerState::Running { .. }));
    node.runtime.detach().await;
    let runner = format!("state/containers/{}/runner/process.json", pod.container.0);
    assert!(kill(&node.folder.path().join(runner)));
    node.restart().await;
    let exit = node.exit(&pod).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "Error"));
    assert!(exit.started_at.is_some());
}

pub(crate) async fn a_killed_process_is_an_exit() {
    let node = Node::new().await;
    let pod = node.start(&node.image(SLEEP.as_bytes()), |_| ()).await;
    let runner = format!("state/containers/{}/runner/process.json", pod.container.0);
    assert!(kill(&node.folder.path().join(runner)));
    let exit = node.exit(&pod).await;
    assert_eq!(exit.code, 137);
    assert!(exit.message.contains("signal 9"), "{}", exit.message);
}

/// What the kernel says of a guest's process.
pub(crate) async fn guest_processes_are_confined() {
    let node = Node::new().await;
    let pod = node.start(&node.image(SLEEP.as_bytes()), |_| ()).await;
    let runner = format!("state/containers/{}/runner/process.json", pod.container.0);
    let record = std::fs::read(node.folder.path().join(runner)).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let tasks = format!("/proc/{}/task", record["pid"]);
    let mut threads = 0;
    for task in std::fs::read_dir(tasks).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in [
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        threads += 1;
    }
    assert!(threads >= 2, "the guest has a thread of its own");
}

/// Writes `bye` where Pods leave their last words.
const LAST_WORDS: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "termination-log")
  (data (i32.const 32) "\30\00\00\00\03\00\00\00")
  (data (i32.const 48) "bye")
  (func (export "_start")
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 15) (i32.const 0)
      (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 64)))
    (drop (call $write (i32.load (i32.const 64)) (i32.const 32) (i32.const 1) (i32.const 72)))
    (call $exit (i32.const 1))))"#;

pub(crate) async fn a_guest_leaves_last_words() {
    let node = Node::new().await;
    let message = node.folder.path().join("termination");
    std::fs::write(&message, "").unwrap();
    let (exit, _) = node
        .run(&node.image(LAST_WORDS.as_bytes()), |config| {
            config.termination_message = Some(message.clone());
        })
        .await;
    assert_eq!(exit.code, 1);
    assert_eq!(std::fs::read_to_string(&message).unwrap(), "bye");
}
