use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn check(service: &str, local_endpoints: usize) -> Check {
    Check {
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        local_endpoints,
    }
}

fn body(service: &str, local_endpoints: usize) -> String {
    [
        "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"",
        service,
        "\"\n\t},\n\t\"localEndpoints\": ",
        &local_endpoints.to_string(),
        ",\n\t\"serviceProxyHealthy\": true\n}",
    ]
    .concat()
}

/// A port that is free, and held until the listener is dropped.
async fn held_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Head and body of what is answered, until the connection is closed.
async fn ask(port: u16, path: &str) -> io::Result<(String, String)> {
    // From another address: who calls a closed port over and over may come to call from that port,
    // and then reaches itself.
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
    let mut stream = socket
        .connect(SocketAddr::from(([127, 0, 0, 1], port)))
        .await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(text.clone()))?;
    Ok((head.to_owned(), body.to_owned()))
}

/// Asks until the body is the expected one; `None` is a refused connection. Returns the head.
async fn until(port: u16, expected: Option<&str>) -> String {
    tokio::time::timeout(DEADLINE, async {
        loop {
            match (ask(port, "/").await, expected) {
                (Ok((head, body)), Some(expected)) if body == expected => return head,
                (Err(_), None) => return String::new(),
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{expected:?} did not come"))
}

#[tokio::test]
async fn a_balancer_hears_how_many_endpoints_there_are() {
    let (held, port) = held_port().await;
    drop(held);
    let mut checks = HealthChecks::new([127, 0, 0, 1].into());
    let steps = [
        ("web", 0, "HTTP/1.1 503 Service Unavailable\r\n"),
        ("web", 2, "HTTP/1.1 200 OK\r\n"),
        ("other", 1, "HTTP/1.1 200 OK\r\n"),
    ];
    for (service, count, status) in steps {
        checks.update(BTreeMap::from([(port, check(service, count))]));
        let head = until(port, Some(&body(service, count))).await;
        assert!(head.starts_with(status), "{head}");
        let weight = format!("X-Load-Balancing-Endpoint-Weight: {count}");
        for header in [
            "Content-Type: application/json",
            "X-Content-Type-Options: nosniff",
            weight.as_str(),
        ] {
            assert!(head.lines().any(|line| line == header), "{head}");
        }
    }
    // The path does not matter.
    let (_, said) = ask(port, "/healthz?verbose").await.unwrap();
    assert_eq!(said, body("other", 1));
    checks.update(BTreeMap::new());
    until(port, None).await;
    checks.close().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_served_when_it_is_free() {
    let (held, port) = held_port().await;
    let (other, free) = held_port().await;
    drop(other);
    let mut checks = HealthChecks {
        retry: Duration::from_millis(10),
        ..HealthChecks::new([127, 0, 0, 1].into())
    };
    checks.update(BTreeMap::from([
        (port, check("web", 1)),
        (free, check("other", 1)),
    ]));
    // The other one does not wait for it.
    until(free, Some(&body("other", 1))).await;
    drop(held);
    until(port, Some(&body("web", 1))).await;
    checks.close().await;
    until(port, None).await;
}

#[tokio::test]
async fn clients_that_are_slow_are_left() {
    let (listener, port) = held_port().await;
    for begun in ["", "GET / HT"] {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(begun.as_bytes()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (_sender, check) = watch::channel(check("web", 1));
        let answered = serve::answer(stream, check, Duration::from_millis(50));
        tokio::time::timeout(DEADLINE, answered).await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        assert!(said.is_empty(), "{said:?}");
    }
}
