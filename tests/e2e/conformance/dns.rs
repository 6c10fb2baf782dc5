//! test/e2e/network/dns.go: names, as processes of containers find them.

use serde_json::json;

use super::shared::{IDLE, Place, place, pod, with_programs_of_the_machine};

/// A Pod that asks: by busybox's nslookup, and as programs do, by the resolver of the machine's libc.
#[track_caller]
fn querier(place: &Place) {
    let spec = with_programs_of_the_machine(pod(IDLE));
    place.make("Pod", "querier", &spec);
    place.wait_ready(&["querier"]);
}

/// Waits until the resolver finds a name as an address, and as no other.
#[track_caller]
fn resolves(place: &Place, name: &str, address: &str) {
    let script = format!("/usr/bin/getent ahostsv4 {name} | cut -d ' ' -f 1 | sort -u");
    place.shell_until("querier", &script, |answer| answer.trim_end() == address);
}

/// Waits until a port of a name has a record under one of the Pod's domains.
#[track_caller]
fn has_port(place: &Place, name: &str) {
    let domains = "$(sed -n 's/^search //p' /etc/resolv.conf)";
    let script = format!(
        "for domain in {domains}; do nslookup -type=srv _http._tcp.{name}.$domain && exit; done; exit 1"
    );
    place.shell_until("querier", &script, |answer| answer.contains(" 80 "));
}

/// Looks a name up in a Pod until the answer has all the words.
#[track_caller]
fn finds(place: &Place, pod: &str, kind: &str, name: &str, words: &[&str]) {
    let script = format!("nslookup -type={kind} {name}");
    place.shell_until(pod, &script, |answer| {
        words.iter().all(|word| answer.contains(word))
    });
}

/// Makes a Service of the Pods of that name, headless or not.
#[track_caller]
fn serve(place: &Place, name: &str, of: &str, headless: bool) {
    let mut spec = json!({
        "selector": {"name": of}, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    });
    if headless {
        spec["clusterIP"] = json!("None");
    }
    place.make("Service", name, &spec);
}

/// Makes a Pod that has a name of its own under a headless Service.
#[track_caller]
fn named(place: &Place, host: &str, service: &str) -> String {
    serve(place, service, "querier", true);
    let mut spec = pod(IDLE);
    spec["hostname"] = json!(host);
    spec["subdomain"] = json!(service);
    place.make("Pod", "querier", &spec);
    place.wait_ready(&["querier"]);
    place.address("querier")
}

/// Must: a Pod finds names of the cluster such as kubernetes.default.
#[test]
fn dns_should_provide_dns_for_the_cluster() {
    let Some(place) = place() else { return };
    querier(&place);
    let service = ["--namespace=default", "service", "kubernetes"];
    let address = place.cluster.kubectl().value(&service, ".spec.clusterIP");
    for name in [
        "kubernetes.default.svc.cluster.local",
        "kubernetes.default.svc",
        "kubernetes.default",
    ] {
        resolves(&place, name, &address);
    }
    let full = "kubernetes.default.svc.cluster.local";
    finds(&place, "querier", "a", full, &[&address]);
}

/// Must: a Pod finds itself by its name and its full name in /etc/hosts.
#[test]
fn dns_should_provide_etc_hosts_entries_for_the_cluster() {
    let Some(place) = place() else { return };
    let address = named(&place, "querier-1", "subdomain");
    let full = format!("querier-1.subdomain.{}.svc.cluster.local", place.namespace);
    let hosts = place.shell("querier", "cat /etc/hosts");
    let line = hosts.lines().find(|line| line.starts_with(&address));
    let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, [&address, &full, "querier-1"], "{hosts}");
}

/// Must: a Service without a selector's address is found by every Pod of its namespace as that of
/// each of its endpoints, by all its names and by the records of its ports; one with an address as
/// that, and the address leads back to the name.
#[test]
fn dns_should_provide_dns_for_services() {
    let Some(place) = place() else { return };
    serve(&place, "headless", "server", true);
    serve(&place, "normal", "server", false);
    place.script("server", IDLE);
    querier(&place);
    place.wait_ready(&["server"]);
    let server = place.address("server");
    let normal = place.value(&["service", "normal"], ".spec.clusterIP");
    let space = &place.namespace;
    for (service, address) in [("headless", &server), ("normal", &normal)] {
        for name in [
            service.to_owned(),
            format!("{service}.{space}"),
            format!("{service}.{space}.svc"),
            format!("{service}.{space}.svc.cluster.local"),
        ] {
            resolves(&place, &name, address);
        }
        let full = format!("{service}.{space}.svc.cluster.local");
        let port = format!("_http._tcp.{full}");
        finds(&place, "querier", "srv", &port, &[" 80 ", &full]);
        finds(&place, "querier", "ptr", address, &["name = ", &full]);
    }
}

/// Must: both kinds of Services are found by names without the cluster's domain, with addresses and
/// with the records of their ports.
#[test]
fn dns_should_resolve_dns_of_partial_qualified_names_for_services() {
    let Some(place) = place() else { return };
    serve(&place, "headless", "server", true);
    serve(&place, "normal", "server", false);
    place.script("server", IDLE);
    querier(&place);
    place.wait_ready(&["server"]);
    let server = place.address("server");
    let normal = place.value(&["service", "normal"], ".spec.clusterIP");
    let space = &place.namespace;
    for (service, address) in [("headless", &server), ("normal", &normal)] {
        for name in [
            service.to_owned(),
            format!("{service}.{space}"),
            format!("{service}.{space}.svc"),
        ] {
            resolves(&place, &name, address);
        }
        has_port(&place, &format!("{service}.{space}.svc"));
    }
}

/// Must: a Pod with a hostname and a subdomain finds its full name and its hostname as its address.
#[test]
fn dns_should_provide_dns_for_pods_for_hostname() {
    let Some(place) = place() else { return };
    let address = named(&place, "querier-2", "service-2");
    let full = format!("querier-2.service-2.{}.svc.cluster.local", place.namespace);
    finds(&place, "querier", "a", &full, &[&address]);
    let own = place.shell("querier", "hostname; hostname -f; hostname -i");
    let own: Vec<&str> = own.split_whitespace().collect();
    assert_eq!(own, ["querier-2", &full, &address]);
}

/// Must: such a Pod finds the name of its subdomain as well.
#[test]
fn dns_should_provide_dns_for_pods_for_subdomain() {
    let Some(place) = place() else { return };
    let address = named(&place, "querier-3", "service-3");
    let subdomain = format!("service-3.{}.svc.cluster.local", place.namespace);
    finds(&place, "querier", "a", &subdomain, &[&address]);
}

/// Must: an ExternalName is found as another name of that.
/// Must: when it is changed the new one is found.
/// Must: when the Service is changed to have an address that is found.
#[test]
fn dns_should_provide_dns_for_externalname_services() {
    let Some(place) = place() else { return };
    place.script("querier", IDLE);
    let external = |name: &str| json!({"type": "ExternalName", "externalName": name});
    place.make("Service", "external", &external("foo.example.com"));
    place.wait_ready(&["querier"]);
    let name = format!("external.{}.svc.cluster.local", place.namespace);
    finds(&place, "querier", "cname", &name, &["foo.example.com"]);
    place.make("Service", "external", &external("bar.example.com"));
    finds(&place, "querier", "cname", &name, &["bar.example.com"]);
    let spec = json!({
        "type": "ClusterIP", "externalName": null,
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    });
    let patch = json!({"spec": spec}).to_string();
    place.ok(&["patch", "service", "external", "-p", &patch]);
    let address = place.value(&["service", "external"], ".spec.clusterIP");
    finds(&place, "querier", "a", &name, &[&address]);
}

/// Must: a Pod with servers and domains of its own for names is made.
/// Must: the Pod has them.
#[test]
fn dns_should_support_configurable_pod_dns_nameservers() {
    let Some(place) = place() else { return };
    let mut spec = pod(IDLE);
    spec["dnsPolicy"] = json!("None");
    spec["dnsConfig"] = json!({"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"]});
    place.make("Pod", "configured", &spec);
    place.wait_ready(&["configured"]);
    let config = place.shell("configured", "cat /etc/resolv.conf");
    let lines: Vec<&str> = config.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["search resolv.conf.local", "nameserver 1.1.1.1"]);
}
