use super::*;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn names() -> Names {
    Names::of(Path::new("/var/lib/coracle/agent/network"))
}

#[test]
fn names_fit_and_differ_by_folder() {
    let one = names();
    assert_eq!(one, names());
    assert_eq!(one.link.len(), 15);
    assert_eq!(one.namespace, Path::new(NAMESPACES).join(&one.table));
    assert!(one.table.starts_with(&one.link));
    let pod = Ipv4Addr::new(10, 42, 3, 200);
    let link = one.pod_link(pod);
    assert_eq!((link.len(), &link[9..]), (15, "2a03c8"));
    let file = one.pod_namespace(pod);
    assert_eq!(
        one.pod_of(file.file_name().unwrap().to_str().unwrap()),
        Some(pod)
    );
    assert_eq!(one.pod_of(&one.table), None);
    for (name, own) in [
        (&*one.link, true),
        (&link, true),
        (&link[..14], false),
        ("eth0", false),
        (&one.pod_links, false),
    ] {
        assert_eq!(one.owns(name), own, "{name}");
    }
    let other = Names::of(Path::new("/tmp/other"));
    assert_ne!(one.link, other.link);
    assert!(!other.owns(&link) && !other.owns(&one.link));
}

#[test]
fn a_claim_survives_its_alias() {
    let claim = |folder: Option<String>| Claim {
        cluster: "c1".into(),
        range: net("10.42.0.0/16"),
        folder: folder.map(PathBuf::from),
    };
    for given in [claim(None), claim(Some("/a folder/with spaces".into()))] {
        assert_eq!(Claim::decode(&given.encode()), Some(given));
    }
    let long = claim(Some(format!("/{}", "x".repeat(300)))).encode();
    assert!(long.len() <= CLAIM);
    assert_eq!(Claim::decode(&long), Some(claim(None)));
    for alias in ["", "uplink", "coracle ", "coracle c1 nonsense /x"] {
        assert_eq!(Claim::decode(alias), None, "{alias}");
    }
}

#[test]
fn ranges_in_use_are_conflicts() {
    let link = |index, name: &str, alias: Option<&str>| Link {
        index,
        name: name.into(),
        alias: alias.map(str::to_owned),
    };
    let own = names();
    let links = [
        link(1, "eth0", Some("uplink")),
        link(2, &own.link, Some("coracle c1 10.42.0.0/16 /a")),
        link(5, &own.pod_link(Ipv4Addr::new(10, 42, 0, 130)), None),
        link(3, "sibling", Some("coracle c1 10.42.0.0/16 /b")),
        link(4, "stranger", Some("coracle c2 10.50.0.0/16 /c")),
    ];
    let to = |destination: &str, link| Found {
        route: Route {
            destination: net(destination),
            way: Way::Gateway {
                gateway: None,
                source: None,
            },
            link,
        },
        fixed: true,
    };
    let routes = [
        to("0.0.0.0/0", 1),
        to("128.0.0.0/1", 1),
        to("192.0.2.0/24", 1),
        to("10.42.0.0/24", 2),
        to("10.42.0.130/32", 5),
        to("10.42.1.0/24", 3),
    ];
    let cluster = |range: &str| {
        let claim = Claim {
            cluster: "c1".into(),
            range: net(range),
            folder: None,
        };
        cluster_conflict(&claim, &own, &links, &routes).map(|conflict| conflict.to_string())
    };
    let node = |range: &str| {
        node_conflict(net(range), &own, &links, &routes).map(|conflict| conflict.to_string())
    };
    let by = |range: &str, route: &str, link: &str| {
        Some(format!(
            "the Pods' range {range} overlaps the route to {route} by {link}"
        ))
    };
    assert_eq!(cluster("10.42.0.0/16"), None);
    assert_eq!(
        cluster("192.0.0.0/16"),
        by("192.0.0.0/16", "192.0.2.0/24", "eth0")
    );
    assert_eq!(
        cluster("192.0.2.128/25"),
        by("192.0.2.128/25", "192.0.2.0/24", "eth0")
    );
    assert_eq!(
        cluster("10.50.1.0/24"),
        Some(
            "the Pods' range 10.50.1.0/24 overlaps 10.50.0.0/16, that of another cluster on \
             this machine (link stranger, folder /c)"
                .into()
        )
    );
    let ranges = [
        net("10.42.0.0/16"),
        net("10.50.0.0/17"),
        net("10.50.0.0/15"),
    ];
    assert_eq!(unclaimed(&ranges, &links), [net("10.50.0.0/15")]);
    assert_eq!(node("10.42.0.0/24"), None);
    assert_eq!(node("10.42.2.0/24"), None);
    assert_eq!(
        node("10.42.1.0/24"),
        by("10.42.1.0/24", "10.42.1.0/24", "sibling")
    );
}

#[test]
fn a_plan_has_routes_once_the_range_is_known() {
    let names = names();
    let node = Some(Ipv4Addr::new(192, 0, 2, 2));
    let early = plan(&names, None, None);
    assert!(early.host.routes.is_empty() && early.pods.routes.is_empty());
    assert!(!early.host.complete && !early.pods.complete);
    let text = |side: &Side| {
        side.routes
            .iter()
            .map(|route| match route.way {
                Way::Local => format!("local {} dev {}", route.destination, route.link),
                Way::Gateway { gateway, source } => format!(
                    "{} via {} dev {} src {}",
                    route.destination,
                    gateway.unwrap(),
                    route.link,
                    source.unwrap()
                ),
            })
            .collect::<Vec<_>>()
    };
    let late = plan(&names, Some(net("10.42.3.0/24")), node);
    assert!(late.host.complete && late.pods.complete);
    assert_eq!(late.host.settings, early.host.settings);
    assert_eq!(
        text(&late.host),
        [format!(
            "10.42.3.0/24 via 169.254.1.2 dev {} src 192.0.2.2",
            names.link
        )]
    );
    assert_eq!(
        text(&late.pods),
        [
            "local 10.42.3.0/25 dev lo",
            "0.0.0.0/0 via 169.254.1.1 dev eth0 src 10.42.3.1"
        ]
    );
    assert_eq!(late.refused, Some(net("10.42.3.128/25")));
}

#[test]
fn what_pods_share_is_all_but_the_part_of_those_with_namespaces() {
    let shared = |range: &str| {
        let parts = shared_part(net(range)).map(|part| part.to_string());
        parts.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shared("10.42.3.0/24"), "10.42.3.0/25");
    assert_eq!(shared("10.42.3.0/29"), "10.42.3.0/30");
    assert_eq!(
        shared("10.42.0.0/18"),
        "10.42.0.0/19 10.42.32.0/20 10.42.48.0/21 10.42.56.0/22 10.42.60.0/23 10.42.62.0/24"
    );
    assert_eq!(shared("10.42.0.0/32"), "");
}
