//! What a cluster starts with: its namespaces, its priority classes, flow schemas and priority
//! levels, the group-versions that it serves, the `kubernetes` Service with endpoints that
//! lead to this server, and the `kube-dns` Service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use coracle_apimachinery::status::Status;
use coracle_store::Read;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Namespace, Service, ServicePort,
    ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice,
};
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec, ServiceCIDRStatus};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::auth::{MASTERS, UserInfo};
use crate::registry::erased::Object;
use crate::registry::kinds::{api_service, flow_control};
use crate::registry::strategy::ApiType;
use crate::registry::update::Part;
use crate::registry::{Caller, FieldManager, Registry, Target, meta, typed};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Names, values and descriptions of the priority classes of the system.
const PRIORITY_CLASSES: &[(&str, i32, &str)] = &[
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

const RETRY: Duration = Duration::from_millis(500);
const NAME: &str = "kubernetes";
const PORT: &str = "https";
const DNS_NAME: &str = "kube-dns";

/// Makes everything, and tries again until the store takes it.
pub async fn until_done(registry: &Registry, advertise: Option<SocketAddr>) {
    while let Err(error) = make(registry, advertise).await {
        tracing::warn!(%error, "could not make what a cluster starts with, trying again");
        tokio::time::sleep(RETRY).await;
    }
}

/// Makes what is missing.
///
/// # Errors
/// Those of the registry.
pub async fn make(registry: &Registry, advertise: Option<SocketAddr>) -> Result<(), Status> {
    for name in NAMESPACES {
        let namespace = Namespace {
            metadata: named(name),
            ..Namespace::default()
        };
        ensure(registry, "", namespace).await?;
    }
    for (name, value, description) in PRIORITY_CLASSES {
        let class = PriorityClass {
            metadata: named(name),
            value: Some(*value),
            description: Some((*description).to_owned()),
            ..PriorityClass::default()
        };
        ensure(registry, "", class).await?;
    }
    flow_control(registry).await?;
    for service in api_service::local(registry.kinds()) {
        ensure(registry, "", service).await?;
    }
    service_range(registry).await?;
    kubernetes_service(registry, advertise).await?;
    dns_service(registry).await
}

/// Makes the mandatory and the suggested flow schemas and priority levels that are missing.
///
/// # Errors
/// Those of the registry.
pub(crate) async fn flow_control(registry: &Registry) -> Result<(), Status> {
    for level in flow_control::bootstrap_levels() {
        make_missing(registry, level).await?;
    }
    for schema in flow_control::bootstrap_schemas() {
        make_missing(registry, schema).await?;
    }
    Ok(())
}

/// Makes an object of the cluster that is not at hand.
async fn make_missing<T: ApiType>(registry: &Registry, object: T) -> Result<(), Status> {
    let name = object.metadata().name.clone().unwrap_or_default();
    let key = Target {
        kind: registry.kind_of::<T>()?,
        namespace: "",
        name: &name,
    }
    .key();
    match registry.store.get(&key, Read::AtLeast(0)).await {
        Ok(Some(_)) => Ok(()),
        _ => ensure(registry, "", object).await,
    }
}

/// Makes the Service under whose address guests find DNS, so that nobody else gets the address and
/// people find it where they expect it. It has no endpoints: every node answers there itself.
async fn dns_service(registry: &Registry) -> Result<(), Status> {
    let address = registry.services.cluster_ips.dns();
    let mut metadata = named(DNS_NAME);
    metadata.labels = Some(
        [
            ("k8s-app", DNS_NAME),
            ("kubernetes.io/cluster-service", "true"),
            ("kubernetes.io/name", "CoreDNS"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
    );
    let port = |name: &str, protocol: &str| ServicePort {
        name: Some(name.to_owned()),
        port: 53,
        protocol: Some(protocol.to_owned()),
        target_port: Some(IntOrString::Int(53)),
        ..ServicePort::default()
    };
    let service = Service {
        metadata,
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.to_string()),
            ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
            type_: Some("ClusterIP".to_owned()),
            session_affinity: Some("None".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    match ensure(registry, "kube-system", service).await {
        // The rest of the cluster works without it, and trying again would not help.
        Err(status) if status.reason() == "Invalid" => {
            tracing::error!(
                %address,
                error = %status,
                "the Service kube-system/kube-dns was not made; if another Service has its address, delete that one and start the server again"
            );
            Ok(())
        }
        made => made,
    }
}

/// The range of the Services as an object, which says that it is in use.
async fn service_range(registry: &Registry) -> Result<(), Status> {
    let mut range = ServiceCIDR {
        metadata: named(NAME),
        spec: Some(ServiceCIDRSpec {
            cidrs: Some(vec![registry.services.cluster_ips.to_string()]),
        }),
        ..ServiceCIDR::default()
    };
    ensure(registry, "", range.clone()).await?;
    range.status = Some(ServiceCIDRStatus {
        conditions: Some(vec![Condition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: String::new(),
            message: "Kubernetes default Service CIDR is ready".to_owned(),
            observed_generation: None,
            last_transition_time: meta::now(),
        }]),
    });
    let user = myself();
    let caller = Caller {
        user: &user,
        dry_run: false,
        manager: FieldManager::Update("kube-apiserver"),
        noted: None,
    };
    let target = Target {
        kind: registry.kind_of::<ServiceCIDR>()?,
        namespace: "",
        name: NAME,
    };
    // One that has conditions keeps them, with the time since when they hold.
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let present: ServiceCIDR = typed(current.boxed())?;
        let conditions = present.status.as_ref().and_then(|s| s.conditions.as_ref());
        let known = conditions.is_some_and(|conditions| !conditions.is_empty());
        Ok(Box::new(if known { present } else { range.clone() }))
    };
    registry
        .update(target, Part::Status, &change, caller)
        .await
        .map(|_| ())
}

async fn kubernetes_service(
    registry: &Registry,
    advertise: Option<SocketAddr>,
) -> Result<(), Status> {
    let mut metadata = named(NAME);
    metadata.labels = Some(BTreeMap::from([
        ("component".to_owned(), "apiserver".to_owned()),
        ("provider".to_owned(), NAME.to_owned()),
    ]));
    let port = advertise.map_or(6443, |address| address.port());
    let service = Service {
        metadata,
        spec: Some(ServiceSpec {
            cluster_ip: Some(registry.services.cluster_ips.first().to_string()),
            ports: Some(vec![ServicePort {
                name: Some(PORT.to_owned()),
                port: 443,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(port.into())),
                ..ServicePort::default()
            }]),
            type_: Some("ClusterIP".to_owned()),
            session_affinity: Some("None".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    ensure(registry, "default", service).await?;
    let Some(address) = advertise else {
        return Ok(());
    };
    let subset = EndpointSubset {
        addresses: Some(vec![EndpointAddress {
            ip: address.ip().to_string(),
            ..EndpointAddress::default()
        }]),
        ports: Some(vec![EndpointPort {
            name: Some(PORT.to_owned()),
            port: port.into(),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
        ..EndpointSubset::default()
    };
    let mut metadata = named(NAME);
    // Endpoints that are kept here are not mirrored to a slice by a controller.
    let skip = "endpointslice.kubernetes.io/skip-mirror".to_owned();
    metadata.labels = Some(BTreeMap::from([(skip, "true".to_owned())]));
    replace(
        registry,
        Endpoints {
            metadata,
            subsets: Some(vec![subset]),
        },
    )
    .await?;
    let mut metadata = named(NAME);
    let owner = "kubernetes.io/service-name".to_owned();
    metadata.labels = Some(BTreeMap::from([(owner, NAME.to_owned())]));
    let slice = EndpointSlice {
        metadata,
        address_type: if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![address.ip().to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        }]),
        ports: Some(vec![SlicePort {
            name: Some(PORT.to_owned()),
            port: Some(port.into()),
            protocol: Some("TCP".to_owned()),
            ..SlicePort::default()
        }]),
    };
    replace(registry, slice).await
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

fn myself() -> UserInfo {
    UserInfo::new("system:apiserver", &[MASTERS])
}

/// Creates an object unless it exists.
async fn ensure<T: ApiType>(registry: &Registry, namespace: &str, object: T) -> Result<(), Status> {
    let kind = registry.kind_of::<T>()?;
    let user = myself();
    let caller = Caller {
        user: &user,
        dry_run: false,
        manager: FieldManager::Update("kube-apiserver"),
        noted: None,
    };
    let target = Target {
        kind,
        namespace,
        name: "",
    };
    match registry.create(target, Box::new(object), caller).await {
        Err(status) if status.reason() != "AlreadyExists" => Err(status),
        _ => Ok(()),
    }
}

/// Creates an object in the default namespace, or makes the one that exists alike.
async fn replace<T: ApiType>(registry: &Registry, object: T) -> Result<(), Status> {
    ensure(registry, "default", object.clone()).await?;
    let kind = registry.kind_of::<T>()?;
    let user = myself();
    let caller = Caller {
        user: &user,
        dry_run: false,
        manager: FieldManager::Update("kube-apiserver"),
        noted: None,
    };
    let target = Target {
        kind,
        namespace: "default",
        name: NAME,
    };
    let change = |_: &dyn Object| Ok(Box::new(object.clone()) as Box<dyn Object>);
    registry
        .update(target, Part::Main, &change, caller)
        .await
        .map(|_| ())
}
