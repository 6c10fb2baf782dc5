//! The call against a server, and its messages as bytes.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

/// What a server answers: a status of HTTP, a message, and the trailers.
type Answer = (u16, &'static [u8], &'static [(&'static str, &'static str)]);

/// Asks a server that answers so.
async fn ask(answer: Answer) -> Result<(), String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let serve = service_fn(move |request: http::Request<Incoming>| async move {
        assert_eq!(request.uri().path(), PATH);
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03abc");
        let (status, data, trailers) = answer;
        let mut ends = HeaderMap::new();
        for (name, value) in trailers {
            ends.insert(*name, value.parse().unwrap());
        }
        let frames = [Frame::data(Bytes::from_static(data)), Frame::trailers(ends)];
        let frames = frames.map(Ok::<_, std::convert::Infallible>);
        let response = http::Response::builder().status(status);
        response.body(StreamBody::new(futures::stream::iter(frames)))
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let serving = tokio::spawn(server.serve_connection(TokioIo::new(far), serve));
    let answered = verdict(check(near, "pod:1", "http", "abc").await);
    // The connection ends with the call.
    let ended = tokio::time::timeout(Duration::from_secs(30), serving).await;
    let _ = ended.expect("the client lets go");
    answered
}

#[tokio::test]
async fn only_serving_is_healthy() {
    const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    assert_eq!(ask((200, SERVING, OK)).await, Ok(()));
    let unhealthy: [(Answer, &str); 9] = [
        (
            (200, &[0, 0, 0, 0, 2, 8, 2], OK),
            "service unhealthy (responded with \"NOT_SERVING\")",
        ),
        (
            (200, &[0, 0, 0, 0, 0], OK),
            "service unhealthy (responded with \"UNKNOWN\")",
        ),
        (
            (
                200,
                &[],
                &[("grpc-status", "5"), ("grpc-message", "unknown%20service")],
            ),
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
        ),
        (
            (
                200,
                &[],
                &[("grpc-status", "12"), ("grpc-message", "no such thing")],
            ),
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): no such thing",
        ),
        (
            (404, &[], &[]),
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): unexpected HTTP status code received from server: 404 (Not \
             Found)",
        ),
        (
            (200, SERVING, &[]),
            "error: health rpc probe failed: rpc error: code = Internal desc = server closed the \
             stream without sending trailers",
        ),
        (
            (200, &[0, 0, 0, 0, 9, 8, 1], OK),
            "error: health rpc probe failed: rpc error: code = Internal desc = the answer is not one \
             message",
        ),
        (
            (200, &[0, 0, 0, 0, 1, 8], OK),
            "error: health rpc probe failed: rpc error: code = Internal desc = the answer is no \
             HealthCheckResponse",
        ),
        (
            (200, &[0; MAX_ANSWER + 1], OK),
            "error: health rpc probe failed: rpc error: code = Internal desc = the answer is too \
             long",
        ),
    ];
    for (answer, said) in unhealthy {
        assert_eq!(ask(answer).await, Err(said.to_owned()));
    }
}

#[tokio::test]
async fn what_speaks_no_http2_is_told() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    tokio::io::AsyncWriteExt::write_all(&mut far, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    let error = verdict(check(near, "pod:1", "http", "").await).unwrap_err();
    let begins = "error: health rpc probe failed: rpc error: code = Unavailable desc = connection";
    assert!(error.starts_with(begins), "{error}");
}

#[test]
fn messages_are_written_and_read_as_protobuf() {
    assert_eq!(request(""), b"");
    let long = request(&"x".repeat(300));
    assert_eq!(&long[..3], b"\x0a\xac\x02");
    assert_eq!(long.len(), 303);
    for (message, status) in [
        (&b"\x08\x01"[..], Some(1)),
        // Fields of later versions are passed over.
        (
            b"\x12\x02hi\x1d\0\0\0\0\x21\0\0\0\0\0\0\0\0\x28\x07\x08\x02",
            Some(2),
        ),
        (b"\x08", None),
    ] {
        assert_eq!(serving(message), status, "{message:?}");
    }
}
