//! Tables for what probes dial and run.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

#[test]
fn redirects_are_followed_on_the_same_host() {
    for (host, location, to) in [
        ("10.0.0.1", "/b?c=d#e", Some("http 8080 /b?c=d")),
        ("10.0.0.1", "b", Some("http 8080 /a/b")),
        ("10.0.0.1", "../b", Some("http 8080 /b")),
        ("10.0.0.1", "http://10.0.0.1:8080/b", Some("http 8080 /b")),
        ("10.0.0.1", "http://10.0.0.1", Some("http 80 /")),
        ("10.0.0.1", "https://10.0.0.1/b", Some("https 443 /b")),
        ("10.0.0.1", "//10.0.0.1:81/b", Some("http 81 /b")),
        ("fd00::1", "http://[fd00::1]:81/", Some("http 81 /")),
        ("10.0.0.1", "http://web.example/b", None),
        ("10.0.0.1", "//10.0.0.2/b", None),
        ("10.0.0.1", "ftp://10.0.0.1/b", None),
        ("10.0.0.1", "http://[", None),
    ] {
        let address = Address {
            host: host.to_owned(),
            port: 8080,
            of_pod: host.parse().ok(),
        };
        let of_pod = address.of_pod;
        let next = redirected(&(address, false, "/a/x?y".to_owned()), location);
        let next = next.map(|(address, tls, path)| {
            assert_eq!((&*address.host, address.of_pod), (host, of_pod));
            let scheme = if tls { "https" } else { "http" };
            format!("{scheme} {} {path}", address.port)
        });
        assert_eq!(next.as_deref(), to, "{location}");
    }
}

#[test]
fn redirects_that_are_not_followed_are_told() {
    let told = "Probe terminated redirects, Response body: moved";
    for (status, expected) in [
        (200, Ok(None)),
        (204, Ok(None)),
        (302, Ok(Some(told.to_owned()))),
        (304, Ok(Some(told.to_owned()))),
        (199, Err("HTTP probe failed with statuscode: 199")),
        (404, Err("HTTP probe failed with statuscode: 404")),
    ] {
        let body = Ok(b"moved".to_vec());
        let verdict = Answer { status, body }.verdict();
        let expected = expected.map_err(|why: &str| Fault::Failed(why.to_owned()));
        assert_eq!(verdict, expected, "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_nothing() {
    let address = Address {
        host: "10.0.0.1".to_owned(),
        port: 80,
        of_pod: None,
    };
    for (said, expected) in [
        ("200 OK\r\nContent-Length: 5\r\n\r\nwhole", "fine"),
        ("200 OK\r\n\r\nto the end", "fine"),
        ("404 Not Found\r\nContent-Length: 5\r\n\r\nwhole", "failed"),
        ("200 OK\r\nContent-Length: 9\r\n\r\nwhole", "broken"),
        (
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nwhole",
            "broken",
        ),
        ("404 Not Found\r\nContent-Length: 9\r\n\r\nwhole", "broken"),
    ] {
        let (client, mut server) = duplex(1 << 10);
        let serving = async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(server.read_u8().await.unwrap());
            }
            let said = format!("HTTP/1.1 {said}");
            server.write_all(said.as_bytes()).await.unwrap();
        };
        let asking = request(client, &address, "/", &[], Purpose::Probe);
        let (answered, ()) = tokio::join!(asking, serving);
        let (answer, _) = answered.unwrap();
        let found = match answer.verdict() {
            Ok(_) => "fine",
            Err(Fault::Failed(_)) => "failed",
            Err(Fault::Broken(_)) => "broken",
            Err(Fault::Unknown(_)) => "unknown",
        };
        assert_eq!(found, expected, "{said}");
    }
}

#[test]
fn commands_know_what_the_environment_says_outright() {
    let field = json!({"fieldRef": {"fieldPath": "metadata.name"}});
    let mut container: Container = serde_json::from_value(json!({
        "name": "c",
        "env": [{"name": "A", "value": "1"}, {"name": "NAME", "valueFrom": field}],
    }))
    .unwrap();
    for (word, expected) in [
        ("plain", "plain"),
        ("$(A)/x", "1/x"),
        ("$$(A)", "$(A)"),
        ("$(NONE)", "$(NONE)"),
        ("$(NAME)", ""),
    ] {
        let probe = json!({"exec": {"command": ["test", word]}});
        container.liveness_probe = serde_json::from_value(probe).unwrap();
        let probe = container.liveness_probe.as_ref().unwrap();
        match Target::of(&container, probe, &[]) {
            Target::Exec(command) => assert_eq!(command, ["test", expected]),
            other => panic!("{other:?}"),
        }
    }
}
