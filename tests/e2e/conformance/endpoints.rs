//! test/e2e/network/service.go and endpointslice.go: the endpoints of Services, with their ports,
//! and that each is reached.

use serde_json::{Value, json};

use super::shared::{IDLE, Place, place, pod, with_programs_of_the_machine};
use crate::cluster::eventually;

/// Answers with the Pod's name, and the port: on TCP whoever connects, on UDP each message.
const SPEAKER: &str = r#"
    chomp(my $name = `/bin/hostname`);
    my @ports = @ARGV;
    for my $port (@ports[1 .. $#ports]) { unless (fork) { @ports = ($port); last } }
    my $port = $ports[0];
    if (fork) {
        my $listener = IO::Socket::INET->new(LocalPort => $port, Listen => 16, ReuseAddr => 1) or die $!;
        while (my $client = $listener->accept) {
            1 while defined(my $line = <$client>) && $line !~ /^\r?$/;
            print $client "HTTP/1.0 200 OK\r\n\r\n$name:$port\n";
            close $client;
        }
    } else {
        my $socket = IO::Socket::INET->new(LocalPort => $port, Proto => "udp") or die $!;
        while ($socket->recv(my $message, 1500)) { $socket->send("$name:$port\n") }
    }
"#;

/// Sends a message by UDP, and prints what comes back within two seconds.
const ASK: &str = r#"
    my $socket = IO::Socket::INET->new(PeerAddr => shift, Proto => "udp") or die $!;
    $socket->send("hello") or die "refused: $!";
    my $set = "";
    vec($set, fileno $socket, 1) = 1;
    select($set, undef, undef, 2) or die "nothing came\n";
    defined $socket->recv(my $answer, 1500) or die "refused: $!";
    print $answer;
"#;

/// A Pod that answers on ports, of TCP and UDP, and names those of TCP.
fn speaker(ports: &[u16]) -> Value {
    let mut spec = with_programs_of_the_machine(pod(""));
    let container = &mut spec["containers"][0];
    let mut command = vec![
        "/usr/bin/perl".to_owned(),
        "-MIO::Socket::INET".to_owned(),
        "-e".to_owned(),
        SPEAKER.to_owned(),
    ];
    command.extend(ports.iter().map(u16::to_string));
    container["command"] = json!(command);
    let of = |port: &u16| json!({"name": format!("p{port}"), "containerPort": port});
    container["ports"] = json!(ports.iter().map(of).collect::<Vec<_>>());
    container["readinessProbe"] = json!({"tcpSocket": {"port": ports[0]}, "periodSeconds": 1});
    spec
}

/// Makes such a Pod, with a label that Services select.
fn speak(place: &Place, name: &str, ports: &[u16]) {
    let metadata = json!({"name": name, "labels": {"app": "speaker"}});
    let spec = speaker(ports);
    super::create(
        place,
        &json!({"kind": "Pod", "metadata": metadata, "spec": spec}),
    );
}

fn client(place: &Place) {
    let spec = with_programs_of_the_machine(pod(IDLE));
    place.make("Pod", "client", &spec);
    place.wait_ready(&["client"]);
}

fn by_tcp(authority: &str) -> String {
    format!("/bin/wget -q -O - http://{authority}/")
}

fn by_udp(authority: &str) -> String {
    format!("/usr/bin/perl -MIO::Socket::INET -e '{ASK}' {authority}")
}

#[track_caller]
fn says(place: &Place, script: &str, answer: &str) {
    place.shell_until("client", script, |said| said.trim_end() == answer);
}

#[track_caller]
fn is_refused(place: &Place, script: &str) {
    eventually("a refusal", || match place.try_shell("client", script) {
        Err(error) if error.contains("refused") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Waits until a Service has these endpoints that are ready, as `ADDRESS:PORT`, and no others.
#[track_caller]
fn endpoints(place: &Place, service: &str, wanted: &[(&str, u16)]) {
    let mut wanted: Vec<String> = wanted
        .iter()
        .map(|(pod, port)| format!("{}:{port}", place.address(pod)))
        .collect();
    wanted.sort();
    eventually("the endpoints", || {
        let of = format!("kubernetes.io/service-name={service}");
        let slices = place.ok(&["get", "endpointslices", "-l", &of, "-o", "json"]);
        let slices: Value = serde_json::from_str(&slices).unwrap();
        let mut found = Vec::new();
        for slice in slices["items"].as_array().unwrap() {
            for port in slice["ports"].as_array().into_iter().flatten() {
                let ready = slice["endpoints"].as_array().into_iter().flatten();
                for endpoint in ready.filter(|endpoint| endpoint["conditions"]["ready"] == true) {
                    let address = endpoint["addresses"][0].as_str().unwrap();
                    found.push(format!("{address}:{}", port["port"]));
                }
            }
        }
        found.sort();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?} for {wanted:?}"))
        }
    });
}

fn service(ports: &Value) -> Value {
    json!({"selector": {"app": "speaker"}, "ports": ports})
}

/// Must: a Service without Pods has no endpoints.
/// Must: with a Pod it has that, and leads to it.
/// Must: with another it has both.
/// Must: with one of them deleted it has the other alone.
/// Must: with both deleted it has none.
#[test]
fn services_should_serve_a_basic_endpoint_from_pods() {
    let Some(place) = place() else { return };
    place.make(
        "Service",
        "basic",
        &service(&json!([{"port": 80, "targetPort": 8080}])),
    );
    client(&place);
    endpoints(&place, "basic", &[]);
    is_refused(&place, &by_tcp("basic"));
    speak(&place, "pod1", &[8080]);
    place.wait_ready(&["pod1"]);
    endpoints(&place, "basic", &[("pod1", 8080)]);
    says(&place, &by_tcp("basic"), "pod1:8080");
    speak(&place, "pod2", &[8080]);
    place.wait_ready(&["pod2"]);
    endpoints(&place, "basic", &[("pod1", 8080), ("pod2", 8080)]);
    says(&place, &by_tcp("basic"), "pod2:8080");
    place.ok(&["delete", "pod", "pod1", "--timeout=60s"]);
    endpoints(&place, "basic", &[("pod2", 8080)]);
    says(&place, &by_tcp("basic"), "pod2:8080");
    place.ok(&["delete", "pod", "pod2", "--timeout=60s"]);
    endpoints(&place, "basic", &[]);
    is_refused(&place, &by_tcp("basic"));
}

/// Must: a Service of two ports without Pods has no endpoints.
/// Must: with a Pod that has the one port it has an endpoint there.
/// Must: with another that has the other it has both, and leads to each by its port.
/// Must: with the first deleted it has the second alone, and none with both deleted.
#[test]
fn services_should_serve_multiport_endpoints_from_pods() {
    let Some(place) = place() else { return };
    let ports = json!([
        {"name": "first", "port": 80, "targetPort": "p100"},
        {"name": "second", "port": 81, "targetPort": "p101"},
    ]);
    place.make("Service", "multiport", &service(&ports));
    client(&place);
    endpoints(&place, "multiport", &[]);
    speak(&place, "pod1", &[100]);
    place.wait_ready(&["pod1"]);
    endpoints(&place, "multiport", &[("pod1", 100)]);
    says(&place, &by_tcp("multiport:80"), "pod1:100");
    is_refused(&place, &by_tcp("multiport:81"));
    speak(&place, "pod2", &[101]);
    place.wait_ready(&["pod2"]);
    endpoints(&place, "multiport", &[("pod1", 100), ("pod2", 101)]);
    says(&place, &by_tcp("multiport:80"), "pod1:100");
    says(&place, &by_tcp("multiport:81"), "pod2:101");
    place.ok(&["delete", "pod", "pod1", "--timeout=60s"]);
    endpoints(&place, "multiport", &[("pod2", 101)]);
    is_refused(&place, &by_tcp("multiport:80"));
    place.ok(&["delete", "pod", "pod2", "--timeout=60s"]);
    endpoints(&place, "multiport", &[]);
}

/// Must: a Service with one number for a port of TCP and one of UDP leads to both.
/// Must: when it has that of TCP alone it leads there, and not to that of UDP.
/// Must: when it has that of UDP alone it leads there, and not to that of TCP.
#[test]
fn services_should_serve_endpoints_on_same_port_and_different_protocols() {
    let Some(place) = place() else { return };
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 80, "targetPort": 8080, "protocol": protocol});
    let (tcp, udp) = (port("tcp", "TCP"), port("udp", "UDP"));
    place.make("Service", "both", &service(&json!([tcp, udp])));
    speak(&place, "pod1", &[8080]);
    client(&place);
    place.wait_ready(&["pod1"]);
    let address = place.value(&["service", "both"], ".spec.clusterIP");
    let address = format!("{address}:80");
    let only = |port: &Value| {
        let patch = json!([{"op": "replace", "path": "/spec/ports", "value": [port]}]);
        let patch = patch.to_string();
        place.ok(&["patch", "service", "both", "--type=json", "-p", &patch]);
    };
    says(&place, &by_tcp(&address), "pod1:8080");
    says(&place, &by_udp(&address), "pod1:8080");
    only(&tcp);
    is_refused(&place, &by_udp(&address));
    says(&place, &by_tcp(&address), "pod1:8080");
    only(&udp);
    is_refused(&place, &by_tcp(&address));
    says(&place, &by_udp(&address), "pod1:8080");
}

/// Makes a slice of one port with one Pod's address for a Service that selects none.
fn slice(place: &Place, name: &str, pod: &str, (port, number): (&str, u16)) {
    let labels = json!({"kubernetes.io/service-name": "sliced"});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": labels}, "addressType": "IPv4",
        "ports": [{"name": port, "port": number, "protocol": "TCP"}],
        "endpoints": [{"addresses": [place.address(pod)]}],
    });
    place.apply(&slice.to_string());
}

/// Makes a Service of two ports that selects no Pods, Pods that answer on both, and a client.
fn sliced(place: &Place, pods: &[&str]) {
    let port = |name: &str, number: u16| json!({"name": name, "port": number, "protocol": "TCP"});
    let ports = json!([port("first", 8090), port("second", 9090)]);
    place.make("Service", "sliced", &json!({"ports": ports}));
    for pod in pods {
        speak(place, pod, &[8090, 9090]);
    }
    client(place);
    place.wait_ready(pods);
}

/// Must: a Service leads to the addresses of several slices, each at its port.
#[test]
fn endpointslice_should_support_a_service_with_multiple_endpoint_ips_specified_in_multiple_endpointslices()
 {
    let Some(place) = place() else { return };
    sliced(&place, &["pod1", "pod2"]);
    slice(&place, "one", "pod1", ("first", 8090));
    slice(&place, "two", "pod2", ("second", 9090));
    says(&place, &by_tcp("sliced:8090"), "pod1:8090");
    says(&place, &by_tcp("sliced:9090"), "pod2:9090");
}

/// Must: a Service leads to the ports of several slices of one address.
#[test]
fn endpointslice_should_support_a_service_with_multiple_ports_specified_in_multiple_endpointslices()
{
    let Some(place) = place() else { return };
    sliced(&place, &["pod1"]);
    slice(&place, "one", "pod1", ("first", 8090));
    slice(&place, "two", "pod1", ("second", 9090));
    says(&place, &by_tcp("sliced:8090"), "pod1:8090");
    says(&place, &by_tcp("sliced:9090"), "pod1:9090");
}

/// Pods answer a client by TCP or UDP, each with its own name: one in the Pods' network, or one on
/// the machine's.
fn everybody_answers(on_machine: bool, ask: fn(&str) -> String) {
    let Some(place) = place() else { return };
    let pods = ["netserver-0", "netserver-1", "netserver-2"];
    for pod in pods {
        speak(&place, pod, &[8080]);
    }
    let mut spec = with_programs_of_the_machine(pod(IDLE));
    spec["hostNetwork"] = json!(on_machine);
    place.make("Pod", "client", &spec);
    place.wait_ready(&pods);
    place.wait_ready(&["client"]);
    for pod in pods {
        let authority = format!("{}:8080", place.address(pod));
        says(&place, &ask(&authority), &format!("{pod}:8080"));
    }
}

/// Must: a Pod reaches each of the others by HTTP.
/// Must: each call is answered.
/// Must: each answers with its own name.
#[test]
fn networking_granular_checks_pods_should_function_for_intra_pod_communication_http() {
    everybody_answers(false, by_tcp);
}

/// Must: a Pod reaches each of the others by UDP.
/// Must: each call is answered.
/// Must: each answers with its own name.
#[test]
fn networking_granular_checks_pods_should_function_for_intra_pod_communication_udp() {
    everybody_answers(false, by_udp);
}

/// Must: a Pod on the machine's network reaches each of the others by HTTP.
/// Must: each call is answered.
/// Must: each answers with its own name.
#[test]
fn networking_granular_checks_pods_should_function_for_node_pod_communication_http() {
    everybody_answers(true, by_tcp);
}

/// Must: a Pod on the machine's network reaches each of the others by UDP.
/// Must: each call is answered.
/// Must: each answers with its own name.
#[test]
fn networking_granular_checks_pods_should_function_for_node_pod_communication_udp() {
    everybody_answers(true, by_udp);
}
