//! Exec and attach over a WebSocket: each message begins with the number of a channel
//! (KEP-4006). Version 5 has beside version 4 a message that closes a channel; version 1 tells of
//! the end as text, and only if that was no success.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use coracle_runtime::streaming::{Input, Output, Resize, Session, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::socket::{CHUNK, Incoming, Outgoing, Socket, framed};

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

/// How long output may pause when the process has ended: one that it left behind may hold it open.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a client may pause that has a process of its own, as the kubelet's
/// `streamingConnectionIdleTimeout` is.
const OWN: Duration = Duration::from_secs(4 * 60 * 60);
/// How long one may that hears a container, which others hear too.
const SHARED: Duration = Duration::from_secs(60);

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
    let patience = match ending {
        Ending::Code => OWN,
        Ending::Detached => SHARED,
    };
    let (mut incoming, outgoing, writer) = socket.split(patience);
    let (closes, plain) = (protocol == V5, protocol == V1);
    let run = async move {
        let status = match session {
            Ok(session) => relay(&mut incoming, &outgoing, session, closes, ending).await,
            Err(error) => Some(failure(&error)),
        };
        let text = status.and_then(|status| match plain {
            false => Some(status.to_string()),
            true => Some(status["message"].as_str()?.to_owned()),
        });
        if let Some(text) = text {
            outgoing.send(framed(STATUS, text.as_bytes())).await;
        }
        incoming
    };
    writer.beside(run).await;
}

/// Carries the streams; the status with which the session ends, if there is anybody to tell.
async fn relay(
    incoming: &mut Incoming,
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
    outgoing.send(framed(STDOUT, &[])).await;
    let (gone, _) = watch::channel(false);
    let ended = async {
        let exit = async {
            let end = exit.await;
            gone.send_replace(true);
            end
        };
        let out = pump(stdout, STDOUT, outgoing, gone.subscribe());
        let errors = pump(stderr, STDERR, outgoing, gone.subscribe());
        tokio::join!(exit, out, errors).0
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

/// Sends an output to the client until it ends, or says nothing more once its process is `gone`. How
/// long the client takes is no pause of the output.
async fn pump(
    output: Option<Output>,
    channel: u8,
    outgoing: &Outgoing,
    mut gone: watch::Receiver<bool>,
) {
    let Some(mut output) = output else { return };
    loop {
        let mut bytes = BytesMut::with_capacity(CHUNK);
        bytes.put_u8(channel);
        let quiet = async {
            // It is told before its sender goes.
            let _ = gone.wait_for(|gone| *gone).await;
            tokio::time::sleep(DRAIN).await;
        };
        let read = tokio::select! {
            biased;
            read = output.read_buf(&mut bytes) => read,
            () = quiet => return,
        };
        match read {
            Ok(1..) => {
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
    incoming: &mut Incoming,
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
