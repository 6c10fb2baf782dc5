//! The ranges and names of a cluster's network, on which all its members agree.
//!
//! The server that makes a cluster has them from its command line and publishes them; a node that
//! joins reads them and has no options of its own for them.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::cli::ClusterOptions;
use crate::defaults;

/// Where the ranges are published, and the keys, which are those of kubeadm's
/// ClusterConfiguration.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "cluster-network";
const POD_SUBNET: &str = "podSubnet";
const SERVICE_SUBNET: &str = "serviceSubnet";
const DNS_DOMAIN: &str = "dnsDomain";
/// How long a node that joins waits for a server that has just begun.
const PATIENCE: Duration = Duration::from_secs(60);

/// The network of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterNetwork {
    /// All Pods.
    pub(crate) pods: Ipv4Net,
    /// All Services.
    pub(crate) services: Ipv4Net,
    /// The domain of all names.
    pub(crate) domain: String,
}

impl ClusterNetwork {
    /// The network that the options describe, in which a node gets a range of `node_mask` bits.
    pub(crate) fn new(options: &ClusterOptions, node_mask: u8) -> Result<Self> {
        let (pods, services) = (options.cluster_cidr.trunc(), options.service_cidr.trunc());
        ensure!(
            !pods.contains(&services) && !services.contains(&pods),
            "--cluster-cidr {pods} and --service-cidr {services} overlap: choose ranges apart"
        );
        ensure!(
            (12..=28).contains(&services.prefix_len()),
            "--service-cidr {services} must have a prefix length from 12 to 28"
        );
        ensure!(
            pods.prefix_len() >= 8 && node_mask >= pods.prefix_len() && node_mask <= 29,
            "--node-cidr-mask-size {node_mask} must lie between the prefix length of --cluster-cidr {pods}, itself 8 or more, and 29"
        );
        Ok(Self {
            pods,
            services,
            domain: defaults::DOMAIN.to_owned(),
        })
    }

    /// The address of the `kubernetes` Service.
    pub(crate) fn kubernetes(&self) -> IpAddr {
        self.service(1)
    }

    /// The names and the address of the `kubernetes` Service, as Pods have them in URLs.
    pub(crate) fn api_hosts(&self) -> Vec<String> {
        let full = format!("kubernetes.default.svc.{}", self.domain);
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let names = names.into_iter().map(str::to_owned);
        let address = self.kubernetes().to_string();
        names.chain([full, address]).collect()
    }

    /// The address of the cluster's DNS, the Service `kube-dns`: the tenth one, as in k3s and
    /// kubeadm.
    pub(crate) fn dns(&self) -> IpAddr {
        self.service(10)
    }

    fn service(&self, position: u32) -> IpAddr {
        // The range has at least 16 addresses, so this is one of them.
        IpAddr::V4(Ipv4Addr::from(
            u32::from(self.services.network()) + position,
        ))
    }

    /// As it is published and kept.
    pub(crate) fn data(&self) -> BTreeMap<String, String> {
        [
            (POD_SUBNET, self.pods.to_string()),
            (SERVICE_SUBNET, self.services.to_string()),
            (DNS_DOMAIN, self.domain.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// Tells the nodes.
    pub(crate) async fn publish(&self, client: &kube::Client) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": self.data(),
        }))?;
        crate::agent::put_config_map(&maps, NAME, &map).await
    }

    /// What the server has published; waits for it if the server has only just begun.
    pub(crate) async fn learn(client: &kube::Client) -> Result<Self> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut found = watcher(maps, only)
            .default_backoff()
            .applied_objects()
            .filter_map(|map| std::future::ready(map.ok()))
            .boxed();
        let map = tokio::time::timeout(PATIENCE, found.next())
            .await
            .ok()
            .flatten()
            .with_context(|| {
                format!(
                    "the server has not said which addresses Pods and Services have (ConfigMap {NAMESPACE}/{NAME}): is it running, and of this release?"
                )
            })?;
        Self::from_data(&map.data.unwrap_or_default())
    }

    /// What [`Self::data`] has made.
    pub(crate) fn from_data(data: &BTreeMap<String, String>) -> Result<Self> {
        let value = |key: &str| {
            data.get(key)
                .with_context(|| format!("ConfigMap {NAMESPACE}/{NAME} has no {key}"))
        };
        let range = |key: &str| -> Result<Ipv4Net> {
            let text = value(key)?;
            text.parse().with_context(|| {
                format!("{key} of ConfigMap {NAMESPACE}/{NAME} is no range: {text:?}")
            })
        };
        Ok(Self {
            pods: range(POD_SUBNET)?,
            services: range(SERVICE_SUBNET)?,
            domain: value(DNS_DOMAIN)?.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(pods: &str, services: &str, mask: u8) -> Result<ClusterNetwork> {
        let options = ClusterOptions {
            cluster_cidr: pods.parse().unwrap(),
            service_cidr: services.parse().unwrap(),
            node_cidr_mask_size: None,
        };
        ClusterNetwork::new(&options, mask)
    }

    #[test]
    fn ranges_that_cannot_work_are_refused() {
        for (pods, services, mask, fits) in [
            ("10.42.0.0/16", "10.43.0.0/16", 24, true),
            ("10.42.7.9/16", "10.43.0.0/28", 16, true),
            ("10.0.0.0/8", "10.43.0.0/16", 24, false),
            ("10.43.1.0/24", "10.43.0.0/16", 26, false),
            ("10.42.0.0/16", "10.43.0.0/29", 24, false),
            ("10.42.0.0/16", "10.43.0.0/16", 15, false),
            ("10.42.0.0/16", "10.43.0.0/16", 30, false),
        ] {
            let made = network(pods, services, mask);
            assert_eq!(made.is_ok(), fits, "{pods} {services} {mask}: {made:?}");
        }
    }

    #[test]
    fn what_is_published_is_read_back() {
        let network = network("10.42.0.0/16", "10.96.0.0/12", 24).unwrap();
        assert_eq!(network.kubernetes().to_string(), "10.96.0.1");
        assert_eq!(network.dns().to_string(), "10.96.0.10");
        let data = network.data();
        assert_eq!(ClusterNetwork::from_data(&data).unwrap(), network);
        let error = ClusterNetwork::from_data(&BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains(POD_SUBNET), "{error}");
    }
}
