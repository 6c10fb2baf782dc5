use serde_json::{Value, json};

use super::*;

/// A slice of [`endpoint`]s.
fn slice(endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<Value> = endpoints.iter().map(|text| endpoint(text)).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "web-1"}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}], "endpoints": endpoints,
    }))
    .unwrap()
}

/// `LAST_BYTE STATE NODE [HINTS]`: state is `ready`, `ending` or `unready`, a hint is `node:NAME` or
/// `zone:NAME`.
fn endpoint(text: &str) -> Value {
    let mut words = text.split_whitespace();
    let address = format!("10.42.0.{}", words.next().unwrap());
    let conditions = match words.next().unwrap() {
        "ready" => json!({"ready": true, "serving": true, "terminating": false}),
        "ending" => json!({"ready": false, "serving": true, "terminating": true}),
        _ => json!({"ready": false, "serving": false, "terminating": false}),
    };
    let node = words.next().unwrap();
    let mut endpoint = json!({
        "addresses": [address], "conditions": conditions, "nodeName": node,
    });
    for hint in words {
        let (kind, name) = hint.split_once(':').unwrap();
        let field = if kind == "node" {
            "forNodes"
        } else {
            "forZones"
        };
        endpoint["hints"][field] = json!([{"name": name}]);
    }
    endpoint
}

fn here() -> Place {
    Place {
        node: "one".into(),
        zone: Some("a".into()),
    }
}

/// The last bytes of what is chosen, anywhere and on the node.
fn chosen(endpoints: &[&str], place: &Place) -> (Vec<u8>, Vec<u8>) {
    let slice = slice(endpoints);
    let chosen = choose(&[&slice], "", Protocol::Tcp, place);
    let last = |sockets: Vec<SocketAddr>| -> Vec<u8> {
        let bytes = sockets.iter().map(|socket| match socket.ip() {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => panic!("{address}"),
        });
        bytes.collect()
    };
    (last(chosen.anywhere), last(chosen.local))
}

type Case = (
    &'static str,
    &'static [&'static str],
    &'static [u8],
    &'static [u8],
);

#[test]
fn endpoints_of_the_node_are_told_from_those_of_all() {
    let table: [Case; 6] = [
        ("none", &[], &[], &[]),
        ("both", &["1 ready one", "2 ready two"], &[1, 2], &[1]),
        ("elsewhere", &["2 ready two"], &[2], &[]),
        (
            "where none is ready on the node, those that end there do",
            &["1 ending one", "2 ready two"],
            &[2],
            &[1],
        ),
        (
            "where none is ready at all, those that end anywhere do",
            &["1 ending one", "2 ending two", "3 unready one"],
            &[1, 2],
            &[1],
        ),
        (
            "while one is ready, none that ends",
            &["1 ending one", "2 ready one"],
            &[2],
            &[2],
        ),
    ];
    for (what, endpoints, anywhere, local) in table {
        let got = chosen(endpoints, &here());
        assert_eq!(got, (anywhere.to_vec(), local.to_vec()), "{what}");
    }
}

#[test]
fn an_endpoint_without_a_node_is_on_no_node() {
    let mut slice = slice(&["1 ready one"]);
    slice.endpoints.as_mut().unwrap()[0].node_name = None;
    for node in ["one", ""] {
        let place = Place {
            node: node.into(),
            zone: None,
        };
        let chosen = choose(&[&slice], "", Protocol::Tcp, &place);
        assert_eq!((chosen.anywhere.len(), chosen.local.len()), (1, 0));
    }
}

type Hinted = (&'static str, &'static [&'static str], &'static [u8]);

#[test]
fn hints_are_followed_where_all_have_them_and_some_are_for_here() {
    let table: [Hinted; 8] = [
        (
            "those of the zone",
            &["1 ready two zone:a", "2 ready three zone:b"],
            &[1],
        ),
        (
            "one has none",
            &["1 ready two zone:a", "2 ready three"],
            &[1, 2],
        ),
        (
            "none is for this zone",
            &["1 ready two zone:b", "2 ready three zone:c"],
            &[1, 2],
        ),
        (
            "those of the node before those of the zone",
            &[
                "1 ready one zone:a node:one",
                "2 ready two zone:a node:two",
                "3 ready three zone:b node:three",
            ],
            &[1],
        ),
        (
            "none is for this node, and some are for its zone",
            &[
                "2 ready two zone:a node:two",
                "3 ready three zone:b node:three",
            ],
            &[2],
        ),
        (
            "not all say a node",
            &["1 ready one zone:a node:one", "2 ready two zone:a"],
            &[1, 2],
        ),
        (
            "those that are not ready need no hints",
            &["1 ready two zone:a", "2 ending three", "3 unready three"],
            &[1],
        ),
        (
            "where none is ready, hints do not count",
            &["1 ending two zone:a", "2 ending three zone:b"],
            &[1, 2],
        ),
    ];
    for (what, endpoints, anywhere) in table {
        assert_eq!(chosen(endpoints, &here()).0, anywhere, "{what}");
    }
    // A node that does not know its zone.
    let nowhere = Place {
        zone: None,
        ..here()
    };
    let hinted = ["1 ready two zone:a", "2 ready three zone:b"];
    assert_eq!(chosen(&hinted, &nowhere).0, [1, 2]);
}

#[test]
fn a_socket_that_two_slices_name_is_what_the_better_one_says() {
    let slices = [
        slice(&["1 ending one"]),
        slice(&["1 ready one"]),
        slice(&["1 unready one"]),
    ];
    let chosen = choose(
        &[&slices[0], &slices[1], &slices[2]],
        "",
        Protocol::Tcp,
        &here(),
    );
    assert_eq!((chosen.anywhere.len(), chosen.local.len()), (1, 1));
}

#[test]
fn what_no_packet_can_be_sent_to_is_no_endpoint() {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1"}, "addressType": "IPv4",
        "ports": [{"port": 0}, {"port": 70_000}, {"port": null}, {"port": 80}],
        "endpoints": [{
            "addresses": [
                "0.0.0.0", "nonsense", "127.0.0.1", "::1", "::ffff:127.0.0.1", "224.0.0.5",
                "10.42.0.1",
            ],
        }],
    }))
    .unwrap();
    let chosen = choose(&[&slice], "", Protocol::Tcp, &here());
    let wanted: SocketAddr = "10.42.0.1:80".parse().unwrap();
    assert_eq!(chosen.anywhere, [wanted]);
}
