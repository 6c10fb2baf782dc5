//! Further guests in a running container.

use coracle_runtime::identity::Identity;
use coracle_runtime::streaming::{ExecConfig, Session, Wanted};
use coracle_runtime::{Mount, RuntimeService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{DEADLINE, Node, Pod, entries};
use crate::programs::{ECHO, EXIT_3, HELLO, SILENT, SLEEP, SPIN, handler};

const ALL: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: true,
};

pub(crate) fn config(command: &[&str]) -> ExecConfig {
    ExecConfig {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        terminal: false,
        wanted: ALL,
        kill_on_drop: true,
    }
}

async fn open(node: &Node, pod: &Pod, command: &[&str]) -> Session {
    let session = node.runtime.exec(&pod.container, config(command)).await;
    session.unwrap()
}

/// Runs a command to its end, with this as its input: exit code, output and errors.
async fn run(node: &Node, pod: &Pod, command: &[&str], input: &[u8]) -> (i32, String, String) {
    let session = open(node, pod, command).await;
    let write = async {
        if let Some(mut stdin) = session.stdin {
            // It may not read.
            let _ = stdin.write_all(input).await;
        }
    };
    let (mut out, mut errors) = (String::new(), String::new());
    let read = async {
        if let Some(mut stdout) = session.stdout {
            stdout.read_to_string(&mut out).await.unwrap();
        }
    };
    let read_errors = async {
        if let Some(mut stderr) = session.stderr {
            stderr.read_to_string(&mut errors).await.unwrap();
        }
    };
    let all = async { tokio::join!(write, read, read_errors, session.exit).3 };
    let code = tokio::time::timeout(DEADLINE, all).await.unwrap();
    (code.unwrap(), out, errors)
}

pub(crate) async fn a_command_of_the_image_runs_beside_its_guest() {
    let node = Node::new().await;
    let layers: [(&str, &[u8]); 4] = [
        ("hello", HELLO.as_bytes()),
        ("echo", ECHO.as_bytes()),
        ("exit", EXIT_3.as_bytes()),
        (
            "trap",
            b"(module (memory (export \"memory\") 1) (func (export \"_start\") unreachable))",
        ),
    ];
    // Beside a command, and beside a guest that shares its process with others.
    for module in [SLEEP.to_owned(), handler(SILENT)] {
        let image = node.image_with(module.as_bytes(), &layers);
        let pod = node.start(&image, |_| ()).await;
        let ended = run(&node, &pod, &["hello"], b"").await;
        assert_eq!(ended, (0, "hello\n".into(), String::new()));
        // More than waits anywhere on the way.
        let text = "x".repeat(1 << 20);
        let ended = run(&node, &pod, &["echo"], text.as_bytes()).await;
        assert_eq!((ended.0, ended.1.len()), (0, text.len()));
        let ended = run(&node, &pod, &["exit"], b"").await;
        assert_eq!(ended, (3, String::new(), String::new()));
        let (code, _, errors) = run(&node, &pod, &["trap"], b"").await;
        assert!(
            code == 134 && errors.contains("unreachable"),
            "{code} {errors}"
        );
        // It is nobody else's.
        assert_eq!(entries(&pod.log), Vec::<String>::new());
        node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    }
}

pub(crate) async fn a_program_in_a_volume_runs_in_the_sandbox() {
    let node = Node::new().await;
    let volume = node.folder.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wasm-samples");
    let inspect = format!("{samples}/inspect/inspect.wasm");
    std::fs::copy(inspect, volume.join("inspect.wasm")).unwrap();
    std::fs::write(volume.join("note"), "from the volume").unwrap();
    let pod = node
        .start(&node.image(SLEEP.as_bytes()), |config| {
            config.env = vec![("COLOUR".into(), "red".into())];
            config.mounts = vec![Mount {
                host_path: volume.clone(),
                container_path: "/data".into(),
                read_only: true,
                ..Mount::default()
            }];
        })
        .await;
    let (code, out, errors) = run(&node, &pod, &["/data/inspect.wasm"], b"").await;
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(out.lines().any(|line| line == "COLOUR=red"), "{out}");
    let command = ["/data/inspect.wasm", "/data/note", "/etc/passwd"];
    let (code, out, errors) = run(&node, &pod, &command, b"").await;
    assert_eq!((code, out.as_str()), (1, "/data/note: from the volume\n"));
    assert!(errors.starts_with("/etc/passwd: "), "{errors}");
    // What is there now is run.
    std::fs::write(volume.join("inspect.wasm"), EXIT_3).unwrap();
    assert_eq!(run(&node, &pod, &command, b"").await.0, 3);
}

pub(crate) async fn what_is_no_command_says_so() {
    let node = Node::new().await;
    let http = handler(SILENT);
    let layers: [(&str, &[u8]); 2] = [("http", http.as_bytes()), ("text", b"no wasm")];
    let image = node.image_with(SLEEP.as_bytes(), &layers);
    let pod = node.start(&image, |_| ()).await;
    for (command, why) in [
        (&["sh", "-c", "ls"][..], "runs nothing but WebAssembly"),
        (&["/bin/tool.wasm"], "runs nothing but WebAssembly"),
        (&[], "runs nothing but WebAssembly"),
        (&["http"], "serves HTTP"),
        (&["text"], "text cannot run"),
    ] {
        let (code, out, errors) = run(&node, &pod, command, b"").await;
        assert_eq!((code, out.as_str()), (126, ""), "{command:?}");
        assert!(errors.contains(why), "{command:?}: {errors}");
    }
    let terminal = ExecConfig {
        terminal: true,
        ..config(&["sh"])
    };
    let session = node.runtime.exec(&pod.container, terminal).await.unwrap();
    let mut said = String::new();
    let mut stdout = session.stdout.unwrap();
    stdout.read_to_string(&mut said).await.unwrap();
    assert!(said.contains("no terminals"), "{said}");
    assert_eq!(session.exit.await.unwrap(), 126);
}

pub(crate) async fn sessions_end_with_their_container() {
    let node = Node::new().await;
    let layers: [(&str, &[u8]); 2] = [("echo", ECHO.as_bytes()), ("spin", SPIN.as_bytes())];
    let image = node.image_with(SLEEP.as_bytes(), &layers);
    let pod = node.start(&image, |_| ()).await;
    let mut sessions = Vec::new();
    for _ in 0..16 {
        sessions.push(open(&node, &pod, &["echo"]).await);
    }
    let refused = node.runtime.exec(&pod.container, config(&["echo"])).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("16 further commands"), "{refused}");
    sessions.pop();
    // Its place is free when it has ended.
    let spins = async {
        loop {
            match node.runtime.exec(&pod.container, config(&["spin"])).await {
                Ok(session) => return session,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let spins = tokio::time::timeout(DEADLINE, spins).await.unwrap();
    let removed = node.runtime.remove_pod_sandbox(&pod.sandbox);
    tokio::time::timeout(DEADLINE, removed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(spins.exit.await.unwrap(), 137);
    for session in sessions {
        let mut rest = Vec::new();
        let mut stdout = session.stdout.unwrap();
        stdout.read_to_end(&mut rest).await.unwrap();
        assert_eq!(session.exit.await.unwrap(), 137);
    }
    let gone = node.runtime.exec(&pod.container, config(&["echo"])).await;
    assert!(gone.is_err());
}

pub(crate) async fn a_further_guest_goes_as_soon_as_its_container() {
    let node = Node::new().await;
    let layers: [(&str, &[u8]); 1] = [("spin", SPIN.as_bytes())];
    let image = node.image_with(SLEEP.as_bytes(), &layers);
    let pod = node
        .start(&image, |config| config.oom_score_adj = Some(700))
        .await;
    let _session = open(&node, &pod, &["spin"]).await;
    let containers = node.folder.path().join("state/containers");
    let folders = std::fs::read_dir(containers.join(&pod.container.0)).unwrap();
    let scores: Vec<(String, String)> = folders
        .filter_map(|folder| {
            let folder = folder.unwrap();
            let (pid, _) = Identity::living(&folder.path()).ok().flatten()?;
            let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
            let name = folder.file_name().into_string().unwrap();
            Some((name, score.trim().to_owned()))
        })
        .collect();
    assert_eq!(scores.len(), 2, "{scores:?}");
    assert!(scores.iter().all(|(_, score)| score == "700"), "{scores:?}");
}
