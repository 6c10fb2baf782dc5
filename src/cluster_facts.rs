//! What a node must know of its cluster before it runs anything. It asks a server, and keeps the
//! answer: static Pods run again though no server answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::registry_hosting;
use crate::cluster_network::ClusterNetwork;
use crate::paths::{read_if_present, write_private};

/// How long a server may take to answer a node that knows an earlier answer.
const PATIENCE: Duration = Duration::from_secs(5);
const REGISTRY: &str = "registry";

/// The facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterFacts {
    pub(crate) network: ClusterNetwork,
    /// Where the embedded registry is, if there is one.
    pub(crate) registry: Option<SocketAddr>,
}

impl ClusterFacts {
    /// What a server says, or said before, as that file has it.
    ///
    /// # Errors
    /// No server answers, and none ever has.
    pub(crate) async fn learn(client: &kube::Client, file: &Path) -> Result<Self> {
        let kept = read_if_present(file)?.map(|text| Self::read(&text));
        // What does not read is asked for anew.
        let kept = kept.and_then(Result::ok);
        let ask = async {
            let network = ClusterNetwork::learn(client).await?;
            let registry = registry_hosting(client).await;
            Ok::<_, anyhow::Error>(Self { network, registry })
        };
        let Some(kept) = kept else {
            let facts = ask.await?;
            facts.keep(file)?;
            return Ok(facts);
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(facts)) if facts == kept => {}
            Ok(Ok(facts)) => {
                facts.keep(file)?;
                return Ok(facts);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the cluster is taken to be as it was");
            }
            Err(_) => tracing::warn!("no server answers; the cluster is taken to be as it was"),
        }
        Ok(kept)
    }

    fn keep(&self, file: &Path) -> Result<()> {
        let mut data = self.network.data();
        let registry = self.registry.map(|address| address.to_string());
        data.extend(registry.map(|address| (REGISTRY.to_owned(), address)));
        write_private(file, &serde_json::to_vec(&data)?)
    }

    fn read(text: &str) -> Result<Self> {
        let data: BTreeMap<String, String> = serde_json::from_str(text)?;
        let registry = data
            .get(REGISTRY)
            .map(|address| address.parse::<SocketAddr>());
        Ok(Self {
            network: ClusterNetwork::from_data(&data)?,
            registry: registry.transpose().context("the registry's address")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.json");
        for registry in [None, Some("127.0.0.1:5000".parse().unwrap())] {
            let facts = ClusterFacts {
                network: ClusterNetwork {
                    pods: "10.42.0.0/16".parse().unwrap(),
                    services: "10.43.0.0/16".parse().unwrap(),
                    domain: "cluster.local".to_owned(),
                },
                registry,
            };
            facts.keep(&file).unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(ClusterFacts::read(&text).unwrap(), facts);
        }
        assert!(ClusterFacts::read("{}").is_err());
    }
}
