use hickory_proto::op::{Message, MessageType, Metadata, OpCode};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::dns::message::{Request, Transport, decode, encode};
use crate::zone::zone;

fn service(name: &str, spec: serde_json::Value) -> Service {
    serde_json::from_value(
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}),
    )
    .unwrap()
}

/// The Services of the specification's examples and a few more.
fn cluster() -> Zone {
    let services = [
        service(
            "kubernetes",
            json!({"clusterIPs": ["10.3.0.1"], "ports": [{"name": "https", "port": 443}, {"port": 80}]}),
        ),
        service("headless", json!({"clusterIPs": ["None"]})),
        service("empty", json!({"clusterIPs": ["None"]})),
        service("dual", json!({"clusterIPs": ["10.3.0.2", "2001:db8::2"]})),
        service(
            "foo",
            json!({"type": "ExternalName", "externalName": "www.example.com"}),
        ),
        service(
            "near",
            json!({"type": "ExternalName", "externalName": "kubernetes.default.svc.cluster.local"}),
        ),
        service(
            "gone",
            json!({"type": "ExternalName", "externalName": "nobody.default.svc.cluster.local"}),
        ),
        service(
            "ring",
            json!({"type": "ExternalName", "externalName": "ring.default.svc.cluster.local"}),
        ),
        service(
            "odd",
            json!({"type": "ExternalName", "externalName": "a..b"}),
        ),
    ];
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "name": "headless-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "headless"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.3.0.100"], "hostname": "my-pet"},
            {"addresses": ["10.3.0.101"]},
            {"addresses": ["10.3.0.102"], "hostname": "ill", "conditions": {"ready": false}},
        ],
    }))
    .unwrap();
    zone(&services, &[slice], "cluster.local")
}

fn ask(zone: &Zone, name: &str, kind: RecordType) -> Response {
    answer(zone, &Query::query(Name::from_ascii(name).unwrap(), kind))
}

fn lines(records: &[ResourceRecord]) -> Vec<String> {
    records.iter().map(ToString::to_string).collect()
}

#[test]
fn records_of_the_specification() {
    let zone = cluster();
    use RecordType::{A, AAAA, ANY, CNAME, PTR, SRV, TXT};
    for (section, name, kind, expected) in [
        (
            "2.2",
            "dns-version.cluster.local.",
            TXT,
            &["dns-version.cluster.local. 5 IN TXT 1.1.0"][..],
        ),
        (
            "2.3.1",
            "kubernetes.default.svc.cluster.local.",
            A,
            &["kubernetes.default.svc.cluster.local. 5 IN A 10.3.0.1"],
        ),
        (
            "2.3.1",
            "dual.default.svc.cluster.local.",
            AAAA,
            &["dual.default.svc.cluster.local. 5 IN AAAA 2001:db8::2"],
        ),
        (
            "2.3.2",
            "_https._tcp.kubernetes.default.svc.cluster.local.",
            SRV,
            &[
                "_https._tcp.kubernetes.default.svc.cluster.local. 5 IN SRV 0 100 443 kubernetes.default.svc.cluster.local.",
            ],
        ),
        (
            "2.3.3",
            "1.0.3.10.in-addr.arpa.",
            PTR,
            &["1.0.3.10.in-addr.arpa. 5 IN PTR kubernetes.default.svc.cluster.local."],
        ),
        (
            "2.3.3",
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
            PTR,
            &[
                "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 5 IN PTR dual.default.svc.cluster.local.",
            ],
        ),
        (
            "2.4.1",
            "headless.default.svc.cluster.local.",
            A,
            &[
                "headless.default.svc.cluster.local. 5 IN A 10.3.0.100",
                "headless.default.svc.cluster.local. 5 IN A 10.3.0.101",
            ],
        ),
        (
            "2.4.1",
            "my-pet.headless.default.svc.cluster.local.",
            A,
            &["my-pet.headless.default.svc.cluster.local. 5 IN A 10.3.0.100"],
        ),
        (
            "2.4.2",
            "_https._tcp.headless.default.svc.cluster.local.",
            SRV,
            &[
                "_https._tcp.headless.default.svc.cluster.local. 5 IN SRV 0 100 443 10-3-0-101.headless.default.svc.cluster.local.",
                "_https._tcp.headless.default.svc.cluster.local. 5 IN SRV 0 100 443 my-pet.headless.default.svc.cluster.local.",
            ],
        ),
        (
            "2.4.3",
            "100.0.3.10.in-addr.arpa.",
            PTR,
            &["100.0.3.10.in-addr.arpa. 5 IN PTR my-pet.headless.default.svc.cluster.local."],
        ),
        (
            "2.5",
            "foo.default.svc.cluster.local.",
            CNAME,
            &["foo.default.svc.cluster.local. 5 IN CNAME www.example.com."],
        ),
        (
            "2.6",
            "10-1-2-3.default.pod.cluster.local.",
            A,
            &["10-1-2-3.default.pod.cluster.local. 5 IN A 10.1.2.3"],
        ),
        (
            "pods with IPv6",
            "2001-db8--5.default.pod.cluster.local.",
            AAAA,
            &["2001-db8--5.default.pod.cluster.local. 5 IN AAAA 2001:db8::5"],
        ),
        (
            "an alias inside",
            "near.default.svc.cluster.local.",
            A,
            &[
                "near.default.svc.cluster.local. 5 IN CNAME kubernetes.default.svc.cluster.local.",
                "kubernetes.default.svc.cluster.local. 5 IN A 10.3.0.1",
            ],
        ),
        (
            "any type",
            "dual.default.svc.cluster.local.",
            ANY,
            &[
                "dual.default.svc.cluster.local. 5 IN A 10.3.0.2",
                "dual.default.svc.cluster.local. 5 IN AAAA 2001:db8::2",
            ],
        ),
        (
            "the case of the question",
            "KuberNetes.dEfault.svc.cluSter.Local.",
            A,
            &["KuberNetes.dEfault.svc.cluSter.Local. 5 IN A 10.3.0.1"],
        ),
    ] {
        let response = ask(&zone, name, kind);
        assert_eq!(lines(&response.answers), expected, "{section} {name}");
        assert_eq!(response.code, ResponseCode::NoError, "{section}");
        assert!(
            response.authoritative && response.outside.is_none(),
            "{section}"
        );
        assert!(response.authorities.is_empty(), "{section}");
    }
}

#[test]
fn targets_of_ports_come_with_their_addresses() {
    let response = ask(
        &cluster(),
        "_https._tcp.headless.default.svc.cluster.local.",
        RecordType::SRV,
    );
    assert_eq!(
        lines(&response.additionals),
        [
            "10-3-0-101.headless.default.svc.cluster.local. 5 IN A 10.3.0.101",
            "my-pet.headless.default.svc.cluster.local. 5 IN A 10.3.0.100",
        ]
    );
}

#[test]
fn no_such_name_and_no_such_data_differ() {
    let zone = cluster();
    use RecordType::{A, AAAA, PTR, SRV};
    let (name_error, no_data) = (ResponseCode::NXDomain, ResponseCode::NoError);
    for (name, kind, code) in [
        ("nobody.default.svc.cluster.local.", A, name_error),
        ("kubernetes.default.svc.cluster.local.", AAAA, no_data),
        ("kubernetes.default.svc.cluster.local.", SRV, no_data),
        // A headless Service without ready endpoints (2.4.1), and an endpoint that is not ready.
        ("empty.default.svc.cluster.local.", A, name_error),
        ("ill.headless.default.svc.cluster.local.", A, name_error),
        // A port without a name has no SRV record.
        (
            "_._tcp.kubernetes.default.svc.cluster.local.",
            SRV,
            name_error,
        ),
        (
            "_https._udp.kubernetes.default.svc.cluster.local.",
            SRV,
            name_error,
        ),
        // Names that others lie below.
        ("_tcp.kubernetes.default.svc.cluster.local.", A, no_data),
        ("default.svc.cluster.local.", A, no_data),
        ("nowhere.svc.cluster.local.", A, name_error),
        ("svc.cluster.local.", A, no_data),
        ("cluster.local.", A, no_data),
        ("pod.cluster.local.", A, no_data),
        ("default.pod.cluster.local.", A, no_data),
        ("10-1-2-3.default.pod.cluster.local.", AAAA, no_data),
        ("10-1-2-300.default.pod.cluster.local.", A, name_error),
        ("10-1-2-3.a.default.pod.cluster.local.", A, name_error),
        ("xpod.cluster.local.", A, name_error),
        // An alias whose target the zone cannot name or does not have.
        ("odd.default.svc.cluster.local.", A, no_data),
        ("gone.default.svc.cluster.local.", A, name_error),
        (r"kubernetes\.default.svc.cluster.local.", A, name_error),
        ("1.0.3.10.in-addr.arpa.", A, no_data),
    ] {
        let response = ask(&zone, name, kind);
        assert_eq!(response.code, code, "{name}");
        assert!(
            response.authoritative && response.outside.is_none(),
            "{name}"
        );
        let apex = if kind == PTR || name.ends_with("arpa.") {
            "in-addr.arpa."
        } else {
            "cluster.local."
        };
        assert_eq!(
            lines(&response.authorities),
            [format!(
                "{apex} 5 IN SOA kube-dns.kube-system.svc.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"
            )],
            "{name}"
        );
    }
}

#[test]
fn the_zone_names_its_server() {
    let zone = cluster();
    let soa = ask(&zone, "cluster.local.", RecordType::SOA);
    assert!(matches!(
        soa.answers[..],
        [ResourceRecord {
            data: RData::SOA(_),
            ..
        }]
    ));
    let servers = ask(&zone, "cluster.local.", RecordType::NS);
    assert_eq!(
        lines(&servers.answers),
        ["cluster.local. 5 IN NS kube-dns.kube-system.svc.cluster.local."]
    );
}

#[test]
fn what_the_zone_does_not_decide() {
    let zone = cluster();
    let unknown = Zone::unknown("cluster.local");
    use RecordType::{A, AXFR, OPT};
    for (zone, name, kind, code, outside, answers) in [
        (
            &zone,
            "Example.com.",
            A,
            ResponseCode::NoError,
            Some("Example.com."),
            0,
        ),
        (
            &zone,
            "mycluster.local.",
            A,
            ResponseCode::NoError,
            Some("mycluster.local."),
            0,
        ),
        (
            &zone,
            "9.9.3.10.in-addr.arpa.",
            A,
            ResponseCode::NoError,
            Some("9.9.3.10.in-addr.arpa."),
            0,
        ),
        (
            &zone,
            "foo.default.svc.cluster.local.",
            A,
            ResponseCode::NoError,
            Some("www.example.com."),
            1,
        ),
        (
            &zone,
            "ring.default.svc.cluster.local.",
            A,
            ResponseCode::ServFail,
            None,
            0,
        ),
        (
            &zone,
            "cluster.local.",
            AXFR,
            ResponseCode::Refused,
            None,
            0,
        ),
        (&zone, "example.com.", OPT, ResponseCode::FormErr, None, 0),
        (
            &unknown,
            "kubernetes.default.svc.cluster.local.",
            A,
            ResponseCode::ServFail,
            None,
            0,
        ),
        (
            &unknown,
            "cluster.local.",
            A,
            ResponseCode::ServFail,
            None,
            0,
        ),
        (
            &unknown,
            "example.com.",
            A,
            ResponseCode::NoError,
            Some("example.com."),
            0,
        ),
    ] {
        let response = ask(zone, name, kind);
        let left = response
            .outside
            .as_ref()
            .map(|query| query.name().to_string());
        assert_eq!((response.code, left.as_deref()), (code, outside), "{name}");
        assert_eq!(response.answers.len(), answers, "{name}");
    }
    let mut chaos = Query::query(Name::from_ascii("version.bind.").unwrap(), RecordType::TXT);
    chaos.set_query_class(DNSClass::CH);
    assert_eq!(answer(&zone, &chaos).code, ResponseCode::Refused);
}

fn labels() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let known = prop::sample::select(vec![
        "cluster",
        "local",
        "svc",
        "pod",
        "default",
        "headless",
        "_tcp",
        "_https",
        "10-1-2-3",
        "foo",
        "kubernetes",
        "in-addr",
        "arpa",
        "1",
    ]);
    let label = prop_oneof![
        known.prop_map(|label| label.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..=63),
    ];
    prop::collection::vec(label, 0..8)
}

proptest! {
    #[test]
    fn no_question_makes_it_panic(labels in labels(), kind in any::<u16>(), class in any::<u16>()) {
        let zone = cluster();
        for suffix in ["", "svc.cluster.local", "default.pod.cluster.local"] {
            let suffix = suffix.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
            let all = labels.iter().map(Vec::as_slice).chain(suffix);
            let Ok(name) = Name::from_labels(all) else { continue };
            let mut query = Query::query(name, RecordType::from(kind));
            query.set_query_class(DNSClass::from(class));
            let response = answer(&zone, &query);
            let request = Request {
                metadata: Metadata::new(7, MessageType::Query, OpCode::Query),
                query,
                edns: None,
            };
            let bytes = encode(&request, &response, request.limit(Transport::Udp));
            prop_assert!(bytes.len() <= 512);
            prop_assert!(Message::from_vec(&bytes).is_ok());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        // A query whose header is in order leads further in.
        orderly in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if orderly && bytes.len() >= 12 {
            let counts = [0, 1, 0, 0, 0, bytes[9] % 2, 0, bytes[11] % 5];
            bytes[2..4].copy_from_slice(&[1, 0]);
            bytes[4..12].copy_from_slice(&counts);
        }
        serve(&bytes)?;
    }

    #[test]
    fn no_change_of_a_query_makes_it_panic(
        labels in labels(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        if let Ok(name) = Name::from_labels(labels.iter().map(Vec::as_slice)) {
            message.add_query(Query::query(name, RecordType::SRV));
        }
        message.edns = Some(hickory_proto::op::Edns::new());
        let mut bytes = message.to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() * 2).max(1));
        serve(&bytes)?;
    }
}

/// What the server does with bytes, without its sockets.
fn serve(bytes: &[u8]) -> Result<(), TestCaseError> {
    let zone = cluster();
    for transport in [Transport::Udp, Transport::Tcp] {
        if let Ok(request) = decode(bytes) {
            let response = answer(&zone, &request.query);
            let limit = request.limit(transport);
            prop_assert!(encode(&request, &response, limit).len() <= limit);
        }
    }
    Ok(())
}
