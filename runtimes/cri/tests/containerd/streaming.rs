//! Streams into containers.

use coracle_runtime::streaming::{ExecConfig, TerminalSize, Wanted};
use coracle_runtime::{RuntimeService, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{DEADLINE, Node, exit, finish};

const ALL: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: true,
};

fn command(words: &[&str], terminal: bool) -> ExecConfig {
    ExecConfig {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        terminal,
        wanted: ALL,
        kill_on_drop: false,
    }
}

pub(crate) async fn further_processes_have_streams_of_their_own() {
    let node = Node::new().await;
    let pod = node.script("exec sleep 1000").await;
    let (code, said) = node
        .exec(&pod, &["sh", "-c", "echo out; echo err >&2; exit 7"])
        .await;
    assert_eq!((code, said.as_str()), (7, "out\nerr\n"));
    // Much more than lies in a pipe comes whole, and the end of an input is its end.
    let much = "0123456789abcdef".repeat(64 << 10);
    let exec = node.runtime.exec(&pod.container, command(&["cat"], false));
    let mut session = exec.await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let sent = much.clone();
    let sending = tokio::spawn(async move { stdin.write_all(sent.as_bytes()).await });
    let (code, came) = finish(session).await;
    sending.await.unwrap().unwrap();
    assert_eq!((code, came.len()), (0, much.len()));
    assert!(came == much);
    let (code, said) = node.exec(&pod, &["no-such-program"]).await;
    assert_eq!(code, -1);
    assert!(said.contains("no-such-program"), "{said}");
    // One that somebody waits for is killed when nobody does any more.
    let probe = |script: &str| ExecConfig {
        kill_on_drop: true,
        wanted: Wanted {
            stdin: false,
            ..ALL
        },
        ..command(&["sh", "-c", script], false)
    };
    let exec = node.runtime.exec(&pod.container, probe("echo out; exit 5"));
    assert_eq!(finish(exec.await.unwrap()).await, (5, "out\n".to_owned()));
    let begun = node
        .runtime
        .exec(&pod.container, probe("touch /begun; exec sleep 999"));
    let session = begun.await.unwrap();
    while node.exec(&pod, &["ls", "/begun"]).await.0 != 0 {}
    drop(session);
    let script = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '";
    let gone = async {
        while node
            .exec(&pod, &["sh", "-c", script])
            .await
            .1
            .contains("sleep 999")
        {}
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
    node.remove(&pod).await;
    let gone = node.runtime.exec(&pod.container, command(&["true"], false));
    assert!(gone.await.is_err());
    node.end().await;
}

pub(crate) async fn further_processes_may_run_on_a_terminal() {
    let node = Node::new().await;
    let pod = node.script("exec sleep 1000").await;
    let exec = node.runtime.exec(&pod.container, command(&["sh"], true));
    let mut session = exec.await.unwrap();
    assert!(session.stderr.is_none());
    let size = TerminalSize {
        width: 77,
        height: 33,
    };
    session.resize.as_ref().unwrap()(size);
    let mut stdin = session.stdin.take().unwrap();
    let script = b"until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; tty; exit 4\n";
    stdin.write_all(script).await.unwrap();
    let (code, said) = finish(session).await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("/dev/pts/"), "{said}");
    node.remove(&pod).await;
    node.end().await;
}

pub(crate) async fn those_who_attach_hear_and_are_heard() {
    let node = Node::new().await;
    let mut config = node.container_config("read line; echo heard $line; exit 6");
    config.stdio = Stdio {
        stdin: true,
        once: true,
        terminal: false,
    };
    let pod = node.run(node.sandbox_config(), config).await;
    let session = node.runtime.attach(&pod.container, ALL).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.unwrap(), session.stdout.unwrap());
    stdin.write_all(b"you\n").await.unwrap();
    let mut said = String::new();
    let heard = stdout.read_to_string(&mut said);
    tokio::time::timeout(DEADLINE, heard)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(said, "heard you\n");
    let code = tokio::time::timeout(DEADLINE, session.exit).await.unwrap();
    assert_eq!(code.unwrap(), 6);
    assert_eq!(exit(&node.runtime, &pod.container).await.code, 6);
    assert_eq!(pod.output(), "heard you");
    node.remove(&pod).await;
    node.end().await;
}
