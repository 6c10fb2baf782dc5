//! Keeps the probes of a Pod's containers running while the containers do. When the Pod ends, those
//! of readiness go on: who still serves may be seen to serve.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::DropGuard;

use super::run::{Worker, guard};
use crate::containers::observed::PodRuntime;
use crate::pod;
use crate::probes::ProbeKind;
use crate::probes::dial::Target;
use crate::probes::task::{self, ProbeTask};

/// Probes of a container; they end with this.
pub(super) struct Probing {
    _readiness: DropGuard,
    others: Option<DropGuard>,
}

impl Worker {
    /// Ends all probes but those of readiness.
    pub(super) fn end_other_probes(&mut self) {
        for probing in self.probes.values_mut() {
            drop(probing.others.take());
        }
    }

    /// Ends probes of what does not run any more.
    pub(super) fn prune_probes(&mut self, runtime: &PodRuntime) {
        self.probes.retain(|id, _| {
            let of = runtime.container(id);
            of.is_some_and(|of| of.running_since().is_some())
        });
    }

    /// Starts what is missing and ends what has no container any more.
    pub(super) fn run_probes(&mut self, pod: &Pod, runtime: &PodRuntime) {
        self.prune_probes(runtime);
        for of in runtime.running() {
            let Some((container, _)) = pod::own_container(pod, of.name()) else {
                continue;
            };
            let kinds = [
                ProbeKind::Startup,
                ProbeKind::Liveness,
                ProbeKind::Readiness,
            ];
            let mut wanted = kinds.into_iter().filter_map(|kind| {
                let probe = task::probe_of(container, kind)?;
                Some((kind, probe))
            });
            let Some(started_at) = of.running_since() else {
                continue;
            };
            let Some(first) = wanted.next().filter(|_| !self.probes.contains_key(of.id())) else {
                continue;
            };
            task::adopt(&self.node, pod, of.name(), of.id(), &of.api_id());
            let (readiness, keeps_readiness) = guard();
            let (others, keeps_others) = guard();
            let ips = match &self.memory.prepared {
                Some(prepared) => prepared.ips.clone(),
                None => pod::reported_ips(pod),
            };
            let shared = Arc::new(pod.clone());
            for (kind, probe) in std::iter::once(first).chain(wanted) {
                let probing = ProbeTask {
                    node: self.node.clone(),
                    worker: self.handle.clone(),
                    pod: shared.clone(),
                    container: container.clone(),
                    of: of.clone(),
                    started_at,
                    kind,
                    target: Target::of(container, probe, &ips),
                };
                let cancel = match kind {
                    ProbeKind::Readiness => &readiness,
                    ProbeKind::Startup | ProbeKind::Liveness => &others,
                };
                tokio::spawn(probing.run(cancel.clone()));
            }
            let probing = Probing {
                _readiness: keeps_readiness,
                others: Some(keeps_others),
            };
            self.probes.insert(of.id().clone(), probing);
        }
    }
}
