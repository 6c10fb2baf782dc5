//! Pods come to the network and leave it.
//!
//! An address is on record before its namespace is made, and until that is removed: a node that is
//! cut off between the two finds what there is, and nobody else gets the address meanwhile. Who
//! waits for a namespace may stop waiting; it is made all the same, unless its Pod has gone by then.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_runtime::{Attachment, IdRange, PodIdentity};
use ipnet::IpNet;
use parking_lot::Mutex;

use super::{NodeNetwork, NodeNetworkConfig};
use crate::addresses::{AddressError, AddressPool, Parts};
use crate::host_ports::{HostPort, Published};
use crate::namespace::PodNamespace;

/// How a Pod is joined to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its address.
    pub address: IpAddr,
    /// The file of its namespace, if it has one of its own.
    pub namespace: Option<PathBuf>,
}

/// The node's range, once it is known and leads to Pods.
pub(super) struct Pool {
    pub(super) range: IpNet,
    pub(super) addresses: Mutex<AddressPool>,
    /// Held while a namespace is made or removed.
    plumbing: Mutex<()>,
}

impl Pool {
    /// Opens the addresses of a range, and removes the namespaces of Pods that have none.
    pub(super) fn open(
        config: &NodeNetworkConfig,
        range: IpNet,
        namespace: Option<&PodNamespace>,
    ) -> io::Result<Arc<Self>> {
        let parts = match namespace {
            Some(_) => Parts::Two,
            None => Parts::One,
        };
        let addresses = AddressPool::open(&config.directory.join("addresses"), range, parts)?;
        if let Some(namespace) = namespace {
            namespace.keep(|address| addresses.is_given(address))?;
        }
        Ok(Arc::new(Self {
            range,
            addresses: Mutex::new(addresses),
            plumbing: Mutex::new(()),
        }))
    }

    /// Makes the namespace of a Pod: its file. Whoever asked may have given up since, and the Pod
    /// have gone: then there is none.
    fn join(
        &self,
        node: &PodNamespace,
        uid: &str,
        address: IpAddr,
        users: Option<IdRange>,
    ) -> io::Result<PathBuf> {
        let file = {
            let _plumbing = self.plumbing.lock();
            if self.addresses.lock().address(uid) != Some(address) {
                return Err(io::Error::other("the Pod has gone"));
            }
            node.attach(address, users)?
        };
        // A Pod that keeps its link down keeps nobody else from the network.
        node.settle(address)?;
        Ok(file)
    }

    /// Removes the namespace of a Pod, and gives its address back.
    fn part(&self, node: &PodNamespace, uid: &str, address: IpAddr) -> io::Result<()> {
        let _plumbing = self.plumbing.lock();
        node.detach(address)?;
        self.addresses.lock().release(uid)
    }
}

impl NodeNetwork {
    /// Joins a Pod to the network, as it is wanted where the network has namespaces, and gives it
    /// ports of the machine. What a Pod has it keeps until it is released, also after a restart;
    /// what it lacks it gets again. A namespace of its own belongs to its users, if it has some.
    ///
    /// # Errors
    /// The range is exhausted, the record could not be written, or the namespace not be made.
    pub async fn attach(
        &self,
        pod: &PodIdentity,
        wanted: Attachment,
        ports: &[HostPort],
        users: Option<IdRange>,
    ) -> Result<Attached, AddressError> {
        let mut known = self.pool.subscribe();
        let pool = match known.wait_for(Option::is_some).await {
            Ok(pool) => pool.clone(),
            Err(_) => None,
        };
        // The sender is `self`: it does not end while we wait.
        let pool = pool.ok_or(AddressError::NoRange)?;
        let (address, attachment) = {
            let mut addresses = pool.addresses.lock();
            let address = addresses.allocate(pod, wanted, ports)?;
            (address, addresses.attachment(address))
        };
        self.changed.notify_one();
        let namespace = match (self.namespace.clone(), attachment) {
            (Some(node), Attachment::Netns) => {
                let uid = pod.uid.clone();
                let attached =
                    tokio::task::spawn_blocking(move || pool.join(&node, &uid, address, users))
                        .await;
                let attached = attached.map_err(io::Error::other).flatten();
                Some(attached.map_err(|source| AddressError::Namespace { address, source })?)
            }
            _ => None,
        };
        Ok(Attached { address, namespace })
    }

    /// The ports of the machine that lead to Pods.
    pub(super) fn host_ports(&self) -> Vec<Published> {
        let pool = self.pool.borrow().clone();
        pool.map(|pool| pool.addresses.lock().host_ports())
            .unwrap_or_default()
    }

    /// Parts a Pod from the network, and gives its address back. Releasing what is free is no
    /// error.
    ///
    /// # Errors
    /// Its namespace or the record could not be removed; the address stays taken.
    pub async fn release(&self, pod_uid: &str) -> io::Result<()> {
        let Some(pool) = self.pool.borrow().clone() else {
            return Ok(());
        };
        let held = {
            let addresses = pool.addresses.lock();
            let address = addresses.address(pod_uid);
            address.filter(|address| addresses.attachment(*address) == Attachment::Netns)
        };
        match (self.namespace.clone(), held) {
            (Some(node), Some(address)) => {
                let uid = pod_uid.to_owned();
                let parted =
                    tokio::task::spawn_blocking(move || pool.part(&node, &uid, address)).await;
                parted.map_err(io::Error::other).flatten()?;
            }
            _ => pool.addresses.lock().release(pod_uid)?,
        }
        self.changed.notify_one();
        Ok(())
    }
}
