//! Tables for what probes dial and run.
#![allow(clippy::unwrap_used)]

use serde_json::json;

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
        let body = b"moved".to_vec();
        let verdict = Answer { status, body }.verdict();
        let expected = expected.map_err(|why: &str| Fault::Failed(why.to_owned()));
        assert_eq!(verdict, expected, "{status}");
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
