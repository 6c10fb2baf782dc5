//! Volumes below other volumes.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use coracle_runtime::{Mount, RuntimeService};

use crate::node::{DEADLINE, Node};
use crate::users::RANGE;

const RUNS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

pub(crate) async fn links_in_a_volume_lead_no_other_out_of_it() {
    let node = Node::new().await;
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let folder = node.folder.path().canonicalize().unwrap();
    let [outer, inner, machine] = ["outer", "inner", "machine"].map(|name| folder.join(name));
    for path in [&outer, &inner, &machine] {
        fs::create_dir(path).unwrap();
    }
    // In place of the root it would be where devices and links are made.
    symlink(&machine, inner.join("dev")).unwrap();
    let link = outer.join("b");
    for users in [None, Some(RANGE)] {
        let mut sandbox = node.sandbox_config();
        sandbox.namespaces.users = users;
        let id = node.runtime.run_pod_sandbox(sandbox).await.unwrap();
        let cases = [
            ("/", "/a/b"),
            ("/", "/a/b/made"),
            ("/", "/a/../a/b"),
            ("..", "/a/b"),
            ("/dev", "/a/b"),
            ("/proc", "/a/b"),
            ("../machine", "/a/b"),
        ];
        for (number, (target, path)) in cases.into_iter().enumerate() {
            symlink(target, &link).unwrap();
            let mut container = node.container_config("true");
            container.name = format!("c{number}");
            container.log_path = format!("c{number}/0.log").into();
            container.mounts = [("/a", &outer), (path, &inner)]
                .map(|(path, source)| Mount {
                    host_path: source.clone(),
                    container_path: path.into(),
                    ..Mount::default()
                })
                .into();
            let created = node.runtime.create_container(&id, container).await;
            let error = node.runtime.start_container(&created.unwrap()).await;
            let error = error.unwrap_err().to_string();
            let why = "its path leads out of the volume in which it lies";
            assert!(error.contains(why), "{target} {path}: {error}");
            fs::remove_file(&link).unwrap();
        }
        node.runtime.remove_pod_sandbox(&id).await.unwrap();
    }
    assert_eq!(fs::read_dir(&machine).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&outer).unwrap().count(), 0);
}

pub(crate) async fn volumes_lie_below_volumes_with_rights_of_their_own() {
    let node = Node::new().await;
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let folder = node.folder.path().canonicalize().unwrap();
    let script = "set -e; echo b > /a/b/made; touch /a/b/c/x 2>/dev/null && exit 7; cat /a/b/c/x; \
                  echo near > /a/near/d/made; cat /a/files/file; \
                  echo ro > /ro/in/made; touch /ro/x 2>/dev/null && exit 8; \
                  echo rro > /rro/in/made; touch /rro/x 2>/dev/null && exit 9; \
                  echo shm > /dev/shm/in/made; echo end";
    for users in [None, Some(RANGE)] {
        let own = folder.join(match users {
            None => "machine",
            Some(_) => "own",
        });
        for path in [
            "a/real", "b", "c", "d", "ro/in", "rro/in", "in", "in2", "shm", "in3",
        ] {
            fs::create_dir_all(own.join(path)).unwrap();
        }
        fs::write(own.join("c/x"), "there\n").unwrap();
        fs::write(own.join("file"), "content\n").unwrap();
        symlink("real", own.join("a/near")).unwrap();
        let mount = |source: &str, path: &str| Mount {
            host_path: own.join(source),
            container_path: path.into(),
            read_only: matches!(source, "c" | "ro" | "rro"),
            recursive_read_only: source == "rro",
            ..Mount::default()
        };
        let mut sandbox = node.sandbox_config();
        sandbox.namespaces.users = users;
        let id = node.runtime.run_pod_sandbox(sandbox.clone()).await.unwrap();
        let mut container = node.container_config(&format!("{script}; {RUNS}"));
        container.mounts = vec![
            mount("a", "/a"),
            mount("b", "/a/b"),
            mount("c", "/a/b/c"),
            mount("d", "/a/near/d"),
            mount("file", "/a/files/file"),
            mount("ro", "/ro"),
            mount("in", "/ro/in"),
            mount("rro", "/rro"),
            mount("in2", "/rro/in"),
            mount("shm", "/dev/shm"),
            mount("in3", "/dev/shm/in"),
        ];
        let pod = node.start_in(&id, &sandbox, container).await;
        let said = async {
            while !pod.output().lines().any(|line| line == "end") {
                tokio::task::yield_now().await;
            }
        };
        let heard = tokio::time::timeout(DEADLINE, said).await;
        assert!(heard.is_ok(), "{}", pod.output());
        assert_eq!(pod.output().trim_end(), "there\ncontent\nend");
        // A further process is among the same files.
        let (code, seen) = node.exec(&pod, &["cat", "/a/b/made"]).await;
        assert_eq!((code, seen.trim_end()), (0, "b"));
        let stopped = node.runtime.stop_container(&pod.container, DEADLINE).await;
        stopped.unwrap();
        node.runtime.remove_pod_sandbox(&id).await.unwrap();
        for (path, content) in [
            ("b/made", "b\n"),
            ("d/made", "near\n"),
            ("in/made", "ro\n"),
            ("in2/made", "rro\n"),
            ("in3/made", "shm\n"),
            ("a/files/file", ""),
        ] {
            assert_eq!(fs::read_to_string(own.join(path)).unwrap(), content);
        }
        // Where they were mounted is of root, whoever's users the Pod has.
        for made in ["a/b", "a/real/d", "a/files", "a/files/file", "b/c"] {
            assert_eq!(fs::metadata(own.join(made)).unwrap().uid(), 0, "{made}");
        }
        assert_eq!(fs::read_dir(own.join("a/b")).unwrap().count(), 0);
    }
}
