#![allow(clippy::unwrap_used)]

use super::super::{backend, subsets};
use super::*;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

fn service(spec: Value) -> Service {
    let mut service = json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s",
        "labels": {"team": "a"}}, "spec": {"selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    serde_json::from_value(service).unwrap()
}

fn pod(n: usize, ready: bool) -> Arc<Pod> {
    let ready = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{n}"), "namespace": "ns", "uid": format!("u{n:04}"),
                "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c",
                "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": format!("10.42.{}.{}", n / 250, n % 250 + 1),
                "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap(),
    )
}

fn backends(service: &Service, pods: &[Arc<Pod>]) -> Vec<Backend> {
    backend::backends(service, pods, |_| None)
}

/// Applies a plan as the API server would.
fn apply(slices: &mut Vec<Arc<EndpointSlice>>, actions: Vec<Action>) -> (usize, usize, usize) {
    let mut counts = (0, 0, 0);
    for action in actions {
        match action {
            Action::Create(mut slice) => {
                slice.metadata.name = Some(format!("web-{}", slices.len()));
                slices.push(Arc::new(slice));
                counts.0 += 1;
            }
            Action::Update(slice) => {
                let place = slices
                    .iter_mut()
                    .find(|old| old.name_any() == slice.name_any());
                *place.unwrap() = Arc::new(slice);
                counts.1 += 1;
            }
            Action::Delete(slice) => {
                slices.retain(|old| old.name_any() != slice.name_any());
                counts.2 += 1;
            }
        }
    }
    counts
}

#[test]
fn slices_follow_the_pods() {
    let service = service(json!({}));
    let mut slices = Vec::new();
    let mut show = |pods: &[Arc<Pod>]| {
        let actions = plan(&service, &backends(&service, pods), &slices);
        let counts = apply(&mut slices, actions);
        let sizes: Vec<_> = slices
            .iter()
            .map(|s| s.endpoints.as_ref().unwrap().len())
            .collect();
        (counts, sizes)
    };
    assert_eq!(show(&[]), ((1, 0, 0), vec![0]), "a slice without endpoints");
    assert_eq!(show(&[]), ((0, 0, 0), vec![0]));
    let mut pods: Vec<_> = (0..250).map(|n| pod(n, true)).collect();
    assert_eq!(
        show(&pods),
        ((2, 1, 0), vec![100, 100, 50]),
        "the empty one is reused"
    );
    assert_eq!(show(&pods), ((0, 0, 0), vec![100, 100, 50]));
    pods.remove(3);
    pods.push(pod(900, true));
    let (counts, sizes) = show(&pods);
    assert_eq!(counts, (0, 1, 0), "the newcomer takes the place");
    assert_eq!(sizes.iter().sum::<usize>(), 250);
    assert_eq!(show(&pods[..20]).1.iter().sum::<usize>(), 20);
    assert_eq!(show(&[]).1, [0]);
}

#[test]
fn conditions_of_an_endpoint() {
    let mut ending = (*pod(2, true)).clone();
    ending.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    let pods = [pod(0, true), pod(1, false), Arc::new(ending)];
    let shown = |service: &Service| -> Vec<_> {
        let backends = backends(service, &pods);
        backends
            .iter()
            .map(|b| (b.ready, b.serving, b.terminating))
            .collect()
    };
    assert_eq!(
        shown(&service(json!({}))),
        [
            (true, true, false),
            (false, false, false),
            (false, true, true)
        ]
    );
    assert_eq!(
        shown(&service(json!({"publishNotReadyAddresses": true}))),
        [
            (true, true, false),
            (true, false, false),
            (true, true, true)
        ]
    );
}

#[test]
fn what_a_slice_says() {
    let service = service(json!({"clusterIP": "None"}));
    let mut named = (*pod(0, true)).clone();
    let spec = named.spec.as_mut().unwrap();
    spec.hostname = Some("db-0".to_owned());
    spec.subdomain = Some("web".to_owned());
    let actions = plan(&service, &backends(&service, &[Arc::new(named)]), &[]);
    let [Action::Create(slice)] = &actions[..] else {
        panic!("one create expected: {actions:?}");
    };
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(slice.labels()["kubernetes.io/service-name"], "web");
    assert_eq!(slice.labels()["service.kubernetes.io/headless"], "");
    assert_eq!(slice.labels()["team"], "a");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!(
        (port.name.as_deref(), port.port),
        (Some("http"), Some(8080))
    );
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.addresses, ["10.42.0.1"]);
    assert_eq!(endpoint.hostname.as_deref(), Some("db-0"));
    assert_eq!(endpoint.node_name.as_deref(), Some("n1"));
    assert_eq!(
        endpoint.target_ref.as_ref().unwrap().name.as_deref(),
        Some("p0")
    );
}

#[test]
fn pods_with_other_ports_get_slices_of_their_own() {
    let service = service(json!({}));
    let mut other = (*pod(1, true)).clone();
    let port = json!([{"name": "c", "ports": [{"name": "http", "containerPort": 9090}]}]);
    other.spec.as_mut().unwrap().containers = serde_json::from_value(port).unwrap();
    let actions = plan(
        &service,
        &backends(&service, &[pod(0, true), Arc::new(other)]),
        &[],
    );
    assert_eq!(actions.len(), 2);
}

#[test]
fn who_is_no_backend() {
    let external = service(json!({"type": "ExternalName"}));
    assert!(!backend::selects(&external, &pod(0, true)));
    assert!(!backend::selects(
        &service(json!({"selector": {}})),
        &pod(0, true)
    ));
    let mut finished = (*pod(0, true)).clone();
    finished.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    let mut unplaced = (*pod(1, true)).clone();
    unplaced.status.as_mut().unwrap().pod_ip = None;
    let pods = [Arc::new(finished), Arc::new(unplaced)];
    assert!(backends(&service(json!({})), &pods).is_empty());
}

#[test]
fn endpoints_tell_ready_from_not_ready() {
    let service = service(json!({}));
    let backends = backends(&service, &[pod(0, true), pod(1, false)]);
    let endpoints = subsets::plan(&service, &backends, None).unwrap();
    let subset = &endpoints.subsets.as_ref().unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap()[0].ip, "10.42.0.1");
    assert_eq!(
        subset.not_ready_addresses.as_ref().unwrap()[0].ip,
        "10.42.0.2"
    );
    assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
    assert!(subsets::ours(&endpoints));
    assert_eq!(subsets::plan(&service, &backends, Some(&endpoints)), None);
}

#[test]
fn a_pod_without_the_services_ports_is_no_endpoint() {
    let counted = |spec: Value, pods: &[Arc<Pod>]| -> usize {
        let service = service(spec);
        let endpoints = subsets::plan(&service, &backends(&service, pods), None).unwrap();
        let subsets = endpoints.subsets.unwrap_or_default();
        let addresses = subsets
            .iter()
            .flat_map(|subset| subset.addresses.iter().flatten());
        addresses.count()
    };
    let mut other = (*pod(1, true)).clone();
    other.spec.as_mut().unwrap().containers[0].ports = None;
    let pods = [pod(0, true), Arc::new(other)];
    assert_eq!(counted(json!({}), &pods), 1);
    assert_eq!(counted(json!({"clusterIP": "None"}), &pods), 1);
    // One that has no ports itself leads to Pods as such, if it has no address either.
    assert_eq!(counted(json!({"clusterIP": "None", "ports": []}), &pods), 2);
    assert_eq!(
        counted(json!({"clusterIP": "10.43.0.9", "ports": []}), &pods),
        0
    );
}

#[test]
fn those_that_are_ready_are_kept_where_there_are_too_many() {
    let service = service(json!({}));
    let pods: Vec<_> = (0..1100).map(|n| pod(n, n >= 200)).collect();
    let endpoints = subsets::plan(&service, &backends(&service, &pods), None).unwrap();
    let annotations = endpoints.metadata.annotations.unwrap();
    assert_eq!(
        annotations["endpoints.kubernetes.io/over-capacity"],
        "truncated"
    );
    let subset = &endpoints.subsets.unwrap()[0];
    let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
    assert_eq!(
        (count(&subset.addresses), count(&subset.not_ready_addresses)),
        (900, 100)
    );
}

/// Whom a distribution of traffic says the endpoints of a ready Pod and of one that is not are for.
type Hints = (Option<&'static str>, Option<&'static str>, Value);

#[test]
fn hints_follow_the_distribution_of_traffic() {
    let (zones, nodes) = (json!([{"name": "z1"}]), json!([{"name": "n1"}]));
    let both = json!({"forZones": zones, "forNodes": nodes});
    let zone = json!({"forZones": zones});
    let table: [Hints; 8] = [
        (None, Some("z1"), Value::Null),
        (Some("PreferClose"), Some("z1"), zone.clone()),
        (Some("PreferSameZone"), Some("z1"), zone),
        (Some("PreferSameNode"), Some("z1"), both),
        (Some("PreferSameZone"), None, Value::Null),
        (Some("PreferSameZone"), Some(""), Value::Null),
        (
            Some("PreferSameNode"),
            None,
            json!({"forNodes": [{"name": "n1"}]}),
        ),
        (Some("example.com/other"), Some("z1"), Value::Null),
    ];
    let pods = [pod(0, true), pod(1, false)];
    for (distribution, zone, expected) in table {
        let service = service(json!({"trafficDistribution": distribution}));
        let backends = backend::backends(&service, &pods, |_| zone.map(str::to_owned));
        let actions = plan(&service, &backends, &[]);
        let [Action::Create(slice)] = &actions[..] else {
            panic!("one create expected: {actions:?}");
        };
        let hints: Vec<Value> = slice
            .endpoints
            .iter()
            .flatten()
            .map(|endpoint| serde_json::to_value(&endpoint.hints).unwrap())
            .collect();
        assert_eq!(hints, [expected, Value::Null], "{distribution:?} {zone:?}");
    }
}

#[test]
fn hints_go_when_the_distribution_does() {
    let mut slices = Vec::new();
    let pods = [pod(0, true)];
    let mut show = |spec: Value| {
        let service = service(spec);
        let backends = backend::backends(&service, &pods, |_| Some("z1".to_owned()));
        let actions = plan(&service, &backends, &slices);
        apply(&mut slices, actions)
    };
    assert_eq!(show(json!({})), (1, 0, 0));
    assert_eq!(
        show(json!({"trafficDistribution": "PreferSameZone"})),
        (0, 1, 0)
    );
    assert_eq!(
        show(json!({"trafficDistribution": "PreferSameZone"})),
        (0, 0, 0)
    );
    assert_eq!(show(json!({})), (0, 1, 0));
}
