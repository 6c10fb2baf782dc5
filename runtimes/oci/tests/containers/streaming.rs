//! What goes into and out of containers: exec, attach, ports.

use std::pin::Pin;

use coracle_runtime::streaming::{ExecConfig, Session, TerminalSize, Wanted};
use coracle_runtime::{RuntimeService, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::node::{DEADLINE, Node, Pod, exit, finish};

const ALL: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: true,
};

async fn exec(node: &Node, pod: &Pod, script: &str, terminal: bool) -> Session {
    let config = ExecConfig {
        command: ["sh", "-c", script].map(str::to_owned).into(),
        terminal,
        wanted: ALL,
        kill_on_drop: false,
    };
    node.runtime.exec(&pod.container, config).await.unwrap()
}

/// Reads until a text has come.
async fn until(output: &mut Pin<Box<dyn AsyncRead + Send>>, text: &str) -> String {
    let mut read = Vec::new();
    let come = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            let n = output.read_buf(&mut read).await.unwrap();
            let read = String::from_utf8_lossy(&read);
            assert!(n > 0, "ended before {text:?}: {read}");
        }
    };
    tokio::time::timeout(DEADLINE, come)
        .await
        .unwrap_or_else(|_| panic!("{text:?} does not come"));
    String::from_utf8(read).unwrap()
}

pub(crate) async fn further_processes_have_streams_of_their_own() {
    let node = Node::new().await;
    let pod = node.start("sleep 1000", |_| ()).await;
    let mut session = exec(&node, &pod, "cat; echo oops >&2; exit 4", false).await;
    let mut stdin = session.stdin.take().unwrap();
    // More than a pipe holds.
    let text = "0123456789abcdef".repeat(1 << 16);
    let write = async {
        stdin.write_all(text.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let ((), (code, output)) = tokio::join!(write, finish(session));
    assert_eq!(code, 4);
    assert!(output == text + "oops\n", "{} bytes", output.len());
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn further_processes_may_run_on_a_terminal() {
    let node = Node::new().await;
    let pod = node.start("sleep 1000", |_| ()).await;
    let script = "tty; read go; stty size; exit 6";
    let mut session = exec(&node, &pod, script, true).await;
    let mut output = session.stdout.take().unwrap();
    until(&mut output, "/dev/pts/0").await;
    let resize = session.resize.take().unwrap();
    resize(TerminalSize {
        width: 132,
        height: 43,
    });
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    until(&mut output, "43 132").await;
    assert_eq!(session.exit.await.unwrap(), 6);
    // Whoever lets go of a terminal hangs up on what runs there.
    let mut session = exec(&node, &pod, "echo $$; exec sleep 1000", true).await;
    until(session.stdout.as_mut().unwrap(), "\n").await;
    drop((session.stdin, session.stdout, session.resize));
    let ended = tokio::time::timeout(DEADLINE, session.exit).await;
    assert_eq!(ended.unwrap().unwrap(), 128 + 1);
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn those_who_attach_hear_and_are_heard() {
    let node = Node::new().await;
    let script = "while read line; do echo got $line; done; echo end >&2";
    let pod = node
        .start(script, |config| {
            config.stdio = Stdio {
                stdin: true,
                once: true,
                terminal: false,
            };
        })
        .await;
    let listener = Wanted {
        stdin: false,
        ..ALL
    };
    let listener = node.runtime.attach(&pod.container, listener).await.unwrap();
    let mut session = node.runtime.attach(&pod.container, ALL).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    until(session.stdout.as_mut().unwrap(), "got two\n").await;
    drop(stdin);
    let (code, rest) = finish(session).await;
    assert_eq!((code, &*rest), (0, "end\n"));
    let (_, heard) = finish(listener).await;
    assert_eq!(heard, "got one\ngot two\nend\n");
    assert_eq!(exit(&node.runtime, &pod.container).await.code, 0);
    assert_eq!(pod.output(), "got one\ngot two\nend");
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn a_container_may_run_on_a_terminal() {
    let node = Node::new().await;
    let script = "test -t 0 && test -t 1 && test -c /dev/console && echo terminal; \
                  read line; until stty size | grep 99; do sleep 0.1; done; echo got $line";
    let pod = node
        .start(script, |config| {
            config.stdio = Stdio {
                stdin: true,
                once: false,
                terminal: true,
            };
        })
        .await;
    let mut session = node.runtime.attach(&pod.container, ALL).await.unwrap();
    assert!(session.stderr.is_none());
    // Nobody waits for the size: it may come after the line.
    session.resize.take().unwrap()(TerminalSize {
        width: 99,
        height: 11,
    });
    let mut more = node.runtime.attach(&pod.container, ALL).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"a line\n").await.unwrap();
    let heard = until(more.stdout.as_mut().unwrap(), "got a line").await;
    assert!(heard.contains("11 99"), "{heard}");
    assert_eq!(exit(&node.runtime, &pod.container).await.code, 0);
    // The terminal may echo the line before the program has come so far.
    assert!(pod.output().contains("terminal"), "{}", pod.output());
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn what_was_written_last_is_heard() {
    let node = Node::new().await;
    // Far more than pipes hold, and the end at once.
    let script = "read go; head -c 3000000 /dev/zero; echo end";
    let pod = node.start(script, |config| config.stdio.stdin = true).await;
    let mut session = node.runtime.attach(&pod.container, ALL).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    let (code, heard) = finish(session).await;
    assert_eq!(code, 0);
    assert_eq!(heard.len(), 3_000_000 + 4);
    assert!(heard.ends_with("end\n"));
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn ports_of_a_pod_are_reached_from_within() {
    let node = Node::new().await;
    let pod = node
        .start("nc -l -p 8080 -e sh -c 'read a; echo heard $a'", |_| ())
        .await;
    let connect = async {
        loop {
            match node.runtime.connect(&pod.sandbox, 8080).await {
                Ok(stream) => return stream.unwrap(),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut stream = tokio::time::timeout(DEADLINE, connect).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "heard hello\n");
    let Err(refused) = node.runtime.connect(&pod.sandbox, 8081).await else {
        panic!("nobody listens there");
    };
    assert!(refused.to_string().contains("8081"), "{refused}");
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}
