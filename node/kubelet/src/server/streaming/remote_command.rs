//! Exec and attach over a WebSocket: each message begins with the number of a channel
//! (KEP-4006). Version 5 has beside version 4 a message that closes a channel; version 1 tells of
//! the end as text, and only if that was no success.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use coracle_runtime::streaming::{Input, Output, Resize, Session, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::socket::{Incoming, Outgoing, Socket};

const V5: &str = "v5.channel.k8s.io";
const V1: &str = "channel.k8s.io";
/// The protocols, see [`super::socket::Sockets::upgrade`].
pub(super) const PROTOCOLS: [&str; 3] = [V5, "v4.channel.k8s.io", V1];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Bytes of output in one message.
const CHUNK: usize = 32 << 10;
/// How long output may pause when the process has ended: one that it left behind may hold it open.
const DRAIN: Duration = Duration::from_secs(2);

/// What the end of a session means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The process was run for the client, who is told how it ended.
    Code,
    /// It is the container's, and its end is the container's.
    Detached,
}

/// Serves a session until the process ends or the client does.
pub(super) async fn serve(
    socket: Socket,
    protocol: &str,
    session: coracle_runtime::Result<Session>,
    ending: Ending,
) {
    let (incoming, outgoing, writer) = socket.split();
    let (closes, plain) = (protocol == V5, protocol == V1);
    let run = async move {
        let status = match session {
            Ok(session) => relay(incoming, &outgoing, session, closes, ending).await,
            Err(error) => Some(failure(&error)),
        };
        let text = status.and_then(|status| match plain {
            false => Some(status.to_string()),
            true => Some(status["message"].as_str()?.to_owned()),
        });
        if let Some(text) = text {
            outgoing.send(message(STATUS, text.as_bytes())).await;
        }
    };
    writer.beside(run).await;
}

/// Carries the streams; the status with which the session ends, if there is anybody to tell.
async fn relay(
    incoming: Incoming,
    outgoing: &Outgoing,
    session: Session,
    closes: bool,
    ending: Ending,
) -> Option<Value> {
    let Session {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    // Tells the client that there is something at the other end.
    outgoing.send(message(STDOUT, &[])).await;
    let (alive, mut quiet) = tokio::sync::watch::channel(());
    let output = async {
        let out = pump(stdout, STDOUT, outgoing, &alive);
        let errors = pump(stderr, STDERR, outgoing, &alive);
        tokio::join!(out, errors);
    };
    let ended = async {
        let mut output = std::pin::pin!(output);
        let mut exit = exit;
        let mut all = false;
        let end = loop {
            tokio::select! {
                end = &mut exit => break end,
                () = &mut output, if !all => all = true,
            }
        };
        // What it has written is on its way, and stays so as long as there is more.
        while !all {
            tokio::select! {
                () = &mut output => all = true,
                more = tokio::time::timeout(DRAIN, quiet.changed()) => all = more.is_err(),
            }
        }
        end
    };
    tokio::select! {
        end = ended => Some(match (end, ending) {
            (Err(error), _) => failure(&error),
            (Ok(_), Ending::Detached) | (Ok(0), _) => json!({"metadata": {}, "status": "Success"}),
            (Ok(code), Ending::Code) => exit_status(code),
        }),
        () = take(incoming, stdin, resize, closes) => None,
    }
}

/// Sends an output to the client until it ends.
async fn pump(
    output: Option<Output>,
    channel: u8,
    outgoing: &Outgoing,
    alive: &tokio::sync::watch::Sender<()>,
) {
    let Some(mut output) = output else { return };
    loop {
        let mut bytes = BytesMut::with_capacity(CHUNK);
        bytes.put_u8(channel);
        match output.read_buf(&mut bytes).await {
            Ok(n @ 1..) => {
                tracing::trace!(channel, n, "output");
                alive.send_replace(());
                if !outgoing.send(bytes.freeze()).await {
                    return;
                }
            }
            Ok(0) => return,
            Err(error) => {
                tracing::debug!(%error, "the output of a process broke");
                return;
            }
        }
    }
}

/// Does what the client says until it ends.
async fn take(
    mut incoming: Incoming,
    mut stdin: Option<Input>,
    resize: Option<Resize>,
    closes: bool,
) {
    while let Some(mut message) = incoming.next().await {
        if message.is_empty() {
            continue;
        }
        let content = message.split_off(1);
        match message[0] {
            STDIN => {
                if let Some(input) = &mut stdin
                    && input.write_all(&content).await.is_err()
                {
                    // It reads no more; what it still writes is of interest.
                    stdin = None;
                }
            }
            RESIZE => {
                let size = serde_json::from_slice::<TerminalSize>(&content);
                if let (Some(resize), Ok(size)) = (&resize, size) {
                    resize(size);
                }
            }
            CLOSE if closes && *content == [STDIN] => stdin = None,
            _ => {}
        }
    }
}

fn message(channel: u8, content: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(content.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(content);
    bytes.freeze()
}

fn failure(error: &coracle_runtime::Error) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": format!("Internal error occurred: {error}"),
        "code": 500,
        "details": {"causes": [{"message": error.to_string()}]},
    })
}

fn exit_status(code: i32) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}
