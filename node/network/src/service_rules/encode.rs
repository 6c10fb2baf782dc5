//! The table in the terms of nftables.

use std::net::{Ipv4Addr, SocketAddrV4};

use coracle_runtime::Protocol;
use ipnet::Ipv4Net;

use super::plan::{Calls, Choice, Frame, Frontend, Step, Table};
use crate::namespace::{HOST_END, LINK_GROUP};
use crate::nftables::{
    ADDRESS, Batch, Comparison, Data, Element, Field, Held, Hook, PORT, PROTOCOL, Rule, SCRATCH,
    Set,
};

/// `dstnat`, where destinations are translated.
const DSTNAT: i32 = -100;
/// A node's own Pods come before what others translate.
const PODS: i32 = DSTNAT - 10;
/// Ports of the machine come after Services.
const MACHINE_PORTS: i32 = DSTNAT + 1;
/// Before `srcnat`, where the sources of what leaves the cluster are translated.
const SOURCES: i32 = 90;
const LOOPBACK: &str = "lo";
/// What is called there stays on the loopback interface.
const LOOPBACK_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Clients that are remembered; others get any endpoint each time.
const CLIENTS: u32 = 1 << 16;

const FRONTENDS: Set = Set {
    name: "frontends",
    key: &[ADDRESS, PROTOCOL, PORT],
    data: Data::Chain,
    filled_by_rules: None,
};
/// For calls from elsewhere that do not go by the other one. Ports of the machine are at `0.0.0.0`.
const ELSEWHERE: Set = Set {
    name: "elsewhere",
    key: &[ADDRESS, PROTOCOL, PORT],
    data: Data::Chain,
    filled_by_rules: None,
};
const ENDPOINTS: Set = Set {
    name: "endpoints",
    key: &[ADDRESS, PROTOCOL, PORT, SCRATCH],
    data: Data::Parts(&[ADDRESS, PORT]),
    filled_by_rules: None,
};
const MEMBERS: Set = Set {
    name: "members",
    key: &[ADDRESS, PROTOCOL, PORT, SCRATCH],
    data: Data::Parts(&[SCRATCH]),
    filled_by_rules: None,
};
/// Clients of Services that have affinity.
pub(super) const STICKY: Set = Set {
    name: "clients",
    key: &[ADDRESS, ADDRESS, PROTOCOL, PORT],
    data: Data::Parts(&[SCRATCH]),
    filled_by_rules: Some(CLIENTS),
};
const HAIRPINS: Set = Set {
    name: "hairpins",
    key: &[ADDRESS, ADDRESS],
    data: Data::None,
    filled_by_rules: None,
};
/// Ports of the machine that lead to Pods.
const HOST_PORTS: Set = Set {
    name: "hostports",
    key: &[ADDRESS, PROTOCOL, PORT],
    data: Data::Parts(&[ADDRESS, PORT]),
    filled_by_rules: None,
};
const SETS: [Set; 7] = [
    FRONTENDS, ELSEWHERE, ENDPOINTS, MEMBERS, STICKY, HAIRPINS, HOST_PORTS,
];

const SERVICES: &str = "services";
const FRONTEND: [Field; 3] = [Field::Destination, Field::Protocol, Field::DestinationPort];
/// The first register behind a key of four parts.
const BEHIND: u32 = 4;

/// Loads what is called, as the maps have it, into registers from `first` on.
fn called(rule: Rule, first: u32, calls: Calls) -> Rule {
    match calls {
        Calls::Any | Calls::FromElsewhere => rule.load(first, &FRONTEND),
        Calls::ToMachine => rule
            .put(first, Ipv4Addr::UNSPECIFIED)
            .load(first + 1, &FRONTEND[1..]),
    }
}

/// Has a table that is there drop what it would refuse. A packet that is on its way through it when
/// another takes its place finds nothing in it any more, and is sent again.
pub(super) fn refuse_no_more(table: &str) -> Batch {
    let mut batch = Batch::default();
    let refuse = Choice::Refuse.chain();
    batch.empty_chain(table, &refuse);
    batch.rule(table, &refuse, &Rule::new().drop());
    batch
}

/// The whole table without Services, in the place of one of its name.
pub(super) fn frame(batch: &mut Batch, frame: &Frame, answers_machine: bool) {
    let name = frame.table.as_str();
    // Deleting wants it to be there.
    batch.table(name, None);
    batch.delete_table(name);
    batch.table(
        name,
        answers_machine.then(|| frame.claim.encode()).as_deref(),
    );
    for (id, set) in (1..).zip(&SETS) {
        batch.set(name, set, id);
    }
    let refuse = Choice::Refuse.chain();
    batch.chain(name, &refuse);
    batch.rule(name, &refuse, &Rule::new().protocol(TCP).reset());
    batch.rule(name, &refuse, &Rule::new().port_unreachable());

    batch.chain(name, SERVICES);
    let known = Rule::new().load(0, &FRONTEND).go_by(FRONTENDS.name, 0);
    batch.rule(name, SERVICES, &known);
    let services = frame.claim.range;
    let unknown = Rule::new().range(Field::Destination, Comparison::Is, services);
    batch.rule(name, SERVICES, &unknown.go_to(&refuse));

    batch.nat_chain(name, "pods", Hook::Prerouting, PODS);
    let own = Rule::new().range(Field::Source, Comparison::Is, frame.pods);
    batch.rule(name, "pods", &own.go_to(SERVICES));
    if answers_machine {
        batch.nat_chain(name, "others", Hook::Prerouting, DSTNAT);
        // Another node's Pods are that node's, also while it has no table.
        let from_elsewhere = || Rule::new().came_by_group(Comparison::IsNot, LINK_GROUP);
        let to_machine = from_elsewhere().sent_to_machine();
        for rule in [
            called(from_elsewhere(), 0, Calls::FromElsewhere).go_by(ELSEWHERE.name, 0),
            called(to_machine, 0, Calls::ToMachine).go_by(ELSEWHERE.name, 0),
            from_elsewhere().go_to(SERVICES),
        ] {
            batch.rule(name, "others", &rule);
        }
        batch.nat_chain(name, "machine", Hook::Output, DSTNAT);
        batch.rule(name, "machine", &Rule::new().go_to(SERVICES));
    }
    machine_ports(batch, name);
    batch.nat_chain(name, SOURCES_CHAIN, Hook::Postrouting, SOURCES);
    for rule in sources(frame, answers_machine) {
        batch.rule(name, SOURCES_CHAIN, &rule);
    }
}

const SOURCES_CHAIN: &str = "sources";

/// Ports of the machine, for whoever calls one of its addresses.
fn machine_ports(batch: &mut Batch, table: &str) {
    let chain = HOST_PORTS.name;
    batch.chain(table, chain);
    for calls in [Calls::Any, Calls::ToMachine] {
        let port = called(Rule::new(), 0, calls);
        batch.rule(table, chain, &port.look_up(chain, 0, 0).send_to(0, 1));
    }
    let hooks = [
        ("ports-called", Hook::Prerouting),
        ("ports-calling", Hook::Output),
    ];
    for (base, hook) in hooks {
        batch.nat_chain(table, base, hook, MACHINE_PORTS);
        let to_machine = Rule::new()
            .range(Field::Destination, Comparison::IsNot, LOOPBACK_RANGE)
            .sent_to_machine();
        batch.rule(table, base, &to_machine.go_to(chain));
    }
}

/// Whose source address cannot stay.
fn sources(frame: &Frame, answers_machine: bool) -> Vec<Rule> {
    use Comparison::{Is, IsNot};
    let mut rules = vec![
        // A Pod that reaches itself.
        Rule::new()
            .load(0, &[Field::Source, Field::Destination])
            .contained(HAIRPINS.name, 0)
            .send_from(frame.node),
        // A process in the namespace that guests share reaches another of it.
        Rule::new()
            .came_by(&frame.link)
            .leaves_by(Is, &frame.link)
            .translated()
            .send_from(frame.node),
    ];
    if answers_machine {
        let by_service = || Rule::new().range(Field::OriginalDestination, Is, frame.claim.range);
        // The agent listens there for Pods and the machine alone.
        rules.push(
            by_service()
                .leaves_by(Is, LOOPBACK)
                .range(Field::Destination, Is, HOST_END.into())
                .send_from(HOST_END),
        );
        // Pods of another node may be called at the same address, and leave as that node says.
        rules.push(Rule::new().came_by_group(Is, LINK_GROUP).accept());
        // Through the cluster's address to somebody outside, who would answer past the machine.
        rules.push(
            by_service()
                .range(Field::Source, IsNot, frame.cluster)
                .range(Field::Destination, IsNot, frame.cluster)
                .leaves_by(IsNot, LOOPBACK)
                .masquerade(),
        );
    }
    rules
}

/// The rules of a choice.
fn rules(choice: Choice) -> Vec<Rule> {
    let mut rules = match choice {
        Choice::Refuse => return Vec::new(),
        Choice::Drop => Vec::new(),
        Choice::Leave => return vec![Rule::new().accept()],
        Choice::Random(calls, count) => vec![draw(calls, count), to_endpoint(calls)],
        Choice::Sticky {
            calls,
            count,
            seconds,
        } => {
            let member = || numbered_of(calls).look_up(MEMBERS.name, 0, 0).keep(0);
            let of_client = || called(Rule::new().load(0, &[Field::Source]), 1, calls);
            let client = || of_client().load(BEHIND, &[Field::Scratch]);
            let remember = || client().remember(STICKY.name, 0, BEHIND, seconds);
            // It may be known from before the policy was this one.
            let recall = of_client()
                .look_up(STICKY.name, 0, 0)
                .set_bits(Calls::BIT, calls.first())
                .keep(0);
            vec![
                draw(calls, count),
                member(),
                remember(),
                recall,
                to_endpoint(calls),
                // That endpoint is gone.
                client().forget(STICKY.name, 0, BEHIND),
                draw(calls, count),
                member(),
                remember(),
                to_endpoint(calls),
            ]
        }
    };
    // A packet that met the frontend before a change and its endpoints after it. It is sent again,
    // and must not go on as if the address were somebody's.
    rules.push(Rule::new().drop());
    rules
}

fn draw(calls: Calls, count: u32) -> Rule {
    Rule::new().random(0, calls.first(), count).keep(0)
}

fn to_endpoint(calls: Calls) -> Rule {
    numbered_of(calls)
        .look_up(ENDPOINTS.name, 0, 0)
        .send_to(0, 1)
}

/// Loads what is called and the number that is kept.
fn numbered_of(calls: Calls) -> Rule {
    called(Rule::new(), 0, calls).load(3, &[Field::Scratch])
}

/// The steps, those of one kind together.
pub(super) fn steps(batch: &mut Batch, table: &str, steps: &[Step]) {
    let mut rest = steps;
    while let Some(first) = rest.first() {
        let kind = std::mem::discriminant(first);
        let same = rest
            .iter()
            .take_while(|step| std::mem::discriminant(*step) == kind)
            .count();
        let (these, others) = rest.split_at(same);
        rest = others;
        let elements: Vec<Element> = these.iter().filter_map(element).collect();
        match first {
            Step::AddChoice(_) | Step::RemoveChoice(_) => {
                these.iter().for_each(|step| choice(batch, table, step));
            }
            Step::RemoveFrontend(_) => batch.remove_elements(table, FRONTENDS.name, &elements),
            Step::RemoveElsewhere(_) => batch.remove_elements(table, ELSEWHERE.name, &elements),
            Step::RemoveMember(..) => batch.remove_elements(table, MEMBERS.name, &elements),
            Step::RemoveEndpoint(..) => batch.remove_elements(table, ENDPOINTS.name, &elements),
            Step::RemoveHostPort(_) => batch.remove_elements(table, HOST_PORTS.name, &elements),
            Step::AddHostPort(..) => batch.add_elements(table, HOST_PORTS.name, &elements),
            Step::RemoveHairpin(_) => batch.remove_elements(table, HAIRPINS.name, &elements),
            Step::AddHairpin(_) => batch.add_elements(table, HAIRPINS.name, &elements),
            Step::AddEndpoint(..) => batch.add_elements(table, ENDPOINTS.name, &elements),
            Step::AddMember(..) => batch.add_elements(table, MEMBERS.name, &elements),
            Step::AddFrontend(..) => batch.add_elements(table, FRONTENDS.name, &elements),
            Step::AddElsewhere(..) => batch.add_elements(table, ELSEWHERE.name, &elements),
        }
    }
}

fn choice(batch: &mut Batch, table: &str, step: &Step) {
    match step {
        Step::AddChoice(choice) => {
            let chain = choice.chain();
            batch.chain(table, &chain);
            for rule in rules(*choice) {
                batch.rule(table, &chain, &rule);
            }
        }
        Step::RemoveChoice(choice) => batch.delete_chain(table, &choice.chain()),
        _ => {}
    }
}

/// The element of a step; the kernel removes by key alone.
fn element(step: &Step) -> Option<Element> {
    let (key, data) = match *step {
        Step::AddChoice(_) | Step::RemoveChoice(_) => return None,
        Step::RemoveFrontend(frontend)
        | Step::RemoveElsewhere(frontend)
        | Step::RemoveHostPort(frontend) => (self::frontend(frontend), Held::Nothing),
        Step::AddHostPort(port, target) => (self::frontend(port), Held::Bytes(socket(target))),
        Step::AddFrontend(frontend, choice) | Step::AddElsewhere(frontend, choice) => {
            (self::frontend(frontend), Held::Chain(choice.chain()))
        }
        Step::RemoveMember(frontend, number) | Step::RemoveEndpoint(frontend, number) => {
            (numbered(frontend, number), Held::Nothing)
        }
        Step::AddMember(frontend, number, member) => (
            numbered(frontend, number),
            Held::Bytes(scratch(member).to_vec()),
        ),
        Step::AddEndpoint(frontend, number, endpoint) => {
            (numbered(frontend, number), Held::Bytes(socket(endpoint)))
        }
        Step::RemoveHairpin(pod) | Step::AddHairpin(pod) => (twice(pod), Held::Nothing),
    };
    Some(Element::new(key, data))
}

fn frontend(frontend: Frontend) -> Vec<u8> {
    let protocol = match frontend.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    [
        frontend.address.octets(),
        [protocol, 0, 0, 0],
        port(frontend.port),
    ]
    .concat()
}

fn numbered(frontend: Frontend, number: u32) -> Vec<u8> {
    [self::frontend(frontend), scratch(number).to_vec()].concat()
}

fn twice(pod: Ipv4Addr) -> Vec<u8> {
    [pod.octets(), pod.octets()].concat()
}

fn socket(endpoint: SocketAddrV4) -> Vec<u8> {
    [endpoint.ip().octets(), port(endpoint.port())].concat()
}

fn port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// The kernel has it in the machine's order.
fn scratch(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

/// The whole table in one batch.
pub(super) fn load(table: &Table, clients: &[Element]) -> Batch {
    let mut batch = Batch::default();
    frame(&mut batch, &table.frame, table.answers_machine);
    let all = super::plan::steps(&Table::empty(table.frame.clone()), table);
    steps(&mut batch, &table.frame.table, &all);
    batch.add_elements(&table.frame.table, STICKY.name, clients);
    batch
}
