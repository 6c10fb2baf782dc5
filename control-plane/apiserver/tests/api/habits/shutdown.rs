//! The end of a server, over real sockets.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coracle_store::MemoryStore;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use super::times::connect;
use crate::harness::{Api, CONFIG_MAPS, DEADLINE};
use crate::tls::{Served, serve};

async fn send_new(served: &Served, path: &str) -> StatusCode {
    let stream = TokioIo::new(connect(served, b"http/1.1").await);
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
        .send_request(get(served, path))
        .await
        .unwrap()
        .status()
}

fn get(served: &Served, path: &str) -> Request<Body> {
    Request::get(format!("https://{}{path}", served.address))
        .header("host", served.address.to_string())
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn readiness_ends_first_then_watches_and_what_is_in_flight_is_served() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.shutdown.delay = Duration::from_secs(2);
    });
    let api = api.await;
    let mut served = serve(&api).await;

    let stream = TokioIo::new(connect(&served, b"http/1.1").await);
    let (mut http1, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let watching = format!("{CONFIG_MAPS}?watch=1&resourceVersion=1");
    let watch = http1.send_request(get(&served, &watching)).await.unwrap();
    assert_eq!(watch.status(), 200);

    let stream = TokioIo::new(connect(&served, b"h2").await);
    let (mut http2, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let goes_away = tokio::spawn(connection);
    // A write whose body comes slowly.
    let (body, rest) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let rest = tokio_stream_of(rest);
    let slow = Request::post(format!("https://{}{CONFIG_MAPS}", served.address))
        .header("content-type", "application/json")
        .body(Body::from_stream(rest))
        .unwrap();
    let text = json!({"metadata": {"name": "slow"}}).to_string();
    body.send(Ok(Bytes::from(text[..5].to_owned())))
        .await
        .unwrap();
    let slow = tokio::spawn(http2.send_request(slow));
    // It is in flight when the server counts it.
    let counted = async {
        let mutating = "apiserver_current_inflight_requests{request_kind=\"mutating\"} 1";
        while !api.get("/metrics").await.text.contains(mutating) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, counted).await.unwrap();

    served.cancel.cancel();
    // In the delay new connections are served, and told to look elsewhere.
    let failing = async {
        while !api.get("/readyz").await.text.contains("[-]shutdown failed") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, failing).await.unwrap();
    assert_eq!(send_new(&served, "/readyz").await, 500);
    assert_eq!(send_new(&served, CONFIG_MAPS).await, 200);
    assert_eq!(send_new(&served, "/livez").await, 200);

    // The watch ends in order: its last chunk is there.
    let ended = tokio::time::timeout(DEADLINE, watch.into_body().collect()).await;
    assert!(ended.unwrap().is_ok());
    assert!(!served.task.is_finished(), "a request is in flight");
    body.send(Ok(Bytes::from(text[5..].to_owned())))
        .await
        .unwrap();
    drop(body);
    let answer = tokio::time::timeout(DEADLINE, slow).await.unwrap().unwrap();
    assert_eq!(answer.unwrap().status(), 201);
    // The client was told to go, and the server has ended.
    drop(http2);
    tokio::time::timeout(DEADLINE, goes_away)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let ended = tokio::time::timeout(DEADLINE, &mut served.task).await;
    ended.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
    api.get(&format!("{CONFIG_MAPS}/slow")).await.ok(200);
}

/// A channel as a stream.
fn tokio_stream_of<T>(receiver: tokio::sync::mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    futures::stream::unfold(receiver, |mut receiver| async {
        let item = receiver.recv().await?;
        Some((item, receiver))
    })
}

#[tokio::test]
async fn requests_that_do_not_end_are_ended_with_the_server() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.shutdown.drain = Duration::from_millis(200);
    });
    let api = api.await;
    let served = serve(&api).await;
    let stream = TokioIo::new(connect(&served, b"http/1.1").await);
    let (mut http1, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (body, rest) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let stuck = Request::post(CONFIG_MAPS)
        .header("host", "a")
        .header("content-type", "application/json")
        .body(Body::from_stream(tokio_stream_of(rest)))
        .unwrap();
    let stuck = tokio::spawn(http1.send_request(stuck));
    body.send(Ok(Bytes::from_static(b"{"))).await.unwrap();
    served.cancel.cancel();
    let ended = tokio::time::timeout(DEADLINE, served.task).await;
    ended.unwrap().unwrap().unwrap();
    assert!(stuck.await.unwrap().is_err());
}
