//! `coracle up` and `coracle server`: a server, and a node beside it in the same process.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use coracle_apiserver::Verbosity;
use coracle_kubelet::{KUBELET_PORT, NodePolicy};
use coracle_network::Alias;
use coracle_runtime::Protocol;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Namespace, Service};
use kube::Discovery;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::runtime::wait::await_condition;
use tokio_util::sync::CancellationToken;

use crate::agent::{NodeConfig, RunningNode, publish_registry};
use crate::api_server::ApiOptions;
use crate::apply::{self, Applied, Bundle};
use crate::cli::{
    ListenOptions, NodeOptions, ServeOptions, ServerOptions, ServiceAccountOptions, UpOptions,
};
use crate::cluster_network::ClusterNetwork;
use crate::paths::DataDir;
use crate::server::{Server, ServerConfig, reachable};
use crate::{defaults, host, kubelet_args, logging, push, shutdown};

/// How long `up` waits before it says that applied Services have no endpoints yet.
const PATIENCE: Duration = Duration::from_secs(120);

/// What differs between `up` and `server`.
struct Plan {
    data: DataDir,
    listen: ListenOptions,
    service_accounts: ServiceAccountOptions,
    api: ApiOptions,
    verbosity: Verbosity,
    node: Option<NodeOptions>,
    names: Vec<String>,
    network: ClusterNetwork,
    node_mask: u8,
    max_pods: u32,
    /// How the node keeps room for itself.
    policy: NodePolicy,
    /// Whether Pods end with the process.
    owns_pods: bool,
    bundles: Vec<Bundle>,
}

impl Plan {
    /// Of a server and its node, whose Pods outlive the process.
    fn new(
        options: ServeOptions,
        verbosity: Verbosity,
        policy: NodePolicy,
        node_mask: u8,
        max_pods: u32,
    ) -> Result<Self> {
        let policy = kubelet_args::policy(policy, &options.node.kubelet_arg)?;
        let node_mask = options.cluster.node_cidr_mask_size.unwrap_or(node_mask);
        Ok(Self {
            data: DataDir::new(options.data.data_dir)?,
            listen: options.listen,
            service_accounts: options.service_accounts,
            api: options.api,
            verbosity,
            node: Some(options.node),
            names: Vec::new(),
            network: ClusterNetwork::new(&options.cluster, node_mask)?,
            node_mask,
            max_pods,
            policy,
            owns_pods: false,
            bundles: Vec::new(),
        })
    }
}

/// `coracle up`.
pub(crate) async fn up(options: UpOptions) -> Result<()> {
    let verbosity = logging::start(options.serve.log.log.as_deref(), "warn")?;
    // What cannot be read is said before anything starts.
    let bundles = options
        .apply
        .iter()
        .map(|path| apply::read(path))
        .collect::<Result<Vec<_>>>()?;
    let (policy, mask) = (defaults::up_policy(), defaults::UP_NODE_MASK);
    let plan = Plan::new(
        options.serve,
        verbosity,
        policy,
        mask,
        defaults::UP_MAX_PODS,
    )?;
    run(Plan {
        owns_pods: true,
        bundles,
        ..plan
    })
    .await
}

/// `coracle server`.
pub(crate) async fn server(options: ServerOptions) -> Result<()> {
    let verbosity = logging::start(options.serve.log.log.as_deref(), "info")?;
    let (policy, mask) = (NodePolicy::default(), defaults::NODE_MASK);
    let mut plan = Plan::new(options.serve, verbosity, policy, mask, defaults::MAX_PODS)?;
    plan.names = options.tls_san;
    if options.no_node {
        plan.node = None;
    }
    run(plan).await
}

async fn run(plan: Plan) -> Result<()> {
    let started = Instant::now();
    let cancel = CancellationToken::new();
    let signals = shutdown::on_signals(cancel.clone())?;
    let advertise = host::node_address(plan.node.as_ref().and_then(|node| node.node_ip));
    let mut server = Server::start(ServerConfig {
        data: plan.data.clone(),
        listen: plan.listen.listen,
        registry_listen: plan.listen.registry_listen,
        api: plan.api.clone(),
        verbosity: plan.verbosity.clone(),
        advertise,
        names: plan.names.clone(),
        service_accounts: plan.service_accounts.clone(),
        network: plan.network.clone(),
        node_mask: plan.node_mask,
    })
    .await?;
    let handle = server.handle();
    let mut node = None;
    let outcome = tokio::select! {
        () = cancel.cancelled() => Ok(()),
        error = server.failed() => Err(error),
        error = Box::pin(serve(&plan, &handle, &mut node, started)) => Err(error),
    };
    if plan.owns_pods && outcome.is_ok() {
        println!("ending: Pods are stopped");
    }
    server.stop_deciding().await;
    if let Some(node) = node {
        if plan.owns_pods {
            node.stop_pods().await;
            node.leave().await;
        } else {
            node.stop().await;
        }
    }
    server.stop().await;
    signals.abort();
    outcome
}

/// Everything after the server's start. Ends only with an error.
async fn serve(
    plan: &Plan,
    server: &crate::server::Handle,
    running: &mut Option<RunningNode>,
    started: Instant,
) -> anyhow::Error {
    let work = async {
        let admin = server.client_as("kubernetes-admin", coracle_apiserver::auth::MASTERS);
        until_bootstrapped(&admin).await?;
        let target = server.push_target();
        publish_registry(&admin, server.registry_hosting()).await?;
        plan.network.publish(&admin).await?;
        println!(
            "Coracle {} in {}",
            env!("CARGO_PKG_VERSION"),
            plan.data.root().display()
        );
        println!("  API         https://{}", reachable(server.api_address));
        println!("  registry    {}", target.name);
        println!(
            "  kubeconfig  export KUBECONFIG={}",
            plan.data.kubeconfig().display()
        );
        match &plan.node {
            None => println!(
                "the server is ready ({:.2} s)",
                started.elapsed().as_secs_f64()
            ),
            Some(options) => {
                let name = host::node_name(options.node_name.as_deref())?;
                let config = node_config(plan, options, server, &name)?;
                let node = running.insert(RunningNode::start(config).await?);
                node.ready().await?;
                println!(
                    "node {name} is Ready ({:.2} s)",
                    started.elapsed().as_secs_f64()
                );
            }
        }
        if !plan.bundles.is_empty() {
            deploy(plan, &admin, server).await?;
        }
        match running {
            Some(node) => Err(node.failed().await),
            None => std::future::pending().await,
        }
    };
    let outcome: Result<std::convert::Infallible> = work.await;
    match outcome {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn node_config(
    plan: &Plan,
    options: &NodeOptions,
    server: &crate::server::Handle,
    name: &str,
) -> Result<NodeConfig> {
    let address = host::node_address(options.node_ip);
    Ok(NodeConfig {
        name: name.to_owned(),
        directory: plan.data.agent(),
        address,
        network: plan.network.clone(),
        listen: SocketAddr::from(([0, 0, 0, 0], options.kubelet_port.unwrap_or(KUBELET_PORT))),
        max_pods: options.max_pods.unwrap_or(plan.max_pods),
        policy: plan.policy.clone(),
        pod_network: options.pod_network,
        container_runtime: options.container_runtime_endpoint.clone(),
        api_hosts: vec![server.advertised.ip().to_string()],
        client: server.node_client(name),
        identity: server.node_identity(name, &[address])?,
        registry: Some(server.registry_address),
        aliases: vec![Alias {
            protocol: Protocol::Tcp,
            known: server.advertised,
            actual: reachable(server.api_address),
        }],
        ephemeral: plan.owns_pods,
        services: Some(server.services()),
    })
}

/// Waits until the namespaces that every cluster has are there.
async fn until_bootstrapped(client: &kube::Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["default", "kube-public"] {
        let there = |namespace: Option<&Namespace>| namespace.is_some();
        await_condition(namespaces.clone(), name, there).await?;
    }
    Ok(())
}

/// Pushes guests, applies manifests, and says where Services are.
async fn deploy(plan: &Plan, client: &kube::Client, server: &crate::server::Handle) -> Result<()> {
    let from = last_event(client).await?;
    for (image, file) in plan.bundles.iter().flat_map(|bundle| &bundle.guests) {
        let pushed = push::push_file(file, image, server.push_target()).await?;
        println!("pushed {}", pushed.reference);
    }
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut applied = Vec::new();
    for object in plan.bundles.iter().flat_map(|bundle| &bundle.objects) {
        let done = apply::apply(client, &discovery, object).await?;
        println!("{} {}", done.name, done.verb);
        applied.push(done);
    }
    tokio::select! {
        urls = say_urls(client, &applied) => urls,
        error = say_pulls(client, &from) => Err(error),
    }
}

async fn last_event(client: &kube::Client) -> Result<String> {
    let events: Api<Event> = Api::all(client.clone());
    let list = events
        .list(&kube::api::ListParams::default().limit(1))
        .await?;
    Ok(list.metadata.resource_version.unwrap_or_default())
}

/// Prints how pulls go, and what keeps Pods from starting, until it is dropped.
async fn say_pulls(client: &kube::Client, from: &str) -> anyhow::Error {
    let events: Api<Event> = Api::all(client.clone());
    let mut from = from.to_owned();
    loop {
        let stream = match events.watch(&WatchParams::default(), &from).await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        let mut stream = stream.boxed();
        while let Some(Ok(event)) = stream.next().await {
            let (WatchEvent::Added(event) | WatchEvent::Modified(event)) = event else {
                continue;
            };
            from = event.metadata.resource_version.clone().unwrap_or(from);
            let reason = event.reason.as_deref().unwrap_or_default();
            if matches!(
                reason,
                "Pulling" | "Pulled" | "Failed" | "FailedScheduling" | "BackOff"
            ) {
                println!(
                    "  {} {}",
                    event.involved_object.name.unwrap_or_default(),
                    event.message.unwrap_or_default()
                );
            }
        }
    }
}

/// Prints where each applied Service with a port on the node is, when something serves it.
async fn say_urls(client: &kube::Client, applied: &[Applied]) -> Result<()> {
    for object in applied {
        let Some(service) = object.service(client).await? else {
            continue;
        };
        let ports = service_urls(&service);
        if ports.is_empty() {
            continue;
        }
        let served = tokio::time::timeout(PATIENCE, async {
            until_served(client, &service).await?;
            until_open(&service).await;
            anyhow::Ok(())
        });
        let served = served.await;
        let note = match served {
            Ok(served) => {
                served?;
                ""
            }
            Err(_) => "  (nothing serves it yet: see kubectl get pods)",
        };
        for url in ports {
            println!("{}  {url}{note}", object.name);
        }
    }
    Ok(())
}

async fn until_served(client: &kube::Client, service: &Service) -> Result<()> {
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    let metadata = &service.metadata;
    let slices: Api<EndpointSlice> = Api::namespaced(
        client.clone(),
        metadata.namespace.as_deref().unwrap_or("default"),
    );
    let name = metadata.name.as_deref().unwrap_or_default();
    let only = kube::runtime::watcher::Config::default()
        .labels(&format!("kubernetes.io/service-name={name}"));
    let mut changes = kube::runtime::watcher(slices, only).boxed();
    while let Some(event) = changes.next().await {
        use kube::runtime::watcher::Event;
        if let Event::Apply(slice) | Event::InitApply(slice) = event? {
            let mut endpoints = slice.endpoints.iter().flatten();
            if endpoints.any(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)) {
                return Ok(());
            }
        }
    }
    anyhow::bail!("the watch of endpoints ended")
}

/// Waits until the ports of a Service on this node take connections.
async fn until_open(service: &Service) {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let numbers = ports
        .into_iter()
        .flatten()
        .filter(|port| port.protocol.as_deref() != Some("UDP"))
        .filter_map(|port| u16::try_from(port.node_port?).ok());
    for number in numbers {
        while tokio::net::TcpStream::connect(("127.0.0.1", number))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// URLs, or addresses for what is not HTTP, of a Service's ports on this node.
fn service_urls(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|port| {
            let number = port.node_port?;
            let named = |wanted: &str| {
                [&port.name, &port.app_protocol]
                    .into_iter()
                    .flatten()
                    .any(|name| name == wanted || name.starts_with(&format!("{wanted}-")))
            };
            let is_http = named("http") || matches!(port.port, 80 | 8080);
            let scheme = if is_http { "http://" } else { "" };
            let end = if is_http { "/" } else { "" };
            Some(format!("{scheme}127.0.0.1:{number}{end}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn urls_are_printed_for_http_and_addresses_for_the_rest() {
        let service: Service = serde_json::from_value(json!({
            "spec": {"ports": [
                {"name": "http", "port": 81, "nodePort": 30001},
                {"port": 80, "nodePort": 30002},
                {"name": "echo", "port": 7000, "nodePort": 30003},
                {"name": "inner", "port": 9000},
            ]},
        }))
        .unwrap();
        assert_eq!(
            service_urls(&service),
            [
                "http://127.0.0.1:30001/",
                "http://127.0.0.1:30002/",
                "127.0.0.1:30003"
            ]
        );
    }
}
