//! Taking an address: a key that exists once.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use coracle_apimachinery::status::Status;
use coracle_store::{Attributes, Error, ListOptions, Precondition, Read, Value};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::registry::{Registry, errors};

/// Random attempts before the free addresses are looked for one by one.
const RANDOM_ATTEMPTS: usize = 16;

/// Who holds an address: the value of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// A range of IPv4 addresses, `10.43.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Range {
    base: u32,
    prefix: u8,
}

impl Ipv4Range {
    /// The first address that can be given: that of the `kubernetes` Service.
    #[must_use]
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// The tenth address: that of the Service `kube-dns`, as in k3s and kubeadm. Every range has
    /// it.
    #[must_use]
    pub fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 10)
    }

    /// Whether an address lies in the range and can be given.
    #[must_use]
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        let ip = u32::from(ip);
        ip > self.base && ip - self.base <= self.size()
    }

    /// How many addresses can be given: the network's and the broadcast address cannot.
    fn size(&self) -> u32 {
        (1_u64 << (32 - self.prefix)).saturating_sub(2) as u32
    }

    /// Addresses to try: at random from the upper part of the range (the lower is left for
    /// addresses that people choose), and if need be all of them.
    pub(super) fn candidates(self) -> Candidates<Ipv4Addr> {
        let size = self.size();
        let reserved = (size / 16).clamp(16, 256).min(size / 2);
        Candidates {
            random: Box::new(move || {
                let offset = rand::rng().random_range(reserved + 1..=size);
                Ipv4Addr::from(self.base + offset)
            }),
            all: Box::new(
                (reserved + 1..=size)
                    .chain(1..=reserved)
                    .map(move |n| Ipv4Addr::from(self.base + n)),
            ),
        }
    }
}

impl FromStr for Ipv4Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!("{text:?} is no IPv4 range such as 10.43.0.0/16, with a prefix from 8 to 28")
        };
        let (ip, prefix) = text.split_once('/').ok_or_else(fault)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| fault())?;
        let prefix: u8 = prefix.parse().map_err(|_| fault())?;
        if !(8..=28).contains(&prefix) {
            return Err(fault());
        }
        Ok(Self {
            base: u32::from(ip) & (u32::MAX << (32 - prefix)),
            prefix,
        })
    }
}

impl fmt::Display for Ipv4Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// Addresses to try.
pub(super) struct Candidates<T> {
    random: Box<dyn Fn() -> T + Send + Sync>,
    all: Box<dyn Iterator<Item = T> + Send + Sync>,
}

/// Node ports to try.
pub(super) fn port_candidates(range: &RangeInclusive<u16>) -> Candidates<u16> {
    let (start, end) = (*range.start(), *range.end());
    Candidates {
        random: Box::new(move || rand::rng().random_range(start..=end)),
        all: Box::new(start..=end),
    }
}

/// Takes some free address; `None` where all are taken.
pub(super) async fn pick<T: Copy>(
    registry: &Registry,
    candidates: Candidates<T>,
    key: fn(T) -> String,
    owner: &Taken,
    dry_run: bool,
) -> Result<Option<T>, Status> {
    for _ in 0..RANDOM_ATTEMPTS {
        let candidate = (candidates.random)();
        if take(registry, &key(candidate), owner, dry_run).await? {
            return Ok(Some(candidate));
        }
    }
    let taken = taken_keys(registry).await?;
    for candidate in candidates.all {
        let key = key(candidate);
        if !taken.contains(key.as_str()) && take(registry, &key, owner, dry_run).await? {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

async fn taken_keys(registry: &Registry) -> Result<HashSet<String>, Status> {
    let options = ListOptions {
        read: Read::Latest,
        limit: 0,
        start_after: None,
    };
    let list = registry
        .store
        .list(super::PREFIX, options)
        .await
        .map_err(|error| failed(&error))?;
    let keys = list.records.iter().map(|record| record.key().to_owned());
    Ok(keys.collect())
}

/// Takes an address, unless it is taken.
pub(super) async fn take(
    registry: &Registry,
    key: &str,
    owner: &Taken,
    dry_run: bool,
) -> Result<bool, Status> {
    if dry_run {
        let found = registry
            .store
            .get(key, Read::Latest)
            .await
            .map_err(|error| failed(&error))?;
        return Ok(found.is_none());
    }
    let bytes = serde_json::to_vec(owner)
        .map_err(|error| errors::internal("encode the holder of an address", &error))?;
    let attributes = Attributes {
        uid: owner.uid.clone(),
        ..Attributes::default()
    };
    let value = Value::new(&bytes, &attributes);
    match registry.store.create(key, value).await {
        Ok(_) => Ok(true),
        Err(Error::Exists { .. }) => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}

/// Frees an address. Failing is no fault of the request: the repair does it later.
pub(super) async fn free(registry: &Registry, key: &str) {
    match registry.store.delete(key, Precondition::default()).await {
        Ok(_) | Err(Error::NotFound(_)) => {}
        Err(error) => {
            tracing::warn!(key, %error, "an address was not freed; the repair will do it")
        }
    }
}

fn failed(error: &Error) -> Status {
    tracing::warn!(%error, "failed to allocate an address");
    match error {
        Error::Full(_) => Status::insufficient_storage(
            "no space is left for writes; delete objects or free disk space",
        ),
        _ => {
            Status::service_unavailable("the store cannot allocate an address now, try again later")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: Ipv4Range = "10.43.7.0/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.43.0.0/16");
        assert_eq!(range.first(), Ipv4Addr::new(10, 43, 0, 1));
        assert_eq!(range.dns(), Ipv4Addr::new(10, 43, 0, 10));
        assert!(!range.contains(Ipv4Addr::new(10, 43, 0, 0)));
        assert!(range.contains(Ipv4Addr::new(10, 43, 255, 254)));
        assert!(!range.contains(Ipv4Addr::new(10, 43, 255, 255)));
        assert!(!range.contains(Ipv4Addr::new(10, 42, 0, 1)));
        let small: Ipv4Range = "10.0.0.0/28".parse().unwrap();
        let all: HashSet<Ipv4Addr> = small.candidates().all.collect();
        assert_eq!(all.len(), 14);
        assert!(all.iter().all(|ip| small.contains(*ip)));
        assert!(small.contains((small.candidates().random)()));
        assert!(small.contains(small.dns()));
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/64",
            "10.0.0.0/31",
        ] {
            assert!(bad.parse::<Ipv4Range>().is_err(), "{bad}");
        }
    }
}
