//! Guests with users of their own, and in a network namespace of their own: for root only.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coracle_runtime::{ContainerState, GuestUser, Mount, RuntimeService};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::exec::config;
use crate::node::{Node, Pod, entries, set_mode};
use crate::programs::{ECHO, SLEEP};

/// Users of the tests; others than those of an agent on the same machine.
const USERS: std::ops::Range<u32> = 2_000_100_000..2_000_100_016;

/// Whether the test can run. In a build that must run all tests it has to.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it needs root");
    }
    root
}

async fn node_with_users() -> Node {
    Node::with(|config| config.guest_users = Some(USERS)).await
}

/// The process of a record below the runtime's folder.
fn pid(node: &Node, folder: &Path) -> i32 {
    let record = node.folder.path().join("state").join(folder);
    let record = std::fs::read(record.join("process.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["pid"].as_i64().unwrap() as i32
}

fn runner(pod: &Pod) -> PathBuf {
    Path::new("containers")
        .join(&pod.container.0)
        .join("runner")
}

/// The folder of the container's only further guest.
fn further(node: &Node, pod: &Pod) -> PathBuf {
    let container = Path::new("containers").join(&pod.container.0);
    let folder = node.folder.path().join("state").join(&container);
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut further = names.filter(|name| name.to_str().unwrap().starts_with("exec-"));
    container.join(further.next().unwrap())
}

pub(crate) async fn processes_take_the_user_of_their_namespace() {
    if !is_root("processes_take_the_user_of_their_namespace") {
        return;
    }
    let node = node_with_users().await;
    let image = node.image_with(SLEEP.as_bytes(), &[("echo", ECHO.as_bytes())]);
    let pod = node.start(&image, |_| ()).await;
    let command = config(&["echo"]);
    let session = node.runtime.exec(&pod.container, command).await.unwrap();
    let further = further(&node, &pod);
    let http = node.sample("hello-http/hello-http.wasm");
    let served = node.start(&http, |_| ()).await;
    let user = node.runtime.guest_user("tests").unwrap().unwrap();
    assert_eq!((user.uid, user.gid), (USERS.start + 1, USERS.start + 1));
    let host = PathBuf::from("hosts/tests");
    for folder in [runner(&pod), host, further.clone()] {
        let pid = pid(&node, &folder);
        let mut threads = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let id = user.uid;
            for line in [
                format!("Uid:\t{id}\t{id}\t{id}\t{id}\n"),
                format!("Gid:\t{id}\t{id}\t{id}\t{id}\n"),
                "CapEff:\t0000000000000000\n".into(),
                "CapPrm:\t0000000000000000\n".into(),
                "CapAmb:\t0000000000000000\n".into(),
                "NoNewPrivs:\t1\n".into(),
                "Seccomp:\t2\n".into(),
            ] {
                assert!(status.contains(&line), "{folder:?}: {line} {status}");
            }
            let mut groups = status
                .lines()
                .filter_map(|line| line.strip_prefix("Groups:"));
            assert_eq!(groups.next().unwrap().trim(), "", "{folder:?}");
            threads += 1;
        }
        assert!(threads >= 2);
        // The engine needs the map of its own pages.
        let pages = std::fs::metadata(format!("/proc/{pid}/pagemap")).unwrap();
        assert_eq!(pages.uid(), user.uid);
    }
    let (_, actual) = node.listener(&served).await;
    assert!(tokio::net::TcpStream::connect(actual).await.is_ok());
    // It ends with its session, and how it ended is read from where its user wrote it.
    drop(session.stdin);
    assert_eq!(session.exit.await.unwrap(), 0);
    assert!(!node.folder.path().join("state").join(further).exists());
    // Nobody else may lead the processes, or say how their guests ended.
    let socket = node.folder.path().join("state").join(runner(&pod));
    let mode = std::fs::metadata(&socket).unwrap();
    assert_eq!(
        (mode.uid(), mode.gid(), mode.mode() & 0o777),
        (0, user.gid, 0o710)
    );
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    node.runtime
        .remove_pod_sandbox(&served.sandbox)
        .await
        .unwrap();
}

/// Reads a byte of `pw` in the second volume, appends it to `out` in the first, says `done`, and
/// exits with the number of an error.
const COPIES_A_SECRET: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "pw")
  (data (i32.const 8) "out")
  (data (i32.const 16) "\20\00\00\00\01\00\00\00")
  (data (i32.const 48) "\38\00\00\00\05\00\00\00done\n")
  (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
  (func (export "_start")
    (call $check (call $open (i32.const 4) (i32.const 1) (i32.const 0) (i32.const 2)
      (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 64)))
    (call $check (call $read (i32.load (i32.const 64)) (i32.const 16) (i32.const 1)
      (i32.const 72)))
    (call $check (call $open (i32.const 3) (i32.const 0) (i32.const 8) (i32.const 3)
      (i32.const 1) (i64.const 64) (i64.const 64) (i32.const 1) (i32.const 68)))
    (call $check (call $write (i32.load (i32.const 68)) (i32.const 16) (i32.const 1)
      (i32.const 72)))
    (call $check (call $write (i32.const 1) (i32.const 48) (i32.const 1) (i32.const 72)))))"#;

/// A file as a user reads it that begins in the node's folder, as guests do.
fn read_as(node: &Node, user: GuestUser, path: &Path) -> Output {
    let below = path.strip_prefix(node.folder.path()).unwrap();
    Command::new("cat")
        .arg(below)
        .current_dir(node.folder.path())
        .uid(user.uid)
        .gid(user.gid)
        .output()
        .unwrap()
}

pub(crate) async fn guests_keep_to_their_volumes_and_records() {
    if !is_root("guests_keep_to_their_volumes_and_records") {
        return;
    }
    let mut node = node_with_users().await;
    let user = node.runtime.guest_user("tests").unwrap().unwrap();
    let other = node.runtime.guest_user("others").unwrap().unwrap();
    assert_ne!(user.uid, other.uid);
    // As the kubelet makes the folders of a Pod.
    let pod = node.folder.path().join("pod");
    let (data, secret) = (pod.join("data"), pod.join("secret"));
    for (folder, mode) in [(&pod, 0o710), (&data, 0o777), (&secret, 0o755)] {
        std::fs::create_dir(folder).unwrap();
        chown(folder, None, Some(user.gid)).unwrap();
        set_mode(folder, mode);
    }
    std::fs::write(secret.join("pw"), "s").unwrap();
    chown(secret.join("pw"), None, Some(user.gid)).unwrap();
    set_mode(&secret.join("pw"), 0o440);
    let message = pod.join("message");
    std::fs::write(&message, "").unwrap();
    chown(&message, Some(user.uid), Some(user.gid)).unwrap();
    let mount = |host: &Path, inside: &str, read_only| Mount {
        host_path: host.to_owned(),
        container_path: inside.into(),
        read_only,
        ..Mount::default()
    };
    let image = node.image(COPIES_A_SECRET.as_bytes());
    let mut last = None;
    for _ in 0..2 {
        let (exit, of) = node
            .run(&image, |config| {
                config.mounts = vec![
                    mount(&data, "/data", false),
                    mount(&secret, "/secret", true),
                    mount(&secret.join("pw"), "/etc/pw", true),
                ];
                config.termination_message = Some(message.clone());
            })
            .await;
        assert_eq!(exit.code, 0, "{exit:?}");
        assert_eq!(entries(&of.log), ["stdout F done"]);
        last = Some(of);
    }
    assert_eq!(std::fs::read_to_string(data.join("out")).unwrap(), "ss");
    // A trap is told in the file of the last words.
    let (exit, _) = node
        .run(&node.sample("faults/trap.wasm"), |config| {
            config.termination_message = Some(message.clone());
        })
        .await;
    assert_eq!(exit.code, 134);
    assert_eq!(std::fs::read_to_string(&message).unwrap(), exit.message);

    let last = last.unwrap();
    let record = node
        .folder
        .path()
        .join("state/containers")
        .join(&last.container.0);
    let own = [
        data.join("out"),
        secret.join("pw"),
        record.join("guest/exit.json"),
        last.log,
    ];
    for path in &own {
        let read = read_as(&node, user, path);
        assert!(
            read.status.success() && !read.stdout.is_empty(),
            "{path:?} {read:?}"
        );
    }
    let private = [
        record.join("container.json"),
        node.folder.path().join("state/users.json"),
    ];
    let foreign = own[..3].iter().map(|path| (other, path));
    for (user, path) in foreign.chain(private.iter().map(|path| (user, path))) {
        assert!(path.exists());
        let read = read_as(&node, user, path);
        assert!(
            !read.status.success() && read.stdout.is_empty(),
            "{path:?} {read:?}"
        );
    }
    // Compiled code is everybody's to run and nobody's to change.
    for entry in walk(&node.config.cache_dir) {
        assert_eq!(entry.uid(), 0);
        assert_eq!(entry.mode() & 0o022, 0);
    }
    // The users are the same for the next agent.
    node.restart().await;
    assert_eq!(node.runtime.guest_user("others").unwrap(), Some(other));
    assert_eq!(node.runtime.guest_user("tests").unwrap(), Some(user));
}

fn walk(folder: &Path) -> Vec<std::fs::Metadata> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(walk(&path));
        }
        found.push(metadata);
    }
    found
}

pub(crate) async fn what_runs_as_another_user_is_not_taken_over() {
    if !is_root("what_runs_as_another_user_is_not_taken_over") {
        return;
    }
    let mut node = Node::new().await;
    let pod = node.start(&node.image(SLEEP.as_bytes()), |_| ()).await;
    let image = node.sample("hello-http/hello-http.wasm");
    let served = node.start(&image, |_| ()).await;
    node.config.guest_users = Some(USERS);
    node.restart().await;
    for pod in [&pod, &served] {
        let exit = node.exit(pod).await;
        assert!(exit.message.contains("ran as user 0"), "{}", exit.message);
        assert_eq!(exit.code, 137);
    }
    // What was compiled before can be read, and new guests run where old ones did.
    let (exit, _) = node
        .run(&node.sample("batch-hello/batch-hello.wasm"), |_| ())
        .await;
    assert_eq!(exit.code, 0, "{exit:?}");
    let again = node.start(&image, |_| ()).await;
    let (_, actual) = node.listener(&again).await;
    assert!(tokio::net::TcpStream::connect(actual).await.is_ok());
    node.restart().await;
    let state = node.state(&again).await;
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    node.runtime
        .remove_pod_sandbox(&again.sandbox)
        .await
        .unwrap();
}

/// A network namespace that lives as long as this does.
struct Namespace {
    path: PathBuf,
    _end: std::sync::mpsc::Sender<()>,
}

impl Namespace {
    fn new() -> Option<Self> {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            // SAFETY: no open files cease to be shared.
            let made = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
            let thread = rustix::thread::gettid().as_raw_nonzero();
            let of = std::process::id();
            let path = format!("/proc/{of}/task/{thread}/ns/net");
            tell.send(made.map(|()| path)).unwrap();
            // Until whoever asked for it is done.
            let _ = ended.recv();
        });
        match told.recv().unwrap() {
            Ok(path) => Some(Self {
                path: path.into(),
                _end: end,
            }),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "no namespace: {error}");
                eprintln!("SKIPPED: no network namespace can be made: {error}");
                None
            }
        }
    }
}

pub(crate) async fn guests_join_a_network_namespace_and_are_adopted_there_only() {
    if !is_root("guests_join_a_network_namespace_and_are_adopted_there_only") {
        return;
    }
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let mut node = node_with_users().await;
    let image = node.image(SLEEP.as_bytes());
    let before = node.start(&image, |_| ()).await;
    node.config.network_namespace = Some(namespace.path.clone());
    node.restart().await;
    let exit = node.exit(&before).await;
    assert!(
        exit.message.contains("another network namespace"),
        "{}",
        exit.message
    );

    let pod = node.start(&image, |_| ()).await;
    let served = node
        .start(&node.sample("hello-http/hello-http.wasm"), |_| ())
        .await;
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    for folder in [runner(&pod), "hosts/tests".into()] {
        let joined = format!("/proc/{}/ns/net", pid(&node, &folder));
        assert_eq!(inode(Path::new(&joined)), inode(&namespace.path));
    }
    assert_ne!(
        inode(&namespace.path),
        inode(Path::new("/proc/self/ns/net"))
    );
    node.restart().await;
    for pod in [&pod, &served] {
        let state = node.state(pod).await;
        assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    }
    node.config.network_namespace = None;
    node.restart().await;
    for pod in [&pod, &served] {
        let exit = node.exit(pod).await;
        assert!(
            exit.message.contains("another network namespace"),
            "{}",
            exit.message
        );
    }
}
