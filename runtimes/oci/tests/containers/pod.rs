//! Pods under test, as the tests of each runtime of containers see them, and what busybox runs in
//! them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use coracle_runtime::streaming::{ExecConfig, Output, Session, Wanted};
use coracle_runtime::{ContainerId, ContainerState, Exit, RuntimeService, SandboxId};
use futures::StreamExt;
use tokio::io::AsyncReadExt;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// A program without libraries that is many.
pub(super) const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "cat", "chmod", "chown", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "ip",
    "ls", "mkdir", "mknod", "mount", "nc", "ps", "sh", "sleep", "stat", "stty", "su", "tail",
    "touch", "tr", "true", "tty", "unshare", "yes",
];

/// A Pod of one container.
pub(crate) struct Pod {
    pub(crate) sandbox: SandboxId,
    pub(crate) container: ContainerId,
    pub(crate) log: PathBuf,
}

impl Pod {
    /// What the container has written, without times.
    pub(crate) fn output(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap();
        let lines = log.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap());
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Runs a further process to its end: its code, and what it wrote.
pub(crate) async fn exec(
    runtime: &dyn RuntimeService,
    container: &ContainerId,
    command: &[&str],
) -> (i32, String) {
    let config = ExecConfig {
        command: command.iter().map(|arg| (*arg).to_owned()).collect(),
        terminal: false,
        wanted: Wanted {
            stdin: false,
            stdout: true,
            stderr: true,
        },
        kill_on_drop: false,
    };
    match runtime.exec(container, config).await {
        Ok(session) => finish(session).await,
        Err(error) => (-1, error.to_string()),
    }
}

/// The end of a session: its code, and what was written.
pub(crate) async fn finish(session: Session) -> (i32, String) {
    let read = async |output: Option<Output>| {
        let mut text = String::new();
        if let Some(mut output) = output {
            output.read_to_string(&mut text).await.unwrap();
        }
        text
    };
    let ended = async {
        let (out, errors) = (read(session.stdout), read(session.stderr));
        let (out, errors, code) = tokio::join!(out, errors, session.exit);
        match code {
            Ok(code) => (code, out + &errors),
            Err(error) => (-1, error.to_string()),
        }
    };
    tokio::time::timeout(DEADLINE, ended)
        .await
        .expect("the session ends")
}

/// Waits for an exit, woken by events.
pub(crate) async fn exit(runtime: &dyn RuntimeService, id: &ContainerId) -> Exit {
    let mut events = runtime.events();
    let wait = async {
        loop {
            let status = runtime.container_status(id).await.unwrap();
            if let ContainerState::Exited(exit) = status.state {
                return exit;
            }
            events.next().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .expect("the container ends")
}

/// A layer with busybox and its names, and more files.
pub(crate) fn archive(more: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let program = fs::read(BUSYBOX).unwrap();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    tar.append_data(&mut header, "bin/busybox", &program[..])
        .unwrap();
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\n";
    let files = [
        ("etc/passwd", 0o644, passwd),
        ("etc/group", 0o644, "logs:x:55:web\n"),
    ];
    for (path, mode, content) in files.iter().chain(more) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}
