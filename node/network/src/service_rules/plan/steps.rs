//! The steps from one table to another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use coracle_runtime::Protocol;

use super::{Choice, Frontend, Table};

/// A step from one table to another. Each is possible after the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service_rules) enum Step {
    AddChoice(Choice),
    RemoveFrontend(Frontend),
    RemoveElsewhere(Frontend),
    RemoveMember(Frontend, u32),
    RemoveEndpoint(Frontend, u32),
    RemoveHostPort(Frontend),
    AddHostPort(Frontend, SocketAddrV4),
    RemoveHairpin(Ipv4Addr),
    AddHairpin(Ipv4Addr),
    AddEndpoint(Frontend, u32, SocketAddrV4),
    AddMember(Frontend, u32, u32),
    AddFrontend(Frontend, Choice),
    AddElsewhere(Frontend, Choice),
    RemoveChoice(Choice),
}

/// The steps from a table to another of the same frame.
pub(in crate::service_rules) fn steps(from: &Table, to: &Table) -> Vec<Step> {
    let (old, new) = (from.choices(), to.choices());
    let mut steps = Vec::new();
    steps.extend(new.difference(&old).map(|choice| Step::AddChoice(*choice)));
    // What is there with another value goes first.
    steps.extend(lost(&from.frontends, &to.frontends).map(|key| Step::RemoveFrontend(*key)));
    steps.extend(lost(&from.elsewhere, &to.elsewhere).map(|key| Step::RemoveElsewhere(*key)));
    steps.extend(lost(&from.members, &to.members).map(|(f, n)| Step::RemoveMember(*f, *n)));
    steps.extend(lost(&from.endpoints, &to.endpoints).map(|(f, n)| Step::RemoveEndpoint(*f, *n)));
    steps.extend(lost(&from.host_ports, &to.host_ports).map(|key| Step::RemoveHostPort(*key)));
    let won = |(key, value): (&Frontend, &SocketAddrV4)| Step::AddHostPort(*key, *value);
    steps.extend(gained(&from.host_ports, &to.host_ports).map(won));
    let hairpins = from.hairpins.difference(&to.hairpins);
    steps.extend(hairpins.map(|pod| Step::RemoveHairpin(*pod)));
    let hairpins = to.hairpins.difference(&from.hairpins);
    steps.extend(hairpins.map(|pod| Step::AddHairpin(*pod)));
    let won =
        |(key, value): (&(Frontend, u32), &SocketAddrV4)| Step::AddEndpoint(key.0, key.1, *value);
    steps.extend(gained(&from.endpoints, &to.endpoints).map(won));
    let won = |(key, value): (&(Frontend, u32), &u32)| Step::AddMember(key.0, key.1, *value);
    steps.extend(gained(&from.members, &to.members).map(won));
    let won = |(key, value): (&Frontend, &Choice)| Step::AddFrontend(*key, *value);
    steps.extend(gained(&from.frontends, &to.frontends).map(won));
    let won = |(key, value): (&Frontend, &Choice)| Step::AddElsewhere(*key, *value);
    steps.extend(gained(&from.elsewhere, &to.elsewhere).map(won));
    steps.extend(
        old.difference(&new)
            .map(|choice| Step::RemoveChoice(*choice)),
    );
    steps
}

fn lost<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let kept = |(key, value): &(&K, &V)| to.get(key) == Some(*value);
    from.iter()
        .filter(move |entry| !kept(entry))
        .map(|(key, _)| key)
}

fn gained<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    let had = |(key, value): &(&K, &V)| from.get(key) == Some(*value);
    to.iter().filter(move |entry| !had(entry))
}

/// Frontends of UDP whose flows may go where none should any more: those that lost an endpoint,
/// and new ones, to which somebody may have sent before.
pub(in crate::service_rules) fn disturbed(steps: &[Step]) -> BTreeSet<Frontend> {
    let of_addresses = |frontend: &Frontend| !frontend.address.is_unspecified();
    let all = steps.iter().filter_map(touched).filter(of_addresses);
    all.filter(|frontend| frontend.protocol == Protocol::Udp)
        .collect()
}

/// Ports of UDP of the machine that have come, have gone, or lead elsewhere.
pub(in crate::service_rules) fn disturbed_ports(steps: &[Step]) -> BTreeSet<Frontend> {
    let of = |step: &Step| match *step {
        Step::AddHostPort(port, _) | Step::RemoveHostPort(port) => Some(port),
        _ => touched(step).filter(|frontend| frontend.address.is_unspecified()),
    };
    let udp = |port: &Frontend| port.protocol == Protocol::Udp;
    steps.iter().filter_map(of).filter(udp).collect()
}

/// The frontend that leads elsewhere by a step.
fn touched(step: &Step) -> Option<Frontend> {
    match *step {
        Step::AddFrontend(frontend, _)
        | Step::RemoveFrontend(frontend)
        | Step::AddElsewhere(frontend, _)
        | Step::RemoveElsewhere(frontend)
        | Step::RemoveEndpoint(frontend, _) => Some(frontend),
        _ => None,
    }
}
