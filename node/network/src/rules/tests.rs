use super::*;
use serde_json::json;

fn service(spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
    }))
    .unwrap()
}

fn slice(ports: serde_json::Value, endpoints: serde_json::Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-1", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
    .unwrap()
}

fn lead(service: &Service, slices: &[EndpointSlice]) -> Vec<String> {
    rules([service], slices, &Place::default())
        .ports
        .iter()
        .map(|port| {
            let endpoints: Vec<_> = port.endpoints.iter().map(ToString::to_string).collect();
            format!(
                "{:?} {} {:?} {:?} -> {}",
                port.addresses,
                port.port,
                port.node_port,
                port.affinity,
                endpoints.join(" ")
            )
        })
        .collect()
}

#[test]
fn ready_endpoints_serve_under_the_named_port() {
    let service = service(json!({
        "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "type": "NodePort",
        "ports": [
            {"name": "http", "port": 80, "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    }));
    let slices = [slice(
        json!([
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "dns", "port": 5353, "protocol": "UDP"},
        ]),
        json!([
            {"addresses": ["10.42.0.3"], "conditions": {"ready": true}},
            {"addresses": ["10.42.0.2"], "conditions": {}},
            {"addresses": ["10.42.0.4"], "conditions": {"ready": false}},
        ]),
    )];
    assert_eq!(
        lead(&service, &slices),
        [
            "[10.43.0.9] 53 None None -> 10.42.0.2:5353 10.42.0.3:5353",
            "[10.43.0.9] 80 Some(30080) None -> 10.42.0.2:8080 10.42.0.3:8080",
        ]
    );
}

#[test]
fn terminating_endpoints_serve_only_where_none_is_ready() {
    let service = service(json!({
        "clusterIPs": ["10.43.0.9"], "sessionAffinity": "ClientIP", "ports": [{"port": 80}],
    }));
    let ending = json!({
        "addresses": ["10.42.0.5"],
        "conditions": {"ready": false, "serving": true, "terminating": true},
    });
    let ready = json!({"addresses": ["10.42.0.6"]});
    let ports = json!([{"port": 8080}]);
    let both = [slice(ports.clone(), json!([ending, ready]))];
    let only = [slice(ports, json!([ending]))];
    assert_eq!(
        lead(&service, &both),
        ["[10.43.0.9] 80 None Some(10800) -> 10.42.0.6:8080"]
    );
    assert_eq!(
        lead(&service, &only),
        ["[10.43.0.9] 80 None Some(10800) -> 10.42.0.5:8080"]
    );
    assert_eq!(lead(&service, &[]), ["[10.43.0.9] 80 None Some(10800) -> "]);
}

#[test]
fn headless_has_no_address_and_external_name_no_port() {
    let headless = service(json!({
        "clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}],
    }));
    assert_eq!(lead(&headless, &[]), ["[] 80 None None -> "]);
    let external = service(json!({"type": "ExternalName", "externalName": "example.com"}));
    assert!(lead(&external, &[]).is_empty());
}

type Policies = (
    &'static str,
    serde_json::Value,
    &'static [&'static str],
    &'static str,
    &'static str,
);

#[test]
fn calls_stay_on_their_node_where_a_policy_says_so() {
    let local = |policy: &str| json!({policy: "Local"});
    let both = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"});
    let cluster = json!({
        "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
    });
    let (one, two) = ("10.42.0.2:80", "10.42.1.2:80");
    let all = "10.42.0.2:80 10.42.1.2:80";
    let table: [Policies; 6] = [
        ("neither", json!({}), &["one", "two"], all, all),
        ("for anywhere", cluster, &["two"], two, two),
        (
            "internal",
            local("internalTrafficPolicy"),
            &["one", "two"],
            one,
            all,
        ),
        (
            "external",
            local("externalTrafficPolicy"),
            &["one", "two"],
            all,
            one,
        ),
        ("none here", both.clone(), &["two"], "dropped", "dropped"),
        ("none anywhere", both, &[], "refused", "refused"),
    ];
    let place = Place {
        node: "one".into(),
        zone: None,
    };
    for (what, policies, nodes, internal, external) in table {
        let mut spec = json!({
            "type": "NodePort", "clusterIPs": ["10.43.0.9"], "externalIPs": ["203.0.113.5"],
            "ports": [{"port": 80, "nodePort": 30080}],
        });
        for (policy, value) in policies.as_object().unwrap() {
            spec[policy] = value.clone();
        }
        let endpoints: Vec<_> = nodes
            .iter()
            .map(|node| {
                let address = if *node == "one" {
                    "10.42.0.2"
                } else {
                    "10.42.1.2"
                };
                json!({"addresses": [address], "nodeName": node})
            })
            .collect();
        let slice = slice(json!([{"port": 80}]), json!(endpoints));
        let rules = rules([&service(spec)], [&slice], &place);
        let port = &rules.ports[0];
        let said = |lead: Lead<'_>| match lead {
            Lead::To(endpoints) => {
                let all: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
                all.join(" ")
            }
            Lead::Dropped => "dropped".to_owned(),
            Lead::Refused => "refused".to_owned(),
        };
        let got = (said(port.internal()), said(port.external()));
        assert_eq!(got, (internal.to_owned(), external.to_owned()), "{what}");
        let address = |text: &str| -> Vec<IpAddr> { vec![text.parse().unwrap()] };
        assert_eq!(port.addresses, address("10.43.0.9"));
        assert_eq!(port.external_addresses, address("203.0.113.5"));
    }
}

#[test]
fn another_proxys_service_is_left_to_it() {
    let mut service = service(json!({
        "clusterIPs": ["10.43.0.9"], "externalIPs": ["203.0.113.5"], "ports": [{"port": 80}],
    }));
    let slices = [slice(
        json!([{"port": 80}]),
        json!([{"addresses": ["10.42.0.2"]}]),
    )];
    assert_eq!(
        lead(&service, &slices),
        ["[10.43.0.9] 80 None None -> 10.42.0.2:80"]
    );
    let labels = service.metadata.labels.get_or_insert_default();
    labels.insert(PROXY_NAME.into(), "other".into());
    let rules = rules([&service], &slices, &Place::default());
    assert_eq!(rules.ports, []);
    let left = ("10.43.0.9".parse().unwrap(), 80, Protocol::Tcp);
    assert_eq!(rules.left, BTreeSet::from([left]));
}

#[test]
fn a_slice_that_is_headless_leads_nowhere() {
    let service = service(json!({"clusterIPs": ["10.43.0.9"], "ports": [{"port": 80}]}));
    let mut slice = slice(json!([{"port": 80}]), json!([{"addresses": ["10.42.0.2"]}]));
    let labels = slice.metadata.labels.as_mut().unwrap();
    labels.insert(HEADLESS.into(), String::new());
    assert_eq!(lead(&service, &[slice]), ["[10.43.0.9] 80 None None -> "]);
}
