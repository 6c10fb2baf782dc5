//! Cluster IPs and node ports.

use coracle_store::{MemoryStore, Precondition, Read, Store};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{Api, CONFIG_MAPS, DEADLINE};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut body = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    body["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn addresses_are_given_kept_and_freed() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.node_ports = 30000..=30001
    })
    .await;
    let one = api
        .post(SERVICES, &service("one", json!({"type": "NodePort"})))
        .await
        .ok(201);
    let ip = one["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.43."), "{ip}");
    assert_eq!(one["spec"]["clusterIPs"], json!([ip]));
    let port = one["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    let path = format!("{SERVICES}/one");

    // Applied again without its addresses, it keeps them.
    let again = api
        .put(
            &path,
            &service("one", json!({"type": "NodePort", "selector": {"c": "d"}})),
        )
        .await
        .ok(200);
    assert_eq!(again["spec"]["clusterIP"], ip.as_str());
    assert_eq!(again["spec"]["ports"][0]["nodePort"], port);

    let taken = api
        .post(SERVICES, &service("two", json!({"clusterIP": ip})))
        .await
        .fails(422, "Invalid");
    assert!(
        taken.contains("provided IP is already allocated"),
        "{taken}"
    );
    let outside = api
        .post(SERVICES, &service("two", json!({"clusterIP": "10.9.0.1"})))
        .await
        .fails(422, "Invalid");
    assert!(outside.contains("not in the valid range"), "{outside}");
    let ports = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let taken = api
        .post(SERVICES, &service("two", ports))
        .await
        .fails(422, "Invalid");
    assert!(
        taken.contains("spec.ports[0].nodePort") && taken.contains("already allocated"),
        "{taken}"
    );

    // A type without node ports gives them back.
    let plain = api
        .put(&path, &service("one", json!({"type": "ClusterIP"})))
        .await
        .ok(200);
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
    let ports = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    api.post(SERVICES, &service("two", ports)).await.ok(201);

    api.delete(&path).await.ok(200);
    let three = api
        .post(SERVICES, &service("three", json!({"clusterIP": ip})))
        .await
        .ok(201);
    assert_eq!(three["spec"]["clusterIP"], ip.as_str());
}

#[tokio::test]
async fn node_ports_run_out() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.node_ports = 30000..=30001
    })
    .await;
    for name in ["one", "two"] {
        api.post(SERVICES, &service(name, json!({"type": "NodePort"})))
            .await
            .ok(201);
    }
    let message = api
        .post(SERVICES, &service("three", json!({"type": "NodePort"})))
        .await
        .fails(500, "InternalError");
    assert!(message.contains("range is full"), "{message}");
    // What was refused has left no address behind.
    api.delete(&format!("{SERVICES}/one")).await.ok(200);
    api.post(SERVICES, &service("three", json!({"type": "NodePort"})))
        .await
        .ok(201);
}

#[tokio::test]
async fn no_address_is_given_twice_under_load() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.service_cidr = "10.43.0.0/26".parse().unwrap()
    })
    .await;
    let creates = (0..60).map(|n| {
        let api = api.clone();
        tokio::spawn(async move {
            api.post(SERVICES, &service(&format!("s{n}"), json!({})))
                .await
                .ok(201)
        })
    });
    let mut ips: Vec<String> = Vec::new();
    for created in futures::future::join_all(creates).await {
        ips.push(
            created.unwrap()["spec"]["clusterIP"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    ips.sort();
    ips.dedup();
    assert_eq!(ips.len(), 60);
}

#[tokio::test]
async fn services_without_addresses() {
    let api = Api::new().await;
    let headless = api
        .post(SERVICES, &service("headless", json!({"clusterIP": "None"})))
        .await
        .ok(201);
    assert_eq!(headless["spec"]["clusterIP"], "None");
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let external = api
        .post(SERVICES, &service("external", external))
        .await
        .ok(201);
    assert!(external["spec"].get("clusterIP").is_none(), "{external}");
    let plain = api
        .put(
            &format!("{SERVICES}/external"),
            &service("external", json!({"type": "ClusterIP"})),
        )
        .await
        .ok(200);
    assert!(
        plain["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .starts_with("10.43.")
    );
}

#[tokio::test]
async fn tcp_and_udp_of_one_port_share_a_node_port() {
    let api = Api::new().await;
    let ports = json!({"type": "NodePort", "ports": [
        {"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"},
    ]});
    let created = api.post(SERVICES, &service("dns", ports)).await.ok(201);
    let ports = created["spec"]["ports"].as_array().unwrap();
    assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);

    // One that is named for either is shared too.
    let api = Api::new().await;
    let ports = json!({"type": "NodePort", "ports": [
        {"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053},
    ]});
    let created = api.post(SERVICES, &service("named", ports)).await.ok(201);
    assert_eq!(node_ports(&created), [Some(30053), Some(30053)]);

    // What two ports name is refused where it would be tried only.
    let ports = json!({"type": "NodePort", "ports": [
        {"name": "t", "port": 53, "protocol": "TCP", "nodePort": 30054}, {"name": "u", "port": 54, "protocol": "UDP", "nodePort": 30054},
    ]});
    for query in ["", "?dryRun=All"] {
        let message = api
            .post(
                &format!("{SERVICES}{query}"),
                &service("two", ports.clone()),
            )
            .await
            .fails(422, "Invalid");
        let want =
            "spec.ports[1].nodePort: Invalid value: 30054: provided port is already allocated";
        assert!(message.contains(want), "{message}");
    }
}

fn node_ports(service: &Value) -> Vec<Option<i64>> {
    let ports = service["spec"]["ports"].as_array().unwrap().iter();
    ports.map(|port| port["nodePort"].as_i64()).collect()
}

#[tokio::test]
async fn a_balancer_takes_the_node_ports_that_it_names() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.node_ports = 30000..=30001
    })
    .await;
    let balancer = |allocates: bool, first: Value, second: Value| {
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": allocates, "ports": [
            {"name": "a", "port": 80, "nodePort": first}, {"name": "b", "port": 81, "nodePort": second},
        ]})
    };
    let (none, zero, one) = (json!(null), json!(30000), json!(30001));
    let spec = balancer(false, zero.clone(), none.clone());
    let created = api.post(SERVICES, &service("lb", spec)).await.ok(201);
    assert_eq!(node_ports(&created), [Some(30000), None]);
    let message = api
        .post(
            SERVICES,
            &service("other", balancer(false, none.clone(), zero.clone())),
        )
        .await
        .fails(422, "Invalid");
    let want = "spec.ports[1].nodePort: Invalid value: 30000: provided port is already allocated";
    assert!(message.contains(want), "{message}");
    let message = api
        .post(
            SERVICES,
            &service("other", balancer(false, json!(70000), none.clone())),
        )
        .await
        .fails(422, "Invalid");
    assert!(
        message.contains("The range of valid ports is 30000-30001"),
        "{message}"
    );

    // Turned on, allocation gives a node port to the other; turned off, it leaves what is named.
    let path = format!("{SERVICES}/lb");
    let steps = [
        (true, &zero, &none, [Some(30000), Some(30001)]),
        (true, &none, &none, [Some(30000), Some(30001)]),
        (false, &none, &one, [None, Some(30001)]),
        (false, &none, &none, [None, None]),
    ];
    for (allocates, first, second, want) in steps {
        let spec = balancer(allocates, first.clone(), second.clone());
        let changed = api.put(&path, &service("lb", spec)).await.ok(200);
        assert_eq!(node_ports(&changed), want, "{allocates} {first} {second}");
    }
    // What it has no more is free.
    let spec = balancer(true, none.clone(), none);
    let created = api.post(SERVICES, &service("other", spec)).await.ok(201);
    let mut ports = node_ports(&created);
    ports.sort();
    assert_eq!(ports, [Some(30000), Some(30001)]);
}

/// A balancer without node ports, whose port for health checks is `port` or one that is given.
fn local_balancer(policy: &str, port: Value) -> Value {
    json!({
        "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
        "externalTrafficPolicy": policy, "healthCheckNodePort": port,
    })
}

fn health_check_port(service: &Value) -> Option<i64> {
    service["spec"]["healthCheckNodePort"].as_i64()
}

#[tokio::test]
async fn ports_for_health_checks_are_given_kept_and_freed() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.node_ports = 30000..=30001
    })
    .await;
    let (path, none) = (format!("{SERVICES}/lb"), json!(null));
    let any = service("lb", local_balancer("Local", none.clone()));
    let tried = api.post(&format!("{SERVICES}?dryRun=All"), &any).await;
    assert!(health_check_port(&tried.ok(201)).is_some());
    let created = api.post(SERVICES, &any).await.ok(201);
    let port = health_check_port(&created).unwrap();
    assert!((30000..=30001).contains(&port), "{port}");
    let other = 60001 - port;

    // Applied again without it, it is kept; and no other takes its place.
    let again = api.put(&path, &any).await.ok(200);
    assert_eq!(health_check_port(&again), Some(port));
    let changed = service("lb", local_balancer("Local", json!(other)));
    let message = api.put(&path, &changed).await.fails(422, "Invalid");
    let want = "spec.healthCheckNodePort: Forbidden: field is immutable";
    assert!(message.contains(want), "{message}");

    // What somebody has, and what is no node port, is refused.
    let requested = "failed to allocate requested HealthCheck NodePort";
    let taken = format!("{requested} {port}: provided port is already allocated");
    let outside = format!(
        "{requested} 29999: provided port is not in the valid range. The range of valid ports is 30000-30001"
    );
    let mut both = local_balancer("Local", json!(other));
    both["ports"] = json!([{"port": 80, "nodePort": other}]);
    let doubled = format!("{requested} {other}: provided port is already allocated");
    let of_port = "spec.ports[0].nodePort: Invalid value".to_owned();
    let table = [
        (local_balancer("Local", json!(port)), taken),
        (local_balancer("Local", json!(29999)), outside),
        (both, doubled),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}),
            of_port,
        ),
    ];
    for (spec, want) in table {
        for query in ["", "?dryRun=All"] {
            let path = format!("{SERVICES}{query}");
            let two = service("two", spec.clone());
            let message = api.post(&path, &two).await.fails(422, "Invalid");
            assert!(message.contains(&want), "{message}");
        }
    }

    // Who needs none any more, and names the one that it has read, gives it back.
    let plain = service("lb", local_balancer("Cluster", json!(port)));
    let plain = api.put(&path, &plain).await.ok(200);
    assert_eq!(health_check_port(&plain), None);
    let two = service("two", local_balancer("Local", json!(port)));
    let two = api.post(SERVICES, &two).await.ok(201);
    assert_eq!(health_check_port(&two), Some(port));
    let back = api.put(&path, &any).await.ok(200);
    assert_eq!(health_check_port(&back), Some(other));

    // None is left until one is deleted.
    let three = service("three", local_balancer("Local", none));
    let message = api.post(SERVICES, &three).await.fails(500, "InternalError");
    let want = "failed to allocate a HealthCheck NodePort 0: range is full";
    assert!(message.contains(want), "{message}");
    api.delete(&format!("{SERVICES}/two")).await.ok(200);
    let three = api.post(SERVICES, &three).await.ok(201);
    assert_eq!(health_check_port(&three), Some(port));
}

/// A server that starts takes for Services what they hold without a claim.
#[tokio::test]
async fn ports_for_health_checks_are_claimed_at_start() {
    let store = MemoryStore::new();
    let api = Api::over(store.clone(), |_| {}).await;
    let balancer = service("lb", local_balancer("Local", json!(null)));
    let created = api.post(SERVICES, &balancer).await.ok(201);
    let port = health_check_port(&created).unwrap();
    let key = format!("/allocations/nodeports/{port}");
    store.delete(&key, Precondition::default()).await.unwrap();
    let again = Api::over(store.clone(), |_| {}).await;
    let claimed = async {
        while store.get(&key, Read::Latest).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = again.server.run(CancellationToken::new()) => panic!("the server has ended"),
        claimed = tokio::time::timeout(DEADLINE, claimed) => claimed.unwrap(),
    }
}

#[tokio::test]
async fn the_cluster_starts_with_a_way_to_its_api() {
    let store = MemoryStore::new();
    let api = Api::over(store.clone(), |_| {}).await;
    let service = api.get(&format!("{SERVICES}/kubernetes")).await.ok(200);
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
    let endpoints = api
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await
        .ok(200);
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(
        api.get(slice).await.ok(200)["endpoints"][0]["addresses"],
        json!(["192.0.2.1"])
    );
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        api.get(&format!("/api/v1/namespaces/{name}")).await.ok(200);
    }
    let critical = "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical";
    assert_eq!(api.get(critical).await.ok(200)["value"], 2_000_001_000);
    // Started again with another address over the same store.
    let moved = |config: &mut coracle_apiserver::Config| {
        config.advertise = Some("192.0.2.7:6443".parse().unwrap())
    };
    let again = Api::over(store, moved).await;
    assert_eq!(
        again.get(slice).await.ok(200)["endpoints"][0]["addresses"],
        json!(["192.0.2.7"])
    );
    assert_eq!(again.get(CONFIG_MAPS).await.code, 200);
}

#[tokio::test]
async fn the_address_of_dns_is_kept_for_it() {
    let store = MemoryStore::new();
    let api = Api::over(store.clone(), |_| {}).await;
    let path = "/api/v1/namespaces/kube-system/services/kube-dns";
    let made = api.get(path).await.ok(200);
    assert_eq!(made["spec"]["clusterIP"], "10.43.0.10");
    assert_eq!(made["spec"]["selector"], json!(null));
    assert_eq!(made["metadata"]["labels"]["k8s-app"], "kube-dns");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/name"], "CoreDNS");
    let ports: Vec<_> = made["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (&port["name"], &port["protocol"], &port["port"]))
        .collect();
    assert_eq!(
        ports,
        [
            (&json!("dns"), &json!("UDP"), &json!(53)),
            (&json!("dns-tcp"), &json!("TCP"), &json!(53)),
        ]
    );
    let spec = json!({"clusterIP": "10.43.0.10", "ports": [{"port": 53}]});
    let message = api
        .post(SERVICES, &service("other", spec.clone()))
        .await
        .fails(422, "Invalid");
    assert!(message.contains("already allocated"), "{message}");
    // Where somebody else has it all the same, the cluster starts.
    api.delete(path).await.ok(200);
    api.post(SERVICES, &service("other", spec)).await.ok(201);
    let again = Api::over(store, |_| {}).await;
    again.get(path).await.fails(404, "NotFound");
}
