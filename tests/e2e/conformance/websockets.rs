//! test/e2e/common/node/pods.go: commands and logs over WebSockets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::shared::{IDLE, Place, place};
use crate::cluster::websocket::{self, messages};
use crate::cluster::{Background, eventually};

/// A proxy to the API server: where it listens.
fn proxy(place: &Place) -> (Background, String) {
    let name = format!("{}-proxy", place.namespace);
    websocket::proxy(place, &place.cluster.folder().join(name))
}

/// Must: what a command prints comes as messages of a WebSocket.
#[test]
fn pods_should_support_remote_command_execution_over_websockets() {
    let Some(place) = place() else { return };
    place.script("remote", IDLE);
    place.wait_ready(&["remote"]);
    let (_running, address) = proxy(&place);
    let path = format!(
        "/api/v1/namespaces/{}/pods/remote/exec?command=echo&command=remote+execution+test\
         &stdout=1&stderr=1&container=main",
        place.namespace
    );
    let messages = messages(&address, &path, "v4.channel.k8s.io");
    // The first byte names the stream: 1 is the standard output, 2 the other, and 3 has the outcome.
    let of = |stream: u8| {
        let of = messages
            .iter()
            .filter(|(_, bytes)| bytes.first() == Some(&stream));
        let bytes: Vec<u8> = of.flat_map(|(_, bytes)| bytes[1..].to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(of(1), "remote execution test\n");
    assert_eq!(of(2), "");
    assert!(of(3).contains(r#""status":"Success""#), "{}", of(3));
}

/// Must: the log of a container comes as messages of a WebSocket.
#[test]
fn pods_should_support_retrieving_logs_from_the_container_over_websockets() {
    let Some(place) = place() else { return };
    place.script("says", &format!("echo container is alive; {IDLE}"));
    place.wait_ready(&["says"]);
    eventually("the log", || {
        let said = place.ok(&["logs", "says"]);
        if said.is_empty() { Err(said) } else { Ok(()) }
    });
    let (_running, address) = proxy(&place);
    let path = format!(
        "/api/v1/namespaces/{}/pods/says/log?container=main",
        place.namespace
    );
    let bytes = messages(&address, &path, "binary.k8s.io");
    assert!(bytes.iter().all(|(kind, _)| *kind == 2), "{bytes:?}");
    assert_eq!(
        bytes
            .into_iter()
            .flat_map(|(_, piece)| piece)
            .collect::<Vec<_>>(),
        b"container is alive\n"
    );
    let texts = messages(&address, &path, "base64.binary.k8s.io");
    assert!(texts.iter().all(|(kind, _)| *kind == 1), "{texts:?}");
    let decoded = texts
        .iter()
        .flat_map(|(_, text)| STANDARD.decode(text).unwrap());
    assert_eq!(decoded.collect::<Vec<_>>(), b"container is alive\n");
}
