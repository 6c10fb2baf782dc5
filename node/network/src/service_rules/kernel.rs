//! Brings the table of a node into the kernel, and keeps account of what is there.

use std::collections::BTreeSet;
use std::io;

use super::encode::{self, STICKY};
use super::flows::{self, Flow};
use super::plan::{self, Frame, Frontend, Table};
use crate::namespace::{self, Claim};
use crate::nftables::{self, Batch, Element, Held, RulesError};

/// Why the kernel does not have the table that it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    #[error("the machine's network is not to be locked: {0}")]
    Lock(#[source] io::Error),
    #[error("the tables of nftables are not to be listed: {0}")]
    List(#[source] io::Error),
    #[error("the machine's routes are not to be listed: {0}")]
    Routes(#[source] io::Error),
    #[error(
        "the table was not taken: {0} (this wants a kernel with nft_nat, nft_masq, nft_numgen, nft_ct, nft_reject, nft_fib and nft_hash)"
    )]
    Load(#[source] RulesError),
    #[error(
        "flows of UDP were not cleared, and may go to endpoints that are gone: {0} (this wants a kernel with nf_conntrack_netlink)"
    )]
    Flows(#[source] io::Error),
}

/// What is in the kernel, as far as is known.
#[derive(Default)]
pub(super) struct Kernel {
    loaded: Option<Table>,
    /// Who answers the machine in the place of this table.
    holder: Option<Holder>,
    unsettled: Unsettled,
}

/// Who has the range of Services for the machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The table of another node.
    Node(Claim),
    /// A network in which there are others at these addresses.
    Route(String),
}

/// Of which frontends the flows are still to be looked at.
#[derive(Default)]
struct Unsettled {
    /// Of all, for what was there before is not known.
    all: bool,
    frontends: BTreeSet<Frontend>,
    host_ports: BTreeSet<Frontend>,
}

impl Kernel {
    /// Makes this the table, whatever is there; whether it answers the machine is found out.
    /// Nothing is done where it is so already.
    pub(super) fn bring(&mut self, wanted: Table) -> Result<(), KernelError> {
        if let Some(wanted) = self.change(wanted)? {
            self.load(wanted)?;
        }
        self.settle()
    }

    /// Who answers the machine, if it is not this table.
    pub(super) fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Goes from what is there to what is wanted, which comes back where all has to be loaded.
    fn change(&mut self, mut wanted: Table) -> Result<Option<Table>, KernelError> {
        let Some(loaded) = &mut self.loaded else {
            return Ok(Some(wanted));
        };
        if loaded.frame != wanted.frame {
            return Ok(Some(wanted));
        }
        if !loaded.answers_machine {
            self.holder = holder(&loaded.frame)?;
            if self.holder.is_none() {
                return Ok(Some(wanted));
            }
        }
        let steps = plan::steps(loaded, &wanted);
        if steps.is_empty() {
            let there = nftables::exists(&loaded.frame.table).map_err(KernelError::List)?;
            return Ok((!there).then_some(wanted));
        }
        let mut batch = Batch::default();
        encode::steps(&mut batch, &loaded.frame.table, &steps);
        if let Err(error) = batch.commit() {
            tracing::info!(%error, table = loaded.frame.table, "the table of Services is not as it was left, and is loaded anew");
            return Ok(Some(wanted));
        }
        self.unsettled.frontends.extend(plan::disturbed(&steps));
        let host_ports = plan::disturbed_ports(&steps);
        self.unsettled.host_ports.extend(host_ports);
        wanted.answers_machine = loaded.answers_machine;
        *loaded = wanted;
        Ok(None)
    }

    fn load(&mut self, mut wanted: Table) -> Result<(), KernelError> {
        self.loaded = None;
        // Of two nodes that begin at the same time only one is first.
        let _lock = namespace::lock().map_err(KernelError::Lock)?;
        self.holder = holder(&wanted.frame)?;
        wanted.answers_machine = self.holder.is_none();
        let clients = clients(&wanted.frame.table);
        let before = encode::refuse_no_more(&wanted.frame.table).commit();
        if let Err(error) = before
            && !error.is_missing()
        {
            tracing::debug!(%error, "calls may be refused while the table of Services is loaded");
        }
        let batch = encode::load(&wanted, &clients);
        batch.commit().map_err(KernelError::Load)?;
        self.unsettled.all = true;
        self.loaded = Some(wanted);
        Ok(())
    }

    /// Clears flows of UDP that go where none should.
    fn settle(&mut self) -> Result<(), KernelError> {
        let (Some(table), unsettled) = (&self.loaded, &self.unsettled) else {
            return Ok(());
        };
        let settled = unsettled.frontends.is_empty() && unsettled.host_ports.is_empty();
        if !unsettled.all && settled {
            return Ok(());
        }
        let concerned = |frontend: &Frontend| {
            unsettled.frontends.contains(frontend)
                || unsettled.all
                    && (table.frontends.contains_key(frontend)
                        || table.frame.claim.range.contains(&frontend.address))
        };
        let stale = |flow: &Flow| {
            let frontend = flow.frontend();
            let of_service = concerned(&frontend) && is_own(table, flow);
            of_service && !table.serves(frontend, flow.server())
                || unsettled.has_stale_port(table, flow)
        };
        let cleared = flows::forget(stale).map_err(KernelError::Flows)?;
        if cleared > 0 {
            tracing::debug!(
                cleared,
                "flows of UDP to endpoints that are gone were cleared"
            );
        }
        self.unsettled = Unsettled::default();
        Ok(())
    }
}

impl Unsettled {
    /// Whether a flow to a port of the machine goes to a Pod that does not have it (any more), or past
    /// the Pod that has it by now. A Service's Pod may be one that has no address but the machine's.
    fn has_stale_port(&self, table: &Table, flow: &Flow) -> bool {
        let (called, server) = (flow.frontend(), flow.server());
        let of_service = table.frontends.contains_key(&called)
            || table.frame.claim.range.contains(&called.address);
        let to_pod = table.frame.pods.contains(server.ip()) && *server.ip() != called.address;
        let concerned = self.host_ports.iter().any(|port| port.covers(called))
            || self.all && (to_pod || table.has_port(called));
        let to_hosted = *server.ip() == table.frame.node;
        let is_ours = to_pod || to_hosted || flow.is_plain();
        concerned && !of_service && is_ours && !table.port_leads(called, server)
    }
}

/// Whether a flow went by this table, and not by that of another node of the machine.
fn is_own(table: &Table, flow: &Flow) -> bool {
    let server = flow.server();
    table.frame.pods.contains(flow.client().ip())
        || table.answers_machine
            && (table.frame.cluster.contains(server.ip())
                // It was not translated.
                || *server.ip() == flow.frontend().address)
}

fn holder(frame: &Frame) -> Result<Option<Holder>, KernelError> {
    let tables = nftables::tables().map_err(KernelError::List)?;
    if let Some(node) = plan::holder(&frame.table, &frame.claim, &tables) {
        return Ok(Some(Holder::Node(node)));
    }
    let route = namespace::route_into(frame.claim.range, &frame.link);
    Ok(route.map_err(KernelError::Routes)?.map(Holder::Route))
}

/// The clients that an earlier table remembers; members mean the same in the next one.
fn clients(table: &str) -> Vec<Element> {
    let mut clients = nftables::elements(table, STICKY.name).unwrap_or_default();
    clients.retain(|client| {
        let data = match &client.data {
            Held::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        // Another version's may be otherwise.
        client.key.len() == 16 && data == 4 && client.life.is_some()
    });
    clients
}
