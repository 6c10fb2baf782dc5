//! Endpoints and EndpointSlices of Services.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{Cluster, create, delete, set_status, until, until_all};

const EMPTY: &str = "kubernetes.io/service-name=empty";

async fn create_empty(cluster: &Cluster) -> Api<Service> {
    let services = cluster.namespaced("default");
    let ports = json!([{"name": "example", "port": 80}]);
    let spec = json!({"selector": {"matches": "nothing"}, "ports": ports});
    create(
        &services,
        json!({"metadata": {"name": "empty"}, "spec": spec}),
    )
    .await;
    services
}

/// Must: a Service that selects no Pods has an EndpointSlice, without endpoints, of the controller
/// Must: the slice is gone once the Service is
#[tokio::test]
async fn endpointslice_should_create_and_delete_endpointslices_for_a_service_with_a_selector_that_matches_no_pods()
 {
    let cluster = Cluster::new().await;
    let services = create_empty(&cluster).await;
    let slices: Api<EndpointSlice> = cluster.namespaced("default");
    let found = until_all(&slices, EMPTY, |slices| slices.len() == 1).await;
    let labels = found[0].metadata.labels.as_ref().unwrap();
    let manager = &labels["endpointslice.kubernetes.io/managed-by"];
    assert_eq!(manager, "endpointslice-controller.k8s.io");
    assert!(found[0].endpoints.iter().flatten().next().is_none());
    delete(&services, "empty").await;
    until_all(&slices, EMPTY, |left| left.is_empty()).await;
}

/// Must: a Service that selects no Pods has Endpoints
/// Must: they are gone once the Service is
#[tokio::test]
async fn endpointscontroller_should_create_and_delete_endpoints_for_a_service_with_a_selector_that_matches_no_pods()
 {
    let cluster = Cluster::new().await;
    let services = create_empty(&cluster).await;
    let endpoints: Api<Endpoints> = cluster.namespaced("default");
    until(&endpoints, "empty", |found| found.is_some()).await;
    delete(&services, "empty").await;
    until(&endpoints, "empty", |found| found.is_none()).await;
}

/// Two Pods, a Service of the first by the number of its port, and a Service of both by the
/// port's name, which each gives to another number.
async fn create_two(cluster: &Cluster) {
    let pods: Api<Pod> = cluster.namespaced("default");
    for (name, ip, ports) in [
        ("pod1", "10.42.0.11", vec![("example-name", 3000)]),
        (
            "pod2",
            "10.42.0.12",
            vec![("example-name", 3001), ("other-port", 3002)],
        ),
    ] {
        let ports: Vec<Value> = ports
            .into_iter()
            .map(|(name, port)| json!({"name": name, "containerPort": port}))
            .collect();
        let labels = json!({name: "on", "shared": "on"});
        let spec = json!({"containers": [{"name": "c", "image": "i", "ports": ports}]});
        create(
            &pods,
            json!({"metadata": {"name": name, "labels": labels}, "spec": spec}),
        )
        .await;
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
        set_status(&pods, name, status).await;
    }
    let services: Api<Service> = cluster.namespaced("default");
    for (name, label, port_name, target) in [
        ("number", "pod1", "example", json!(3000)),
        ("name", "shared", "http", json!("example-name")),
    ] {
        let ports = json!([{"name": port_name, "port": 80, "targetPort": target}]);
        let spec =
            json!({"selector": {label: "on"}, "publishNotReadyAddresses": true, "ports": ports});
        create(&services, json!({"metadata": {"name": name}, "spec": spec})).await;
    }
}

/// Which Pods are at which addresses and ports.
type Targets = BTreeSet<(String, String, i32)>;

fn of_number() -> Targets {
    [("pod1".to_owned(), "10.42.0.11".to_owned(), 3000)].into()
}

fn of_name() -> Targets {
    let second = ("pod2".to_owned(), "10.42.0.12".to_owned(), 3001);
    of_number().into_iter().chain([second]).collect()
}

fn targets_of(endpoints: &Endpoints) -> Targets {
    let mut targets = Targets::new();
    for subset in endpoints.subsets.iter().flatten() {
        for address in subset.addresses.iter().flatten() {
            let target = address
                .target_ref
                .as_ref()
                .and_then(|target| target.name.clone());
            for port in subset.ports.iter().flatten() {
                targets.insert((
                    target.clone().unwrap_or_default(),
                    address.ip.clone(),
                    port.port,
                ));
            }
        }
    }
    targets
}

fn targets_of_slices(slices: &[&EndpointSlice]) -> Targets {
    let mut targets = Targets::new();
    for slice in slices {
        for endpoint in slice.endpoints.iter().flatten() {
            let target = endpoint
                .target_ref
                .as_ref()
                .and_then(|target| target.name.clone());
            for port in slice.ports.iter().flatten() {
                targets.insert((
                    target.clone().unwrap_or_default(),
                    endpoint.addresses[0].clone(),
                    port.port.unwrap_or_default(),
                ));
            }
        }
    }
    targets
}

/// Must: the Endpoints of a Service name the Pods that it selects, their addresses and the port
/// that is meant by number
/// Must: where a port is meant by name, they have of each Pod the number that it gives the name
#[tokio::test]
async fn endpointscontroller_should_create_endpoints_for_pods_matching_a_service() {
    let cluster = Cluster::new().await;
    create_two(&cluster).await;
    let endpoints: Api<Endpoints> = cluster.namespaced("default");
    for (name, want, subsets) in [("number", of_number(), 1), ("name", of_name(), 2)] {
        let found = until(&endpoints, name, |found| {
            found.is_some_and(|found| targets_of(found) == want)
        })
        .await;
        assert_eq!(found.unwrap().subsets.unwrap().len(), subsets);
    }
}

/// Must: the EndpointSlices of a Service name the Pods that it selects, their addresses and the
/// port that is meant by number
/// Must: where a port is meant by name, there is a slice for each number that Pods give the name
/// Must: its Endpoints name the same
/// Must: when Services are deleted, so are their slices
#[tokio::test]
async fn endpointslice_should_create_endpoints_and_endpointslices_for_pods_matching_a_service() {
    let cluster = Cluster::new().await;
    create_two(&cluster).await;
    let endpoints: Api<Endpoints> = cluster.namespaced("default");
    let slices: Api<EndpointSlice> = cluster.namespaced("default");
    let services: Api<Service> = cluster.namespaced("default");
    for (name, want, count) in [("number", of_number(), 1), ("name", of_name(), 2)] {
        let label = format!("kubernetes.io/service-name={name}");
        let found = until_all(&slices, &label, |found| targets_of_slices(found) == want).await;
        assert_eq!(found.len(), count);
        until(&endpoints, name, |found| {
            found.is_some_and(|found| targets_of(found) == want)
        })
        .await;
        delete(&services, name).await;
        until_all(&slices, &label, |left| left.is_empty()).await;
    }
}

/// Must: discovery has the group discovery.k8s.io, with version v1
/// Must: the version has endpointslices
/// Must: Endpoints that were written for a Service without a selector have a slice of the same
/// address and port
/// Must: when they are updated, so is the slice
/// Must: when they are deleted, so is the slice
#[tokio::test]
async fn endpointslicemirroring_should_mirror_a_custom_endpoints_resource_through_create_update_and_delete()
 {
    let cluster = Cluster::new().await;
    let group = cluster.client.list_api_groups().await.unwrap().groups;
    let group = group
        .into_iter()
        .find(|group| group.name == "discovery.k8s.io");
    let mut versions = group.unwrap().versions.into_iter();
    assert!(versions.any(|known| known.version == "v1"));
    let resources = cluster
        .client
        .list_api_group_resources("discovery.k8s.io/v1");
    let mut resources = resources.await.unwrap().resources.into_iter();
    assert!(resources.any(|known| known.name == "endpointslices"));

    let services: Api<Service> = cluster.namespaced("default");
    let spec = json!({"ports": [{"name": "example", "port": 80}]});
    create(
        &services,
        json!({"metadata": {"name": "custom"}, "spec": spec}),
    )
    .await;
    let endpoints: Api<Endpoints> = cluster.namespaced("default");
    let subsets = |ip: &str| json!([{"ports": [{"port": 80}], "addresses": [{"ip": ip}]}]);
    let body = json!({"metadata": {"name": "custom"}, "subsets": subsets("10.1.2.3")});
    create(&endpoints, body).await;
    let slices: Api<EndpointSlice> = cluster.namespaced("default");
    let label = "kubernetes.io/service-name=custom";
    let at = |ip: &str| Targets::from([(String::new(), ip.to_owned(), 80)]);
    let shows = async |ip: &str| {
        let found = until_all(&slices, label, |found| targets_of_slices(found) == at(ip)).await;
        assert_eq!(found.len(), 1);
    };
    shows("10.1.2.3").await;
    let patch = Patch::Merge(json!({"subsets": subsets("10.2.3.4")}));
    endpoints
        .patch("custom", &PatchParams::default(), &patch)
        .await
        .unwrap();
    shows("10.2.3.4").await;
    delete(&endpoints, "custom").await;
    until_all(&slices, label, |left| left.is_empty()).await;
}

/// Must: from the creation of a Service to its endpoints it takes no more than 20 s in half, and
/// no more than 50 s in 99 of 100 cases
#[tokio::test]
async fn service_endpoints_latency_should_not_be_very_high() {
    let cluster = Cluster::new().await;
    let pods: Api<Pod> = cluster.namespaced("default");
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let metadata = json!({"name": "pause", "labels": {"name": "pause"}});
    create(&pods, json!({"metadata": metadata, "spec": spec})).await;
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"phase": "Running", "podIP": "10.42.0.9", "conditions": ready});
    set_status(&pods, "pause", status).await;
    let services: Api<Service> = cluster.namespaced("default");
    let endpoints: Api<Endpoints> = cluster.namespaced("default");
    let mut took = Vec::new();
    for number in 0..100 {
        let name = format!("latency-{number}");
        let spec = json!({"selector": {"name": "pause"}, "ports": [{"port": 80}]});
        let started = Instant::now();
        create(&services, json!({"metadata": {"name": name}, "spec": spec})).await;
        until(&endpoints, &name, |found| {
            found.is_some_and(|found| targets_of(found).len() == 1)
        })
        .await;
        took.push(started.elapsed());
    }
    took.sort();
    assert!(took[49] <= Duration::from_secs(20), "{:?}", took[49]);
    assert!(took[98] <= Duration::from_secs(50), "{:?}", took[98]);
}
