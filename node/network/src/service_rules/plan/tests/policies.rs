//! Calls that stay on their node, and addresses that are others'.

use super::*;

#[test]
fn calls_that_stay_on_the_node_go_to_its_endpoints_or_are_dropped() {
    let (here, there) = ("10.42.3.2:80", "10.42.9.3:80");
    let with = |text: &str, is_internal: bool| {
        let mut service = service(text);
        service.internal_is_local = is_internal;
        service.external_is_local = !is_internal;
        service.external_addresses = vec!["203.0.113.5".parse().unwrap()];
        service
    };
    let both = format!("10.43.0.9 80/tcp -> {here} {there}");
    let far = format!("10.43.0.9 80/tcp -> {there}");
    let sticky = format!("10.43.0.9 80/tcp 60 -> {here} {there}");
    let nobody = "10.43.0.9 80/tcp ->";
    let all = "0=10.42.3.2:80 1=10.42.9.3:80";
    let table = [
        (
            with(&both, true),
            format!(
                "10.43.0.9:80/Tcp random-1 0=10.42.3.2:80\n\
                 203.0.113.5:80/Tcp random-2 {all}\n\
                 hairpins {{10.42.3.2}}\n"
            ),
        ),
        (
            with(&far, true),
            "10.43.0.9:80/Tcp dropped\n\
             203.0.113.5:80/Tcp random-1 0=10.42.9.3:80\n\
             hairpins {}\n"
                .to_owned(),
        ),
        (
            with(&both, false),
            format!(
                "10.43.0.9:80/Tcp random-2 {all}\n\
                 203.0.113.5:80/Tcp random-2 {all}\n\
                 elsewhere 0.0.0.0:30080/Tcp machine-random-1 0=10.42.3.2:80\n\
                 elsewhere 203.0.113.5:80/Tcp elsewhere-random-1 0=10.42.3.2:80\n\
                 hairpins {{10.42.3.2}}\n"
            ),
        ),
        (
            with(&sticky, false),
            "10.43.0.9:80/Tcp sticky-2-60 [0]=10.42.3.2:80 [1]=10.42.9.3:80\n\
             203.0.113.5:80/Tcp sticky-2-60 [0]=10.42.3.2:80 [1]=10.42.9.3:80\n\
             elsewhere 0.0.0.0:30080/Tcp machine-sticky-1-60 [0]=10.42.3.2:80\n\
             elsewhere 203.0.113.5:80/Tcp elsewhere-sticky-1-60 [0]=10.42.3.2:80\n\
             hairpins {10.42.3.2}\n"
                .to_owned(),
        ),
        (
            with(&far, false),
            "10.43.0.9:80/Tcp random-1 0=10.42.9.3:80\n\
             203.0.113.5:80/Tcp random-1 0=10.42.9.3:80\n\
             elsewhere 0.0.0.0:30080/Tcp dropped\n\
             elsewhere 203.0.113.5:80/Tcp dropped\n\
             hairpins {}\n"
                .to_owned(),
        ),
        (
            with(nobody, false),
            "10.43.0.9:80/Tcp refuse\n\
             203.0.113.5:80/Tcp refuse\n\
             hairpins {}\n"
                .to_owned(),
        ),
    ];
    for (service, expected) in table {
        assert_eq!(text(&table_of(vec![service])), expected);
    }
}

#[test]
fn an_endpoint_has_one_member_but_for_whose_calls_it_is() {
    let text = "10.43.0.9 80/tcp 60 -> 10.42.3.2:80 10.42.3.3:81 192.168.3.2:80";
    let mut service = service(text);
    service.external_addresses = vec!["203.0.113.5".parse().unwrap()];
    service.external_is_local = true;
    service.local_endpoints = service.endpoints.clone();
    let table = table_of(vec![service]);
    let members = |calls: Calls| -> Vec<u32> {
        let of_calls = table.members.iter().filter(|((frontend, number), _)| {
            let address = Ipv4Addr::new(203, 0, 113, 5);
            frontend.address == address && number & Calls::BIT == calls.first()
        });
        of_calls.map(|(_, member)| *member).collect()
    };
    let (any, elsewhere) = (members(Calls::Any), members(Calls::FromElsewhere));
    assert_eq!(any.len(), 3);
    assert!(any.iter().all(|member| member & Calls::BIT == 0));
    let with_bit: Vec<u32> = any.iter().map(|member| member | Calls::BIT).collect();
    assert_eq!(elsewhere, with_bit);
}

#[test]
fn nobody_takes_an_address_by_naming_it() {
    let mut thief = service("10.43.0.9 80/tcp -> 10.42.3.66:80");
    for taken in ["10.43.0.1", "10.43.0.7"] {
        thief.external_addresses.push(taken.parse().unwrap());
    }
    thief.external_is_local = true;
    // It comes first by its name.
    let rules = Rules {
        ports: vec![thief, service("10.43.0.1 80/tcp -> 10.42.3.2:80")],
        left: BTreeSet::from([("10.43.0.7".parse().unwrap(), 80, Protocol::Tcp)]),
    };
    assert_eq!(
        text(&plan(&rules, &[], &[], &frame())),
        "10.43.0.1:80/Tcp random-1 0=10.42.3.2:80\n\
         10.43.0.7:80/Tcp left\n\
         10.43.0.9:80/Tcp random-1 0=10.42.3.66:80\n\
         elsewhere 0.0.0.0:30080/Tcp machine-random-1 0=10.42.3.66:80\n\
         hairpins {10.42.3.2, 10.42.3.66}\n"
    );
}

#[test]
fn flows_to_ports_of_the_machine_are_looked_at_as_those_of_pods_ports() {
    let mut service = service("10.43.0.9 53/udp -> 10.42.3.2:53 10.42.9.3:53");
    let cluster = table_of(vec![service.clone()]);
    service.external_is_local = true;
    let local = table_of(vec![service.clone()]);
    service.local_endpoints.clear();
    let none_here = table_of(vec![service]);
    for pair in [
        (&cluster, &local),
        (&local, &none_here),
        (&none_here, &cluster),
    ] {
        let steps = steps(pair.0, pair.1);
        let ports: Vec<u16> = disturbed_ports(&steps).iter().map(|f| f.port).collect();
        assert_eq!(ports, [30080], "{steps:?}");
    }
    let called = Frontend {
        address: Ipv4Addr::new(192, 0, 2, 9),
        protocol: Protocol::Udp,
        port: 30080,
    };
    let [here, there] = ["10.42.3.2:53", "10.42.9.3:53"].map(|socket| socket.parse().unwrap());
    assert!(local.has_port(called) && none_here.has_port(called) && !cluster.has_port(called));
    assert!(local.port_leads(called, here) && !local.port_leads(called, there));
    assert!(!none_here.port_leads(called, here));
}
