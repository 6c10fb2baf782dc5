//! Exec and attach: what goes on between a client and a process.
//!
//! How that is said is one of two things: messages of a WebSocket, each of a channel ([`channels`]), or
//! frames of SPDY, which are of streams ([`streams`]). Each forms what is sent ([`Speak`]) and
//! understands what comes ([`Listen`]), without I/O; the session itself knows neither.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_runtime::streaming::{Input, Output, Resize, Session, TerminalSize, Wanted};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::socket::{CHUNK, FINISH, GOODBYE, Incoming, Outgoing, Socket};
use super::upgrade::Protocols;

mod channels;
mod streams;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V1: &str = "channel.k8s.io";
/// The protocols, see [`super::upgrade::Sockets::upgrade`].
pub(super) const PROTOCOLS: Protocols = Protocols {
    websocket: &[V5, V4, V1],
    spdy: &[V4, V3, V2, V1],
};

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

/// What a client has asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) wanted: Wanted,
    pub(super) terminal: bool,
}

/// The streams between a client and a process, by the numbers of their channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamType {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// Says how the session ended.
    Error = 3,
    /// The sizes of the client's terminal.
    Resize = 4,
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Input(Bytes),
    InputEnds,
    Size(TerminalSize),
    /// Something that has nothing to do with the session, to which this is the answer.
    Aside(Bytes),
    /// It has no more to say, or nothing that can be understood.
    Ends,
}

/// Understands what a client sends.
trait Listen {
    /// Takes a message.
    fn put(&mut self, message: Bytes);

    /// What is said next; none: the rest is in messages to come.
    fn next(&mut self) -> Option<Said>;
}

/// Forms the messages that a client is sent; none where it is not told.
trait Speak {
    /// There is something at the other end.
    fn begin(&self) -> Option<Bytes>;

    /// Bytes of an output.
    fn output(&self, of: StreamType, bytes: &[u8]) -> Option<Bytes>;

    /// The session ended like this.
    fn end(&self, status: &Value) -> Vec<Bytes>;
}

/// Serves a session until the process ends or the client does. It begins when the client is ready.
pub(super) async fn serve(
    socket: Socket,
    protocol: &'static str,
    asked: Asked,
    session: impl Future<Output = coracle_runtime::Result<Session>>,
    ending: Ending,
) {
    let patience = match ending {
        Ending::Code => OWN,
        Ending::Detached => SHARED,
    };
    let spdy = matches!(socket, Socket::Spdy(_));
    let (mut incoming, outgoing, writer) = socket.split(patience);
    let run = async move {
        let told = if spdy {
            match streams::opened(&mut incoming, &outgoing, protocol, asked).await {
                Some((listener, speaker)) => {
                    let client = Client(&mut incoming, &outgoing, listener, speaker);
                    converse(client, session, ending).await
                }
                None => false,
            }
        } else {
            let (listener, speaker) = channels::of(protocol);
            let client = Client(&mut incoming, &outgoing, listener, speaker);
            converse(client, session, ending).await
        };
        (incoming, if told { FINISH } else { GOODBYE })
    };
    writer.beside(run).await;
}

/// What a client sends and is sent, and how.
struct Client<'a, L, S>(&'a mut Incoming, &'a Outgoing, L, S);

/// Whether the client was told the end.
async fn converse<L: Listen, S: Speak>(
    mut client: Client<'_, L, S>,
    session: impl Future<Output = coracle_runtime::Result<Session>>,
    ending: Ending,
) -> bool {
    let status = match session.await {
        Ok(session) => relay(&mut client, session, ending).await,
        Err(error) => Some(failure(&error)),
    };
    let Client(_, outgoing, _, speaker) = client;
    let Some(status) = status else { return false };
    for message in speaker.end(&status) {
        if !outgoing.send(message).await {
            return false;
        }
    }
    true
}

/// Carries the streams; the status with which the session ends, if there is anybody to tell.
async fn relay<L: Listen, S: Speak>(
    client: &mut Client<'_, L, S>,
    session: Session,
    ending: Ending,
) -> Option<Value> {
    let Client(incoming, outgoing, listener, speaker) = client;
    let (outgoing, speaker): (&Outgoing, &S) = (*outgoing, &*speaker);
    let Session {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    if let Some(message) = speaker.begin() {
        outgoing.send(message).await;
    }
    let (gone, _) = watch::channel(false);
    let ended = async {
        let exit = async {
            let end = exit.await;
            gone.send_replace(true);
            end
        };
        let stdout_message = |bytes: &[u8]| speaker.output(StreamType::Stdout, bytes);
        let stderr_message = |bytes: &[u8]| speaker.output(StreamType::Stderr, bytes);
        let out = pump(stdout, stdout_message, outgoing, gone.subscribe());
        let errors = pump(stderr, stderr_message, outgoing, gone.subscribe());
        tokio::join!(exit, out, errors).0
    };
    tokio::select! {
        end = ended => Some(match (end, ending) {
            (Err(error), _) => failure(&error),
            (Ok(_), Ending::Detached) | (Ok(0), _) => json!({"metadata": {}, "status": "Success"}),
            (Ok(code), Ending::Code) => exit_status(code),
        }),
        () = take(incoming, outgoing, listener, stdin, resize) => None,
    }
}

/// Sends an output to the client until it ends, or says nothing more once its process is `gone`. How
/// long the client takes is no pause of the output.
async fn pump(
    output: Option<Output>,
    form: impl Fn(&[u8]) -> Option<Bytes>,
    outgoing: &Outgoing,
    mut gone: watch::Receiver<bool>,
) {
    let Some(mut output) = output else { return };
    let mut bytes = BytesMut::with_capacity(CHUNK);
    loop {
        bytes.clear();
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
                if let Some(message) = form(&bytes)
                    && !outgoing.send(message).await
                {
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
    outgoing: &Outgoing,
    listener: &mut impl Listen,
    mut stdin: Option<Input>,
    resize: Option<Resize>,
) {
    loop {
        while let Some(said) = listener.next() {
            match said {
                Said::Input(bytes) => {
                    if let Some(input) = &mut stdin
                        && input.write_all(&bytes).await.is_err()
                    {
                        // It reads no more; what it still writes is of interest.
                        stdin = None;
                    }
                }
                Said::InputEnds => stdin = None,
                Said::Size(size) => {
                    if let Some(resize) = &resize {
                        resize(size);
                    }
                }
                Said::Aside(answer) => {
                    if !outgoing.send(answer).await {
                        return;
                    }
                }
                Said::Ends => return,
            }
        }
        let Some(message) = incoming.next().await else {
            return;
        };
        listener.put(message);
    }
}

/// A status as it is told: as JSON, or plainly, and then of failures alone.
fn text(status: &Value, plain: bool) -> Option<String> {
    match plain {
        false => Some(status.to_string()),
        true => Some(status["message"].as_str()?.to_owned()),
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
