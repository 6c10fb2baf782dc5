//! What comes over connections: both versions of HTTP, and requests that are too large for any.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use futures::{StreamExt, stream};
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Api, CONFIG_MAPS, DEADLINE};
use crate::tls::{Served, connect, serve};

/// The code and the body of the answer to a GET, as [`ask`] has them.
async fn get(served: &Served, h2: bool, path: &str, headers: &[(String, String)]) -> (u16, String) {
    ask(served, h2, Method::GET, path, headers).await
}

/// The code and the body of the answer to a request over a connection of its own; 0 where the
/// connection ended without one.
async fn ask(
    served: &Served,
    h2: bool,
    method: Method,
    path: &str,
    headers: &[(String, String)],
) -> (u16, String) {
    let admin = served.ca.sign("admin", &["system:masters"], &[]);
    let stream = TokioIo::new(connect(served, Some(admin), h2).await.unwrap());
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://{}{path}", served.address));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let answer = if h2 {
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(1 << 24);
        let (mut sender, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let host = served.address.to_string().parse().unwrap();
        request.headers_mut().insert("host", host);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    let Ok(answer) = answer else {
        return (0, String::new());
    };
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn large_headers_and_long_urls() {
    let api = Api::new().await;
    api.config_map("a").await;
    let served = serve(&api).await;
    for h2 in [false, true] {
        // Selectors of many values are long, and cookies and tokens are large.
        let values = "value-of-a-label,".repeat(3_500);
        let path = format!("{CONFIG_MAPS}?labelSelector=name%20in%20({values}a)");
        let headers = [("x-large".to_owned(), "y".repeat(100_000))];
        let (code, body) = get(&served, h2, &path, &headers).await;
        assert_eq!(code, 200, "HTTP/2: {h2}: {body}");
        let list: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(list["items"][0]["metadata"]["name"], "a");
        // What is larger is not read to its end.
        let long = [("x-large".to_owned(), "y".repeat(4 << 20))];
        let (code, _) = get(&served, h2, CONFIG_MAPS, &long).await;
        assert!(matches!(code, 0 | 431), "HTTP/2: {h2}: {code}");
        let many: Vec<(String, String)> = (0..20_000)
            .map(|n| (format!("x-{n}"), "y".repeat(100)))
            .collect();
        let (code, _) = get(&served, h2, CONFIG_MAPS, &many).await;
        assert!(matches!(code, 0 | 431), "HTTP/2: {h2}: {code}");
        // Nobody else is hurt.
        assert_eq!(get(&served, h2, "/version", &[]).await.0, 200);
    }
}

#[tokio::test]
async fn a_head_is_answered_without_a_body() {
    let api = Api::new().await;
    api.config_map("a").await;
    let served = serve(&api).await;
    let one = format!("{CONFIG_MAPS}/a");
    let watch = format!("{CONFIG_MAPS}?watch=1");
    for h2 in [false, true] {
        for (path, code) in [
            ("/livez", 200),
            ("/version", 200),
            (CONFIG_MAPS, 200),
            (one.as_str(), 200),
            (watch.as_str(), 200),
            ("/api/v1/nosuch", 404),
        ] {
            let answer = ask(&served, h2, Method::HEAD, path, &[]).await;
            assert_eq!(answer, (code, String::new()), "HTTP/2: {h2}: {path}");
        }
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_sent_to_its_end() {
    const CHUNKS: usize = 40;
    let api = Api::new().await;
    let served = serve(&api).await;
    let admin = served.ca.sign("admin", &["system:masters"], &[]);
    let stream = TokioIo::new(connect(&served, Some(admin), true).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::spawn(connection);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let chunks = stream::iter(0..CHUNKS).map(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::io::Error>(vec![b'a'; 64 << 10])
    });
    let request = Request::post(format!("https://{}/api/v1/nosuch", served.address))
        .body(Body::from_stream(chunks))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 404);
    answer.into_body().collect().await.unwrap();
    // More than fits between the two: the rest was read.
    assert_eq!(sent.load(Ordering::Relaxed), CHUNKS);
}

#[tokio::test]
async fn how_long_certificates_are_good_is_measured_with_each_request() {
    let api = Api::new().await;
    let served = serve(&api).await;
    for h2 in [false, true] {
        assert_eq!(get(&served, h2, "/version", &[]).await.0, 200);
    }
    let metrics = api.get("/metrics").await.text;
    let name = "apiserver_client_certificate_expiration_seconds";
    // Those of tests are good for longer than anybody plans.
    for line in [
        format!("{name}_bucket{{le=\"3.1104e+07\"}} 0"),
        format!("{name}_count 2"),
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn what_is_no_http() {
    let api = Api::new().await;
    let served = serve(&api).await;
    let admin = || served.ca.sign("admin", &["system:masters"], &[]);
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(70_000));
    let selector = format!(
        "GET {CONFIG_MAPS}?labelSelector={} HTTP/1.1\r\nhost: a\r\n\r\n",
        "a,".repeat(500_000)
    );
    let cases: [(&[u8], &[u16]); 12] = [
        (b"\r\n\r\n", &[0, 400]),
        (b"HELO\r\n\r\n", &[400]),
        (b"GET / HTTP/9.9\r\n\r\n", &[400, 505]),
        (b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx\0y: z\r\n\r\n", &[400]),
        (b"GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n", &[400]),
        (b"POST /api/v1/namespaces HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n", &[400]),
        (b"POST /api/v1/namespaces HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", &[400]),
        (b"POST /api/v1/namespaces HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", &[400]),
        (b"POST /api/v1/namespaces HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", &[400]),
        (long.as_bytes(), &[414]),
        (selector.as_bytes(), &[0, 414, 431]),
    ];
    for (bytes, codes) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let mut stream = connect(&served, Some(admin()), false).await.unwrap();
        // The server may end before all is sent.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer));
        let _ = read.await.expect("the connection ends in time");
        let answer = String::from_utf8_lossy(&answer);
        let code = answer.get(9..12).map_or(0, |code| code.parse().unwrap());
        assert!(codes.contains(&code), "{shown:?}: {answer}");
    }
    assert_eq!(get(&served, false, "/version", &[]).await.0, 200);
}

#[tokio::test]
async fn a_body_may_end_early_and_late() {
    let api = Api::new().await;
    let served = serve(&api).await;
    let admin = || served.ca.sign("admin", &["system:masters"], &[]);
    // The client goes away in the middle of a body.
    let mut stream = connect(&served, Some(admin()), false).await.unwrap();
    let half = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"metadata\":{{\"name\":\"half\"}}}}"
    );
    stream.write_all(half.as_bytes()).await.unwrap();
    drop(stream);
    // A body without end is cut at the limit, long before it is all sent.
    let mut stream = connect(&served, Some(admin()), false).await.unwrap();
    let head = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(chunk.as_bytes()).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    api.get(&format!("{CONFIG_MAPS}/half"))
        .await
        .fails(404, "NotFound");
    assert_eq!(get(&served, false, "/version", &[]).await.0, 200);
}
