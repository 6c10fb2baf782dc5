use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::host_ports::tests::published;

mod policies;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn frame() -> Frame {
    Frame {
        table: "coracle-0-services".into(),
        link: "coracle-0".into(),
        pods: net("10.42.3.0/24"),
        node: Ipv4Addr::new(192, 0, 2, 2),
        cluster: net("10.42.0.0/16"),
        claim: claim("c1", "10.43.0.0/16", "/a"),
    }
}

fn claim(cluster: &str, range: &str, folder: &str) -> Claim {
    Claim {
        cluster: cluster.into(),
        range: net(range),
        folder: Some(folder.into()),
    }
}

/// `ADDRESSES PORT/PROTOCOL [AFFINITY] -> ENDPOINTS`
pub(in super::super) fn service(text: &str) -> ServicePort {
    let (front, endpoints) = text.split_once("->").unwrap();
    let mut words = front.split_whitespace();
    let addresses = words.next().unwrap().split(',');
    let (port, protocol) = words.next().unwrap().split_once('/').unwrap();
    let endpoints: Vec<SocketAddr> = endpoints
        .split_whitespace()
        .map(|endpoint| endpoint.parse().unwrap())
        .collect();
    let pods: ipnet::IpNet = frame().pods.into();
    let local = endpoints
        .iter()
        .filter(|endpoint| pods.contains(&endpoint.ip()));
    ServicePort {
        namespace: "default".into(),
        service: "web".into(),
        port_name: String::new(),
        port: port.parse().unwrap(),
        protocol: match protocol {
            "udp" => Protocol::Udp,
            _ => Protocol::Tcp,
        },
        addresses: addresses.map(|address| address.parse().unwrap()).collect(),
        external_addresses: Vec::new(),
        node_port: Some(30080),
        affinity: words.next().map(|seconds| seconds.parse().unwrap()),
        local_endpoints: local.copied().collect(),
        endpoints,
        internal_is_local: false,
        external_is_local: false,
    }
}

fn table(services: &[&str]) -> Table {
    let ports = services.iter().map(|text| service(text)).collect();
    table_of(ports)
}

fn table_of(ports: Vec<ServicePort>) -> Table {
    plan(&of(ports), &[], &[], &frame())
}

pub(in super::super) fn of(ports: Vec<ServicePort>) -> Rules {
    Rules {
        ports,
        ..Rules::default()
    }
}

fn text(table: &Table) -> String {
    let mut text = String::new();
    let mut line = |whose: &str, frontend: &Frontend, choice: Choice| {
        let Frontend {
            address,
            protocol,
            port,
        } = frontend;
        let chain = choice.chain();
        write!(text, "{whose}{address}:{port}/{protocol:?} {chain}").unwrap();
        let to = |number| table.endpoints[&(*frontend, number)];
        match choice {
            Choice::Refuse | Choice::Drop | Choice::Leave => {}
            Choice::Random(calls, count) => {
                for drawn in 0..count {
                    write!(text, " {drawn}={}", to(calls.first() + drawn)).unwrap();
                }
            }
            Choice::Sticky { calls, count, .. } => {
                for drawn in 0..count {
                    let member = table.members[&(*frontend, calls.first() + drawn)];
                    write!(text, " [{drawn}]={}", to(member)).unwrap();
                }
            }
        }
        text.push('\n');
    };
    for (frontend, choice) in &table.frontends {
        line("", frontend, *choice);
    }
    for (frontend, choice) in &table.elsewhere {
        line("elsewhere ", frontend, *choice);
    }
    writeln!(text, "hairpins {:?}", table.hairpins).unwrap();
    text
}

#[test]
fn services_are_elements_of_shared_maps() {
    let table = table(&[
        "10.43.0.9,203.0.113.5 80/tcp -> 10.42.3.2:8080 10.42.9.3:8080 198.51.100.7:9",
        "10.43.0.9 53/udp -> 10.42.3.2:53",
        "10.43.0.10 80/tcp 60 -> 10.42.3.2:80 10.42.3.3:80",
        "10.43.0.11 80/tcp 60 ->",
        "fd00::1,10.43.0.12 80/tcp -> [fd00:1::2]:80",
        // An address that is taken.
        "203.0.113.5 80/tcp -> 10.42.3.4:1",
    ]);
    assert_eq!(
        text(&table),
        "10.43.0.9:80/Tcp random-3 0=10.42.3.2:8080 1=10.42.9.3:8080 2=198.51.100.7:9\n\
         10.43.0.9:53/Udp random-1 0=10.42.3.2:53\n\
         10.43.0.10:80/Tcp sticky-2-60 [0]=10.42.3.2:80 [1]=10.42.3.3:80\n\
         10.43.0.11:80/Tcp refuse\n\
         10.43.0.12:80/Tcp refuse\n\
         203.0.113.5:80/Tcp random-3 0=10.42.3.2:8080 1=10.42.9.3:8080 2=198.51.100.7:9\n\
         hairpins {10.42.3.2, 10.42.3.3}\n"
    );
}

#[test]
fn ports_of_the_machine_lead_to_pods() {
    let ports = [
        "TCP 0.0.0.0 8080 80 -> 10.42.3.2",
        // One that is taken, and one that is not the kernel's.
        "TCP 0.0.0.0 8080 80 -> 10.42.3.3",
        "TCP 127.0.0.1 8081 80 -> 10.42.3.4",
        "UDP 192.0.2.2 8080 80 -> 10.42.3.5",
    ];
    let ports = ports.map(published);
    let table = plan(&Rules::default(), &ports, &[], &frame());
    let leads = |address: &str, protocol, port| {
        let address = address.parse().unwrap();
        let called = Frontend {
            address,
            protocol,
            port,
        };
        table.host_port(called).map(|target| target.to_string())
    };
    let to = |target: &str| Some(target.to_owned());
    use Protocol::{Tcp, Udp};
    assert_eq!(leads("192.0.2.9", Tcp, 8080), to("10.42.3.2:80"));
    assert_eq!(leads("192.0.2.2", Udp, 8080), to("10.42.3.5:80"));
    assert_eq!(leads("192.0.2.9", Udp, 8080), None);
    assert_eq!(leads("127.0.0.1", Tcp, 8081), None);
    assert_eq!(text(&table), "hairpins {10.42.3.2, 10.42.3.5}\n");
    // Flows of UDP alone are looked at.
    let empty = plan(&Rules::default(), &[], &[], &frame());
    for pair in [(&empty, &table), (&table, &empty)] {
        let disturbed = disturbed_ports(&steps(pair.0, pair.1));
        let disturbed: Vec<_> = disturbed.iter().map(|port| port.address).collect();
        assert_eq!(disturbed, [Ipv4Addr::new(192, 0, 2, 2)]);
    }
}

#[test]
fn a_member_stays_the_same_endpoint_and_none_is_lost() {
    let members = |endpoints: &str| {
        let table = table(&[&format!("10.43.0.9 80/tcp 60 -> {endpoints}")]);
        let all: BTreeSet<u32> = table.members.values().copied().collect();
        assert_eq!(
            all,
            table.endpoints.keys().map(|(_, member)| *member).collect()
        );
        let by_endpoint = table.endpoints.iter().map(|((_, m), e)| (*e, *m));
        by_endpoint.collect::<BTreeMap<_, _>>()
    };
    let three = members("10.42.3.2:80 10.42.3.3:80 10.42.3.4:80");
    let two = members("10.42.3.3:80 10.42.3.4:80");
    assert!(
        two.iter()
            .all(|(endpoint, member)| three[endpoint] == *member)
    );
    // One Pod, or addresses and ports that differ by the same.
    assert_eq!(members("10.42.3.2:80 10.42.3.2:81").len(), 2);
    assert_eq!(members("10.42.3.2:80 10.42.3.3:81").len(), 2);
}

#[test]
fn sockets_of_the_node_are_reached_where_they_are() {
    let alias = |protocol, known: &str, actual: &str| Alias {
        protocol,
        known: known.parse().unwrap(),
        actual: actual.parse().unwrap(),
    };
    let aliases = [
        alias(Protocol::Tcp, "192.0.2.2:6443", "169.254.1.1:5"),
        alias(Protocol::Udp, "10.43.0.10:53", "169.254.1.1:6"),
    ];
    let ports = vec![
        service("10.43.0.1 443/tcp -> 192.0.2.2:6443"),
        service("10.43.0.1 443/udp -> 192.0.2.2:6443"),
        // The node answers there itself.
        service("10.43.0.10 53/udp ->"),
    ];
    let table = plan(&of(ports), &[], &aliases, &frame());
    assert_eq!(
        text(&table),
        "10.43.0.1:443/Tcp random-1 0=169.254.1.1:5\n\
         10.43.0.1:443/Udp random-1 0=192.0.2.2:6443\n\
         10.43.0.10:53/Udp random-1 0=169.254.1.1:6\n\
         hairpins {}\n"
    );
}

#[test]
fn a_change_touches_what_has_changed() {
    let [a, b, c] = ["10.42.3.2:80", "10.42.3.3:80", "10.42.9.4:80"];
    let other = "10.43.0.10 80/tcp -> 10.42.3.9:80";
    let before = table(&[&format!("10.43.0.9 80/tcp -> {a} {b}"), other]);
    let after = table(&[&format!("10.43.0.9 80/tcp -> {a} {b} {c}"), other]);
    let frontend = Frontend {
        address: Ipv4Addr::new(10, 43, 0, 9),
        protocol: Protocol::Tcp,
        port: 80,
    };
    let [two, three] = [2, 3].map(|count| Choice::Random(Calls::Any, count));
    let (added, taken) = (steps(&before, &after), steps(&after, &before));
    assert_eq!(
        added,
        [
            Step::AddChoice(three),
            Step::RemoveFrontend(frontend),
            Step::AddEndpoint(frontend, 2, "10.42.9.4:80".parse().unwrap()),
            Step::AddFrontend(frontend, three),
            Step::RemoveChoice(two),
        ]
    );
    assert_eq!(
        taken,
        [
            Step::AddChoice(two),
            Step::RemoveFrontend(frontend),
            Step::RemoveEndpoint(frontend, 2),
            Step::AddFrontend(frontend, two),
            Step::RemoveChoice(three),
        ]
    );
    assert!(steps(&after, &after).is_empty());
    // Connections end by themselves.
    assert!(disturbed(&taken).is_empty());
}

#[test]
fn flows_are_looked_at_where_endpoints_went_or_a_service_came() {
    let states = [
        table(&[]),
        table(&["10.43.0.9 53/udp -> 10.42.3.2:53"]),
        table(&["10.43.0.9 53/udp -> 10.42.3.2:53 10.42.3.3:53"]),
        table(&["10.43.0.9 53/udp -> 10.42.3.3:53"]),
        table(&["10.43.0.9 53/udp ->"]),
        table(&[]),
    ];
    for pair in states.windows(2) {
        let steps = steps(&pair[0], &pair[1]);
        let ports: Vec<u16> = disturbed(&steps).iter().map(|f| f.port).collect();
        assert_eq!(ports, [53], "{steps:?}");
    }
}

#[test]
fn the_machine_goes_by_the_table_that_was_first() {
    let own = claim("c1", "10.43.0.0/16", "/a");
    let tables = |comments: &[(&str, Option<String>)]| -> Vec<(String, Option<String>)> {
        let tables = comments.iter();
        tables
            .map(|(name, c)| ((*name).to_owned(), c.clone()))
            .collect()
    };
    let holds = |cluster: &str, range: &str| Some(claim(cluster, range, "/b").encode());
    let held = |comments: &[(&str, Option<String>)]| {
        holder("own", &own, &tables(comments)).map(|claim| claim.folder.unwrap())
    };
    assert_eq!(held(&[]), None);
    assert_eq!(held(&[("own", holds("c1", "10.43.0.0/16"))]), None);
    assert_eq!(held(&[("filter", Some("of the firm".into()))]), None);
    assert_eq!(held(&[("b", None)]), None);
    assert_eq!(held(&[("b", holds("c2", "10.96.0.0/12"))]), None);
    let by = Some("/b".into());
    assert_eq!(held(&[("b", holds("c2", "10.0.0.0/8"))]), by);
    assert_eq!(
        held(&[("own", None), ("b", holds("c1", "10.43.7.0/24"))]),
        by
    );
}

/// What the kernel does with steps, and refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    choices: BTreeSet<Choice>,
    frontends: BTreeMap<Frontend, Choice>,
    elsewhere: BTreeMap<Frontend, Choice>,
    endpoints: BTreeMap<(Frontend, u32), SocketAddrV4>,
    members: BTreeMap<(Frontend, u32), u32>,
    host_ports: BTreeMap<Frontend, SocketAddrV4>,
    hairpins: BTreeSet<Ipv4Addr>,
}

impl Model {
    fn of(table: &Table) -> Self {
        let mut model = Self::default();
        model.take(&steps(&Table::empty(table.frame.clone()), table));
        model
    }

    fn take(&mut self, steps: &[Step]) {
        for step in steps {
            let taken = match *step {
                Step::AddChoice(choice) => self.choices.insert(choice),
                Step::RemoveChoice(choice) => {
                    let mut used = self.frontends.values().chain(self.elsewhere.values());
                    !used.any(|used| *used == choice) && self.choices.remove(&choice)
                }
                Step::AddFrontend(frontend, choice) => {
                    let there = choice == Choice::Refuse || self.choices.contains(&choice);
                    there && self.frontends.insert(frontend, choice).is_none()
                }
                Step::RemoveFrontend(frontend) => self.frontends.remove(&frontend).is_some(),
                Step::AddElsewhere(frontend, choice) => {
                    let there = self.choices.contains(&choice);
                    there && self.elsewhere.insert(frontend, choice).is_none()
                }
                Step::RemoveElsewhere(frontend) => self.elsewhere.remove(&frontend).is_some(),
                Step::AddEndpoint(frontend, number, endpoint) => {
                    let key = (frontend, number);
                    self.endpoints.insert(key, endpoint).is_none()
                }
                Step::RemoveEndpoint(frontend, number) => {
                    self.endpoints.remove(&(frontend, number)).is_some()
                }
                Step::AddMember(frontend, number, member) => {
                    let key = (frontend, number);
                    self.members.insert(key, member).is_none()
                }
                Step::RemoveMember(frontend, number) => {
                    self.members.remove(&(frontend, number)).is_some()
                }
                Step::AddHostPort(port, target) => self.host_ports.insert(port, target).is_none(),
                Step::RemoveHostPort(port) => self.host_ports.remove(&port).is_some(),
                Step::AddHairpin(pod) => self.hairpins.insert(pod),
                Step::RemoveHairpin(pod) => self.hairpins.remove(&pod),
            };
            assert!(taken, "{step:?} of {steps:?}");
        }
    }
}

fn any_table() -> impl Strategy<Value = Table> {
    let endpoints = prop::collection::btree_set((0..6_u8, 80..82_u16), 0..5);
    let any_service = (
        0..4_u8,
        any::<bool>(),
        prop::option::of(1..3_u32),
        endpoints,
        any::<[bool; 3]>(),
    );
    let services = prop::collection::vec(any_service, 0..6);
    let any_port = (0..3_u8, any::<bool>(), 80..83_u16, 0..6_u8);
    let host_ports = prop::collection::vec(any_port, 0..6);
    (services, host_ports).prop_map(|(services, host_ports)| {
        let ports = services
            .into_iter()
            .map(|(address, udp, affinity, endpoints, policies)| {
                let mut port = service(&format!("10.43.0.{address} 80/tcp ->"));
                if udp {
                    port.protocol = Protocol::Udp;
                }
                port.affinity = affinity;
                let endpoints = endpoints.into_iter();
                let endpoints = endpoints.map(|(pod, port)| ([10, 42, 3, pod], port).into());
                port.endpoints = endpoints.collect();
                let ready: Vec<SocketAddr> = port.endpoints.clone();
                port.local_endpoints = ready.into_iter().step_by(2).collect();
                let [internal, external, none_here] = policies;
                port.internal_is_local = internal;
                port.external_is_local = external;
                if none_here {
                    port.local_endpoints.clear();
                }
                port.external_addresses = vec![[203, 0, 113, address].into()];
                port
            });
        let ports = ports.collect();
        let host_ports = host_ports.into_iter().map(|(address, udp, port, pod)| {
            let protocol = if udp { "UDP" } else { "TCP" };
            published(&format!(
                "{protocol} 0.0.0.{address} {port} 80 -> 10.42.3.{pod}"
            ))
        });
        let host_ports: Vec<Published> = host_ports.collect();
        plan(&of(ports), &host_ports, &[], &frame())
    })
}

proptest! {
    #[test]
    fn steps_lead_where_loading_anew_does(tables in prop::collection::vec(any_table(), 1..6)) {
        let mut model = Model::of(&tables[0]);
        for pair in tables.windows(2) {
            model.take(&steps(&pair[0], &pair[1]));
            prop_assert_eq!(&model, &Model::of(&pair[1]));
        }
    }

    #[test]
    fn every_number_that_is_drawn_leads_to_an_endpoint(table in any_table()) {
        for (frontend, choice) in table.frontends.iter().chain(&table.elsewhere) {
            let to = |number| *table.endpoints.get(&(*frontend, number)).unwrap();
            let reached: BTreeSet<_> = match *choice {
                Choice::Refuse | Choice::Drop | Choice::Leave => continue,
                Choice::Random(calls, count) => {
                    (0..count).map(|n| to(calls.first() + n)).collect()
                }
                Choice::Sticky { calls, count, .. } => (0..count)
                    .map(|n| to(table.members[&(*frontend, calls.first() + n)]))
                    .collect(),
            };
            let count = match *choice {
                Choice::Random(_, count) | Choice::Sticky { count, .. } => count,
                _ => 0,
            };
            // Each of its own.
            prop_assert_eq!(reached.len(), usize::try_from(count).unwrap());
        }
        let drawn = |choice: &Choice| match *choice {
            Choice::Random(_, count) | Choice::Sticky { count, .. } => count,
            _ => 0,
        };
        let all = table.frontends.values().chain(table.elsewhere.values());
        let all: u32 = all.map(drawn).sum();
        prop_assert_eq!(table.endpoints.len(), usize::try_from(all).unwrap());
    }
}
