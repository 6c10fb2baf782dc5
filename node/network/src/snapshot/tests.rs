use super::*;
use proptest::prelude::*;

fn general() -> General {
    General {
        form: Form::Namespaced,
        domain: "cluster.local".into(),
        virtual_ranges: vec!["10.42.0.0/16".parse().unwrap()],
        gateway: "10.42.0.1".parse().unwrap(),
        dns: Some("10.43.0.10:53".parse().unwrap()),
        authority: None,
    }
}

fn reopened(contents: &Contents) -> Snapshot {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    contents.publish(&path).unwrap();
    Snapshot::open(&File::open(&path).unwrap()).unwrap()
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u16; 7]>().prop_map(|tail| {
            let mut segments = [0; 8];
            segments[1..].copy_from_slice(&tail);
            IpAddr::from(segments)
        }),
    ]
}

fn any_socket() -> impl Strategy<Value = Socket> {
    (any_address(), any::<u16>(), any::<bool>()).prop_map(|(address, port, udp)| {
        (
            address,
            port,
            if udp { Protocol::Udp } else { Protocol::Tcp },
        )
    })
}

fn any_endpoint() -> impl Strategy<Value = SocketAddr> {
    (any_address(), any::<u16>()).prop_map(|(address, port)| SocketAddr::new(address, port))
}

proptest! {
    #[test]
    fn everything_that_was_written_is_found(
        listeners in prop::collection::btree_map(any_socket(), any_endpoint(), 0..40),
        services in prop::collection::btree_map(
            any_socket(),
            (any::<bool>(), prop::collection::vec(any_endpoint(), 0..5), any::<bool>()).prop_map(
                |(affinity, endpoints, elsewhere)| Virtual { affinity, endpoints, elsewhere },
            ),
            0..20,
        ),
        names in prop::collection::btree_map(
            "[a-z0-9.-]{1,30}",
            prop_oneof![
                prop::collection::vec(any_address(), 0..4).prop_map(Answer::Addresses),
                "[a-z.]{1,20}".prop_map(Answer::Alias),
            ],
            0..20,
        ),
        pods in prop::collection::btree_map(any_address(), "[a-z-]{1,20}", 0..20),
        absent in any_socket(),
    ) {
        let contents = Contents { general: general(), listeners, services, names, pods };
        let snapshot = reopened(&contents);
        prop_assert_eq!(snapshot.general(), &contents.general);
        for (socket, actual) in &contents.listeners {
            prop_assert_eq!(snapshot.listener(*socket), Some(*actual));
        }
        for (socket, service) in &contents.services {
            prop_assert_eq!(snapshot.service(*socket), Some(service.clone()));
        }
        for (name, answer) in &contents.names {
            prop_assert_eq!(snapshot.name(name), Some(answer.clone()));
        }
        for (address, namespace) in &contents.pods {
            prop_assert_eq!(snapshot.namespace(*address), Some(namespace.as_str()));
        }
        prop_assert_eq!(
            snapshot.listener(absent),
            contents.listeners.get(&absent).copied()
        );
    }

    #[test]
    fn a_damaged_file_is_no_fault(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
        let mut contents = Contents::new(general());
        contents.names.insert("a.b".into(), Answer::Alias("c".into()));
        contents.pods.insert("10.42.0.2".parse().unwrap(), "default".into());
        let mut bytes = contents.encode().unwrap();
        if let Some(target) = bytes.get_mut(at) {
            *target = byte;
        }
        bytes.truncate(bytes.len().max(cut) - cut);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(snapshot) = Snapshot::open(&File::open(&path).unwrap()) {
            let _ = snapshot.name("a.b");
            let _ = snapshot.namespace("10.42.0.2".parse().unwrap());
            let _ = Kept::of(&path);
        }
    }
}

#[test]
fn another_layout_is_refused_by_name() {
    let mut bytes = Contents::new(general()).encode().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = Snapshot::open(&File::open(&path).unwrap()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("layout 1"), "{error}");
}

#[test]
fn a_pods_localhost_is_made_of_its_address() {
    for (pod, expected) in [
        ("10.42.3.7", [127, 42, 3, 7]),
        ("172.16.0.2", [127, 16, 0, 2]),
        ("fd00::1:203", [127, 1, 2, 3]),
    ] {
        assert_eq!(
            localhost_of(pod.parse().unwrap()),
            Ipv4Addr::from(expected),
            "{pod}"
        );
    }
}
