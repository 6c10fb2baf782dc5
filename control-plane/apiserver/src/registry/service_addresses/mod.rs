//! Cluster IPs and node ports of Services, those for health checks among them.
//!
//! An address is taken by creating a key in the store, so that no two Services can hold the
//! same one, whichever server they were created through and whatever crashes in between. The
//! keys lie beside the Services, under [`PREFIX`]; `repair.rs` frees those that a crash left
//! behind and takes those that are missing.

mod allocator;
mod demand;
mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use coracle_apimachinery::field::{Error as FieldError, Path};
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::Service;

use super::erased::Object;
use super::{Registry, Target};
pub use allocator::Ipv4Range;
use allocator::{Taken, free, pick, take};
pub use demand::carry_over;
use demand::{Demand, Source, demand, health_check_source, sources};
pub use repair::run as run_repair;

/// Keys of what is taken.
pub const PREFIX: &str = "/allocations/";

/// From where addresses are given.
#[derive(Clone, Debug)]
pub struct ServiceAddresses {
    /// Range of the cluster IPs.
    pub cluster_ips: Ipv4Range,
    /// Node ports.
    pub node_ports: RangeInclusive<u16>,
}

/// What was taken for a write that is not done yet. Must be settled.
#[must_use]
#[derive(Default)]
pub struct Reservation {
    taken: Vec<String>,
    /// To be freed when the write succeeds.
    released: Vec<String>,
}

impl Reservation {
    /// Keeps what was taken if the write succeeded, gives it back otherwise.
    pub async fn settle(self, registry: &Registry, succeeded: bool) {
        let keys = if succeeded { self.released } else { self.taken };
        for key in keys {
            free(registry, &key).await;
        }
    }
}

fn ip_key(ip: Ipv4Addr) -> String {
    format!("{PREFIX}clusterips/{ip}")
}

fn port_key(port: u16) -> String {
    format!("{PREFIX}nodeports/{port}")
}

fn keys(demand: &Demand) -> Vec<String> {
    let ips = demand.ip.into_iter().map(ip_key);
    let ports = demand.ports.iter().copied().chain(demand.health_check);
    ips.chain(ports.map(port_key)).collect()
}

impl ServiceAddresses {
    /// Whether an object has addresses at all.
    #[must_use]
    pub fn concerns(&self, object: &dyn Object) -> bool {
        object.as_any().is::<Service>()
    }

    /// Gives a Service that is about to be written the addresses that it lacks, and takes those
    /// that it names. Of other kinds it takes nothing.
    ///
    /// # Errors
    /// 422 where an address is taken or out of range, 500 where none is left.
    pub async fn reserve(
        &self,
        registry: &Registry,
        target: Target<'_>,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
        dry_run: bool,
    ) -> Result<Reservation, Status> {
        let Some(service) = object.as_any_mut().downcast_mut::<Service>() else {
            return Ok(Reservation::default());
        };
        let before = old
            .and_then(|old| old.as_any().downcast_ref::<Service>())
            .map(demand);
        let mut reservation = Reservation::default();
        let filled = self
            .fill(
                registry,
                target,
                service,
                before.as_ref(),
                dry_run,
                &mut reservation,
            )
            .await;
        if let Err(status) = filled {
            reservation.settle(registry, false).await;
            return Err(status);
        }
        if !dry_run {
            let after = BTreeSet::from_iter(keys(&demand(service)));
            let before = before.iter().flat_map(keys);
            reservation.released = before.filter(|key| !after.contains(key)).collect();
        }
        Ok(reservation)
    }

    async fn fill(
        &self,
        registry: &Registry,
        target: Target<'_>,
        service: &mut Service,
        before: Option<&Demand>,
        dry_run: bool,
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        let owner = owner(service);
        let wanted = demand(service);
        let spec = service.spec.get_or_insert_default();
        if wanted.needs_ip {
            let ip = match wanted.ip {
                Some(ip) => {
                    if before.and_then(|before| before.ip) != Some(ip) {
                        self.take_ip(registry, target, ip, &owner, dry_run, reservation)
                            .await?;
                    }
                    ip
                }
                None => {
                    let candidates = self.cluster_ips.candidates();
                    let picked = pick(registry, candidates, ip_key, &owner, dry_run).await?;
                    let ip = picked.ok_or_else(|| {
                        Status::internal(format!(
                            "failed to allocate a serviceIP: range {} is full",
                            self.cluster_ips
                        ))
                    })?;
                    reservation.taken.extend((!dry_run).then(|| ip_key(ip)));
                    ip
                }
            };
            spec.cluster_ip = Some(ip.to_string());
            spec.cluster_ips = Some(vec![ip.to_string()]);
        }
        let sources = sources(spec, before.map(|before| &before.ports));
        let held = before.and_then(|before| before.health_check);
        let health_check = health_check_source(spec, held);
        let ports = spec.ports.as_deref_mut().unwrap_or_default();
        // What is named goes first, so that none of it is given to a port that names none.
        let mut given: BTreeMap<i32, i32> = BTreeMap::new();
        let mut named = BTreeSet::new();
        for (index, (port, source)) in ports.iter_mut().zip(&sources).enumerate() {
            if let Source::Taken(number) = *source {
                let is_free = named.insert(number)
                    && self
                        .take_port(registry, number, &owner, dry_run, reservation)
                        .await?;
                if !is_free {
                    return Err(self.refuse_port(target, index, number));
                }
                given.entry(port.port).or_insert(number);
                port.node_port = Some(number);
            }
        }
        if let Source::Taken(number) = health_check {
            let is_free = named.insert(number)
                && self
                    .take_port(registry, number, &owner, dry_run, reservation)
                    .await?;
            if !is_free {
                return Err(self.refuse_health_check(target, number));
            }
        }
        for (port, source) in ports.iter_mut().zip(&sources) {
            match source {
                Source::Kept | Source::Taken(_) => {}
                Source::Shared => port.node_port = given.get(&port.port).copied(),
                Source::Picked => {
                    let picked = self.pick_port(registry, &owner, dry_run, reservation);
                    let number = picked.await?.ok_or_else(|| {
                        Status::internal("failed to allocate a nodePort: range is full")
                    })?;
                    given.insert(port.port, number);
                    port.node_port = Some(number);
                }
            }
        }
        if health_check == Source::Picked {
            let picked = self.pick_port(registry, &owner, dry_run, reservation);
            let number = picked.await?.ok_or_else(|| {
                // As Kubernetes says it, which names the port that it has not found.
                Status::internal("failed to allocate a HealthCheck NodePort 0: range is full")
            })?;
            spec.health_check_node_port = Some(number);
        }
        Ok(())
    }

    async fn take_ip(
        &self,
        registry: &Registry,
        target: Target<'_>,
        ip: Ipv4Addr,
        owner: &Taken,
        dry_run: bool,
        reservation: &mut Reservation,
    ) -> Result<(), Status> {
        let fault = if !self.cluster_ips.contains(ip) {
            format!(
                "provided IP is not in the valid range. The range of valid IPs is {}",
                self.cluster_ips
            )
        } else if take(registry, &ip_key(ip), owner, dry_run).await? {
            reservation.taken.extend((!dry_run).then(|| ip_key(ip)));
            return Ok(());
        } else {
            "provided IP is already allocated".to_owned()
        };
        let message = format!("failed to allocate IP {ip}: {fault}");
        let error = FieldError::invalid(
            &Path::new("spec").child("clusterIPs"),
            vec![ip.to_string()],
            message,
        );
        Err(Status::invalid(
            &target.kind.descriptor().group_kind(),
            target.name,
            vec![error],
        ))
    }

    /// Takes a node port, if it is one and is free.
    async fn take_port(
        &self,
        registry: &Registry,
        number: i32,
        owner: &Taken,
        dry_run: bool,
        reservation: &mut Reservation,
    ) -> Result<bool, Status> {
        let Some(port) = self.node_port(number) else {
            return Ok(false);
        };
        let key = port_key(port);
        let is_free = take(registry, &key, owner, dry_run).await?;
        reservation
            .taken
            .extend((is_free && !dry_run).then_some(key));
        Ok(is_free)
    }

    /// Takes some free node port; `None` where all are taken.
    async fn pick_port(
        &self,
        registry: &Registry,
        owner: &Taken,
        dry_run: bool,
        reservation: &mut Reservation,
    ) -> Result<Option<i32>, Status> {
        let candidates = allocator::port_candidates(&self.node_ports);
        let picked = pick(registry, candidates, port_key, owner, dry_run).await?;
        let taken = picked.filter(|_| !dry_run).map(port_key);
        reservation.taken.extend(taken);
        Ok(picked.map(i32::from))
    }

    /// A number that is in the range of node ports.
    fn node_port(&self, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok();
        port.filter(|port| self.node_ports.contains(port))
    }

    fn refuse_port(&self, target: Target<'_>, index: usize, number: i32) -> Status {
        let path = Path::new("spec").child("ports").index(index);
        let error = FieldError::invalid(&path.child("nodePort"), number, self.port_fault(number));
        Status::invalid(
            &target.kind.descriptor().group_kind(),
            target.name,
            vec![error],
        )
    }

    /// With the words of Kubernetes, which calls what a client has named an internal error (500);
    /// here it is told as what it is, like a node port.
    fn refuse_health_check(&self, target: Target<'_>, number: i32) -> Status {
        let fault = self.port_fault(number);
        let message =
            format!("failed to allocate requested HealthCheck NodePort {number}: {fault}");
        let path = Path::new("spec").child("healthCheckNodePort");
        let error = FieldError::invalid(&path, number, message);
        Status::invalid(
            &target.kind.descriptor().group_kind(),
            target.name,
            vec![error],
        )
    }

    /// Why a node port that is named was not taken.
    fn port_fault(&self, number: i32) -> String {
        match self.node_port(number) {
            Some(_) => "provided port is already allocated".to_owned(),
            None => format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.node_ports.start(),
                self.node_ports.end()
            ),
        }
    }

    /// Frees the addresses of a Service that has been removed.
    pub async fn release(&self, registry: &Registry, _target: Target<'_>, removed: &dyn Object) {
        if let Some(service) = removed.as_any().downcast_ref::<Service>() {
            for key in keys(&demand(service)) {
                free(registry, &key).await;
            }
        }
    }
}

fn owner(service: &Service) -> Taken {
    Taken {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
    }
}
