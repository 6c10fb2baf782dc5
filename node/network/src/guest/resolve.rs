//! Looks names up: the Pod's own first, then the cluster's, then with the host's resolver.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use coracle_runtime::NetworkError;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::pods::PodRecord;
use crate::snapshot::{Named, Part, Pods, Services};

use super::names::{candidates, is_in, pod_address};
use super::{SnapshotNetwork, View};

/// Aliases that are followed.
const ALIASES: usize = 8;
/// How long the agent may take to publish a new Pod before its guests' look-ups go on without
/// a search path.
const OWN_RECORD: Duration = Duration::from_secs(2);
/// Time for one look-up with the host's resolver.
const HOST_TIMEOUT: Duration = Duration::from_secs(15);

/// Look-ups with the host's resolver at the same time; each takes a thread.
static HOST_LOOKUPS: Semaphore = Semaphore::const_new(16);

impl SnapshotNetwork {
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, NetworkError> {
        let unresolvable = || NetworkError::NameUnresolvable(name.to_owned());
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(name).parse::<IpAddr>() {
            return Ok(vec![ip]);
        }
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        if lower == "localhost" || lower.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        let view = self.shared.view().ok_or_else(unresolvable)?;
        let pod = self.own_record().await;
        if let Some(addresses) = pod.hosts.get(&lower) {
            return Ok(addresses.clone());
        }
        for candidate in candidates(name, &pod) {
            if let Some(addresses) = self.look_up_absolute(&view, &pod, candidate).await? {
                return Ok(addresses);
            }
        }
        Err(unresolvable())
    }

    /// The record of this Pod, waiting a little for the agent to publish a new one.
    async fn own_record(&self) -> PodRecord {
        let deadline = Instant::now() + OWN_RECORD;
        loop {
            let pods = self.shared.reader.part(Part::Pods);
            let found = pods.and_then(|part| {
                let pods = Pods(&part);
                self.ips.iter().find_map(|ip| pods.get(*ip))
            });
            match found {
                Some(record) => return record,
                None if Instant::now() >= deadline => {
                    return PodRecord {
                        cluster_names: true,
                        ..PodRecord::default()
                    };
                }
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Addresses of a fully qualified name; none if it does not exist.
    async fn look_up_absolute(
        &self,
        view: &View,
        pod: &PodRecord,
        name: String,
    ) -> Result<Option<Vec<IpAddr>>, NetworkError> {
        let mut name = name;
        for _ in 0..ALIASES {
            if !pod.cluster_names || !is_in(&name, &view.domain) {
                return look_up_with_host(&name).await;
            }
            if let Some(ip) = pod_address(&name, &view.domain) {
                return Ok(Some(vec![ip.into()]));
            }
            let part = self.shared.reader.part(Part::Services);
            match part.and_then(|part| Services(&part).name(&name)) {
                Some(Named::Addresses(addresses)) => {
                    return Ok(Some(shuffled(addresses)));
                }
                Some(Named::Alias(target)) => match target.parse::<IpAddr>() {
                    Ok(ip) => return Ok(Some(vec![ip])),
                    Err(_) => name = target,
                },
                Some(Named::Exists) | None => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// In another order each time, so that clients of a headless Service spread.
fn shuffled(mut addresses: Vec<Ipv4Addr>) -> Vec<IpAddr> {
    use rand::seq::SliceRandom;
    addresses.shuffle(&mut rand::rng());
    addresses.into_iter().map(IpAddr::V4).collect()
}

async fn look_up_with_host(name: &str) -> Result<Option<Vec<IpAddr>>, NetworkError> {
    let failed = |cause: &dyn std::fmt::Display| NetworkError::TemporaryResolverFailure {
        name: name.to_owned(),
        cause: cause.to_string(),
    };
    let look_up = async {
        let _turn = HOST_LOOKUPS.acquire().await.map_err(|error| failed(&error))?;
        let found = tokio::net::lookup_host((name, 0)).await;
        match found {
            Ok(addresses) => {
                let mut ips: Vec<IpAddr> = Vec::new();
                for address in addresses {
                    if !ips.contains(&address.ip()) {
                        ips.push(address.ip());
                    }
                }
                Ok((!ips.is_empty()).then_some(ips))
            }
            // The standard library keeps the resolver's code only in the text.
            Err(error) if error.to_string().contains("Temporary failure") => Err(failed(&error)),
            Err(_) => Ok(None),
        }
    };
    match tokio::time::timeout(HOST_TIMEOUT, look_up).await {
        Ok(result) => result,
        Err(_) => Err(failed(&"the resolver does not answer")),
    }
}
