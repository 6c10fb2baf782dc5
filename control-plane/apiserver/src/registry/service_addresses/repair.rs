//! Repair: what is taken and what Services hold are brought to agree, at start and every few
//! minutes. An address that no Service holds is freed when two rounds have found it so: the
//! Service may just be about to be written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::status::Status;
use coracle_store::{ListOptions as StoreOptions, Precondition, Read};
use k8s_openapi::api::core::v1::Service;
use tokio_util::sync::CancellationToken;

use super::allocator::{Taken, take};
use super::demand::demand;
use super::{PREFIX, keys, owner};
use crate::registry::{Registry, encoding, errors, typed};
use crate::request::options::ListOptions;

const EVERY: Duration = Duration::from_secs(180);

/// Repairs until cancelled.
pub async fn run(registry: Arc<Registry>, cancel: CancellationToken) {
    let mut suspects = HashSet::new();
    loop {
        match round(&registry, &suspects).await {
            Ok(found) => suspects = found,
            Err(error) => {
                tracing::warn!(%error, "could not check the addresses of Services, trying again later")
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One round. Returns the keys that seem to be left behind.
pub(super) async fn round(
    registry: &Registry,
    suspects: &HashSet<String>,
) -> Result<HashSet<String>, Status> {
    let failed = |error| {
        errors::internal(
            "list the addresses of Services",
            &error as &coracle_store::Error,
        )
    };
    let options = StoreOptions {
        read: Read::Latest,
        limit: 0,
        start_after: None,
    };
    let taken = registry
        .store
        .list(PREFIX, options)
        .await
        .map_err(failed)?
        .records;
    let held = held(registry).await?;
    let mut left_behind = HashSet::new();
    let mut known = HashSet::new();
    for record in taken {
        known.insert(record.key().to_owned());
        if held.contains_key(record.key()) {
            continue;
        }
        if !suspects.contains(record.key()) {
            left_behind.insert(record.key().to_owned());
            continue;
        }
        let precondition = Precondition {
            revision: Some(record.revision()),
            uid: None,
        };
        match registry.store.delete(record.key(), precondition).await {
            Ok(_) => tracing::info!(key = record.key(), "freed an address that no Service holds"),
            Err(error) => tracing::debug!(key = record.key(), %error, "did not free an address"),
        }
    }
    for (key, owner) in held {
        if !known.contains(key.as_str()) && take(registry, &key, &owner, false).await? {
            tracing::warn!(key, service = %owner.name, "took an address that a Service held without a claim");
        }
    }
    Ok(left_behind)
}

async fn held(registry: &Registry) -> Result<HashMap<String, Taken>, Status> {
    let kind = registry.kind_of::<Service>()?;
    let mut held = HashMap::new();
    for record in registry
        .list(&**kind, "", &ListOptions::default())
        .await?
        .records
    {
        let service: Service = typed(encoding::decode(&**kind, &record)?)?;
        let holder = owner(&service);
        for key in keys(&demand(&service)) {
            if let Some(other) = held.insert(key.clone(), holder.clone()) {
                tracing::error!(key, one = %other.name, other = %holder.name, "two Services hold one address; delete one of them");
            }
        }
    }
    Ok(held)
}
