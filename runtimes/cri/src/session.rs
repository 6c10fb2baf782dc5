//! The streams of a process, from a runtime's server of streams: SPDY over a connection that was
//! HTTP, with the streams of Kubernetes' remote commands (`v4.channel.k8s.io`).
//!
//! A WebSocket of that version cannot say that an input has ended; a stream of SPDY can.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use coracle_runtime::spdy::{Decoder, Encoder, Frame};
use coracle_runtime::streaming::{Resize, Session, TerminalSize, Wanted};
use coracle_runtime::{Error, Result};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Bytes on their way in one stream.
const PIPE: usize = 64 << 10;
/// Bytes that are read at once.
const CHUNK: usize = 32 << 10;
/// Bytes that say how a process ended.
const STATUS: usize = 64 << 10;

/// Numbers of streams: a client's are odd.
const ERROR: u32 = 1;
const STDIN: u32 = 3;
const STDOUT: u32 = 5;
const STDERR: u32 = 7;
const RESIZE: u32 = 9;

type Stream = TokioIo<hyper::upgrade::Upgraded>;

/// A connection to a server of streams, and what keeps it going.
pub(crate) struct Connection {
    stream: Stream,
    http: AbortOnDropHandle<()>,
}

/// Connects to where the runtime says.
pub(crate) async fn connect(url: &str) -> Result<Connection> {
    let failed = |cause: String| {
        Error::io(
            "connecting to the container runtime's streams",
            io::Error::other(cause),
        )
    };
    let uri: http::Uri = url
        .parse()
        .map_err(|error| failed(format!("{url:?}: {error}")))?;
    let (host, port) = match (uri.scheme_str(), uri.host(), uri.port_u16()) {
        (Some("http"), Some(host), port) => (host, port.unwrap_or(80)),
        (Some("https"), ..) => {
            return Err(failed(
                "it serves them with TLS (enable_tls_streaming), which is not supported".into(),
            ));
        }
        _ => return Err(failed(format!("{url:?} is no URL of HTTP"))),
    };
    let host = host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| failed(format!("{host}:{port}: {error}")))?;
    let broken = |error: hyper::Error| failed(error.to_string());
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(broken)?;
    let http = AbortOnDropHandle::new(tokio::spawn(async move {
        // How it ends is seen by what it carries.
        let _ = connection.with_upgrades().await;
    }));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = http::Request::post(path)
        .header("host", authority)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| failed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let said = http_body_util::Limited::new(response.into_body(), STATUS);
        let said = said.collect().await.map(|body| body.to_bytes());
        let said = said.unwrap_or_default();
        return Err(failed(format!(
            "{status}: {}",
            String::from_utf8_lossy(&said)
        )));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    Ok(Connection {
        stream: TokioIo::new(upgraded),
        http,
    })
}

/// Who owns a session's tasks.
pub(crate) struct Owner<'a> {
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) detached: &'a CancellationToken,
}

/// The session of a connection. It ends with the process, when nobody holds any of it any more, or
/// with `kill_on_drop` when nobody waits for its end.
pub(crate) fn session(
    connection: Connection,
    wanted: Wanted,
    terminal: bool,
    kill_on_drop: bool,
    owner: &Owner<'_>,
) -> Session {
    let left = CancellationToken::new();
    let held = Arc::new(left.clone().drop_guard());
    let killed = CancellationToken::new();
    let kill = kill_on_drop.then(|| killed.clone().drop_guard());
    let pipe = |wanted: bool| {
        let (near, far) = wanted.then(|| tokio::io::duplex(PIPE)).unzip();
        let near = near.map(|pipe| Held {
            pipe,
            _held: held.clone(),
        });
        (near, far)
    };
    let (stdin, input) = pipe(wanted.stdin);
    let (stdout, output) = pipe(wanted.stdout);
    let (stderr, errors) = pipe(wanted.stderr && !terminal);
    let (sizes, resizes) = watch::channel(None);
    let carried = carry(
        connection,
        input,
        [output, errors],
        terminal.then_some(resizes),
    );
    let detached = owner.detached.clone();
    let (tell, told) = oneshot::channel();
    owner.tasks.spawn(async move {
        let ended = tokio::select! {
            ended = carried => ended,
            () = left.cancelled() => return,
            () = killed.cancelled() => return,
            () = detached.cancelled() => return,
        };
        // Nobody may wait for it.
        let _ = tell.send(ended);
    });
    let exit = async move {
        let _held = (held, kill);
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let ended = told.await.unwrap_or_else(|_| Err(gone()));
        let ended = ended.map_err(|error| Error::io("a process of a container", error))?;
        code(&ended)
    };
    Session {
        stdin: stdin.map(|pipe| Box::pin(pipe) as _),
        stdout: stdout.map(|pipe| Box::pin(pipe) as _),
        stderr: stderr.map(|pipe| Box::pin(pipe) as _),
        resize: terminal.then(|| -> Resize {
            // The latest size counts.
            Arc::new(move |size| {
                sizes.send_replace(Some(size));
            })
        }),
        exit: Box::pin(exit),
    }
}

/// Carries bytes until the server has said how the process ended, and all that it wrote has come.
async fn carry(
    connection: Connection,
    stdin: Option<DuplexStream>,
    outputs: [Option<DuplexStream>; 2],
    resizes: Option<watch::Receiver<Option<TerminalSize>>>,
) -> io::Result<Vec<u8>> {
    let Connection { stream, http } = connection;
    let _http = http;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut encoder = Encoder::default();
    let [stdout, stderr] = &outputs;
    for (number, kind, wanted) in [
        (ERROR, "error", true),
        (STDIN, "stdin", stdin.is_some()),
        (STDOUT, "stdout", stdout.is_some()),
        (STDERR, "stderr", stderr.is_some()),
        (RESIZE, "resize", resizes.is_some()),
    ] {
        if wanted {
            let opened = encoder.open(number, &[("streamtype", kind)]);
            writer.write_all(&opened).await?;
        }
    }
    // Answers to pings.
    let (answers, to_send) = mpsc::channel(16);
    tokio::select! {
        ended = hear(reader, outputs, answers) => ended,
        error = say(writer, stdin, resizes, to_send) => Err(error),
    }
}

/// Hears what the server says, until it has said all.
async fn hear(
    mut reader: ReadHalf<Stream>,
    outputs: [Option<DuplexStream>; 2],
    answers: mpsc::Sender<Bytes>,
) -> io::Result<Vec<u8>> {
    let [mut stdout, mut stderr] = outputs;
    // One whose reader is gone is still written by the process, and is open until that ends.
    let mut open = [true, stdout.is_some(), stderr.is_some()];
    let mut status = Vec::new();
    let mut decoder = Decoder::new();
    let mut came = BytesMut::with_capacity(CHUNK);
    while open.contains(&true) {
        came.clear();
        if reader.read_buf(&mut came).await? == 0 {
            break;
        }
        decoder.put(&came);
        while let Some(frame) = decoder.next().map_err(io::Error::other)? {
            let (stream, bytes, last) = match frame {
                Frame::Data {
                    stream,
                    bytes,
                    last,
                } => (stream, bytes, last),
                Frame::Reset { stream } => (stream, Bytes::new(), true),
                Frame::Ping { id } => {
                    // An odd one would be ours.
                    if id % 2 == 0 {
                        let _ = answers.send(Encoder::ping(id)).await;
                    }
                    continue;
                }
                Frame::Open { .. } | Frame::GoAway | Frame::Other => continue,
            };
            let (index, output) = match stream {
                ERROR => {
                    let room = STATUS.saturating_sub(status.len());
                    status.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    open[0] &= !last;
                    continue;
                }
                STDOUT => (1, &mut stdout),
                STDERR => (2, &mut stderr),
                _ => continue,
            };
            let broken = match output {
                Some(pipe) => pipe.write_all(&bytes).await.is_err(),
                None => false,
            };
            if broken || last {
                *output = None;
            }
            open[index] &= !last;
        }
    }
    match status.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(status),
    }
}

/// Sends what is to be sent for as long as the server takes it; the error is why it does not.
async fn say(
    mut writer: WriteHalf<Stream>,
    mut stdin: Option<DuplexStream>,
    mut resizes: Option<watch::Receiver<Option<TerminalSize>>>,
    mut answers: mpsc::Receiver<Bytes>,
) -> io::Error {
    let mut came = BytesMut::with_capacity(CHUNK);
    loop {
        came.clear();
        let frame = tokio::select! {
            Some(answer) = answers.recv() => answer,
            read = read(&mut stdin, &mut came) => {
                let last = read == 0;
                if last {
                    stdin = None;
                }
                Encoder::data(STDIN, &came, last)
            }
            size = size(&mut resizes) => match serde_json::to_vec(&size) {
                Ok(size) => Encoder::data(RESIZE, &size, false),
                Err(error) => return error.into(),
            },
        };
        if let Err(error) = writer.write_all(&frame).await {
            return error;
        }
    }
}

/// What comes of an input, if there is one; what cannot be read has ended.
async fn read(stdin: &mut Option<DuplexStream>, into: &mut BytesMut) -> usize {
    match stdin {
        Some(stdin) => stdin.read_buf(into).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

async fn size(resizes: &mut Option<watch::Receiver<Option<TerminalSize>>>) -> TerminalSize {
    if let Some(resizes) = resizes {
        while resizes.changed().await.is_ok() {
            if let Some(size) = *resizes.borrow_and_update() {
                return size;
            }
        }
    }
    std::future::pending().await
}

/// How a process ended, as a `Status` of Kubernetes says it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Ended {
    status: String,
    reason: String,
    message: String,
    details: Details,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

fn code(status: &[u8]) -> Result<i32> {
    let ended: Ended = serde_json::from_slice(status)
        .map_err(|_| Error::Start(String::from_utf8_lossy(status).into_owned()))?;
    if ended.status == "Success" {
        return Ok(0);
    }
    let mut causes = ended.details.causes.iter();
    let code = causes.find(|cause| cause.reason == "ExitCode");
    let code = code.and_then(|cause| cause.message.parse().ok());
    match code.filter(|_| ended.reason == "NonZeroExitCode") {
        Some(code) => Ok(code),
        None => Err(Error::Start(ended.message)),
    }
}

/// A stream of a session, which is there for as long as any of its streams is held.
struct Held {
    pipe: DuplexStream,
    _held: Arc<DropGuard>,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, into)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_how_a_process_ended() {
        let success = br#"{"metadata":{},"status":"Success"}"#;
        assert_eq!(code(success).unwrap(), 0);
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"m",
            "details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(code(failed).unwrap(), 7);
        let never = br#"{"status":"Failure","reason":"InternalError","message":"no such file"}"#;
        let error = code(never).unwrap_err();
        assert_eq!(error.to_string(), "no such file");
        assert!(code(b"what").is_err());
    }
}
