//! test/e2e/network/service.go: what Services lead to, from Pods with containers.

use serde_json::{Value, json};

use super::shared::{IDLE, Place, WEB, place, pod};
use crate::cluster::eventually;

/// Makes Pods that answer with their names, one for each name, and waits until they are ready.
#[track_caller]
fn serve(place: &Place, names: &[&str], app: &str) {
    for name in names {
        let mut spec = pod(WEB);
        spec["containers"][0]["readinessProbe"] =
            json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
        let metadata = json!({"name": name, "labels": {"app": app}});
        super::create(
            place,
            &json!({"kind": "Pod", "metadata": metadata, "spec": spec}),
        );
    }
    place.wait_ready(names);
}

fn spec(kind: &str, app: &str) -> Value {
    json!({
        "type": kind, "selector": {"app": app},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    })
}

fn client(place: &Place) {
    place.script("client", IDLE);
    place.wait_ready(&["client"]);
}

/// Waits until a client is answered at an authority by a Pod whose name begins so.
#[track_caller]
fn reaches(place: &Place, authority: &str, answer: &str) {
    let fetch = format!("wget -q -O - http://{authority}/");
    place.shell_until("client", &fetch, |said| said.starts_with(answer));
}

/// Waits until a client is refused.
#[track_caller]
fn is_refused(place: &Place, authority: &str) {
    let fetch = format!("wget -q -O - http://{authority}/");
    eventually("a refusal", || match place.try_shell("client", &fetch) {
        Err(error) if error.contains("refused") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[track_caller]
fn of_service(place: &Place, service: &str, path: &str) -> String {
    place.value(&["service", service], path)
}

#[track_caller]
fn cluster_ip(place: &Place, service: &str) -> String {
    of_service(place, service, ".spec.clusterIP")
}

/// Where the port of a Service is on the node.
#[track_caller]
fn on_node(place: &Place, service: &str) -> String {
    let nodes = place.cluster.kubectl();
    let address = r#".items[0].status.addresses[?(@.type=="InternalIP")].address"#;
    let address = nodes.value(&["nodes"], address);
    format!("{address}:{}", place.node_port(service))
}

#[track_caller]
fn patch(place: &Place, service: &str, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    place.ok(&["patch", "service", service, "-p", &patch]);
}

/// Must: a NodePort Service is reached by its name and its address, and on the node's addresses at
/// its port.
#[test]
fn services_should_be_able_to_create_a_functioning_nodeport_service() {
    let Some(place) = place() else { return };
    place.make("Service", "nodeport", &spec("NodePort", "web"));
    serve(&place, &["web-1", "web-2"], "web");
    client(&place);
    reaches(&place, "nodeport", "web-");
    reaches(&place, &cluster_ip(&place, "nodeport"), "web-");
    reaches(&place, &on_node(&place, "nodeport"), "web-");
}

/// A Service `target` with Pods behind it, and its full name.
fn target(place: &Place) -> String {
    place.make("Service", "target", &spec("ClusterIP", "web"));
    serve(place, &["web-1", "web-2"], "web");
    client(place);
    format!("target.{}.svc.cluster.local", place.namespace)
}

/// Changes a Service to one that is another name of the target, and finds it.
fn becomes_external(place: &Place, service: &str) {
    let external = json!({
        "type": "ExternalName", "externalName": target(place), "clusterIP": null,
        "clusterIPs": null, "selector": null, "ports": null,
    });
    patch(place, service, &external);
    assert_eq!(of_service(place, service, ".spec.type"), "ExternalName");
    assert_eq!(cluster_ip(place, service), "");
    let address = cluster_ip(place, "target");
    let name = format!("nslookup {service}.{}.svc.cluster.local", place.namespace);
    place.shell_until("client", &name, |found| found.contains(&address));
    reaches(place, service, "web-");
}

/// Must: a Service of type ClusterIP is made with an address.
/// Must: it is changed to an ExternalName.
/// Must: it has no address then.
/// Must: its name is found as the address of what it is another name of.
#[test]
fn services_should_be_able_to_change_the_type_from_clusterip_to_externalname() {
    let Some(place) = place() else { return };
    place.make("Service", "changed", &spec("ClusterIP", "web"));
    let address = cluster_ip(&place, "changed");
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address}");
    becomes_external(&place, "changed");
}

/// Must: a Service of type NodePort is made with a port on the nodes.
/// Must: it has an address.
/// Must: it is changed to an ExternalName.
/// Must: it has no address then.
/// Must: its port is given back: nobody answers there, and another Service may have it.
/// Must: its name is found as the address of what it is another name of.
#[test]
fn services_should_be_able_to_change_the_type_from_nodeport_to_externalname() {
    let Some(place) = place() else { return };
    place.make("Service", "changed", &spec("NodePort", "web"));
    let address = cluster_ip(&place, "changed");
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address}");
    let (authority, port) = (on_node(&place, "changed"), place.node_port("changed"));
    becomes_external(&place, "changed");
    assert_eq!(of_service(&place, "changed", ".spec.ports[*].nodePort"), "");
    is_refused(&place, &authority);
    let mut next = spec("NodePort", "web");
    next["ports"][0]["nodePort"] = json!(port);
    place.make("Service", "next", &next);
    reaches(&place, &authority, "web-");
}

/// An ExternalName, which has no address, becomes a Service of that type, which is reached.
fn becomes(place: &Place, kind: &str) {
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    place.make("Service", "changed", &external);
    assert_eq!(cluster_ip(place, "changed"), "");
    serve(place, &["web-1", "web-2"], "web");
    client(place);
    let mut to = spec(kind, "web");
    to["externalName"] = Value::Null;
    patch(place, "changed", &to);
    let address = cluster_ip(place, "changed");
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address}");
    reaches(place, "changed", "web-");
    reaches(place, &address, "web-");
}

/// Must: an ExternalName has no address.
/// Must: it is changed to a Service with an address.
/// Must: that is reached by its name and its address.
#[test]
fn services_should_be_able_to_change_the_type_from_externalname_to_clusterip() {
    let Some(place) = place() else { return };
    becomes(&place, "ClusterIP");
}

/// Must: an ExternalName has no address.
/// Must: it is changed to a Service with a port on the nodes.
/// Must: that has an address.
/// Must: it is reached by its name and its address.
/// Must: it is reached on the node, at its port there.
#[test]
fn services_should_be_able_to_change_the_type_from_externalname_to_nodeport() {
    let Some(place) = place() else { return };
    becomes(&place, "NodePort");
    reaches(&place, &on_node(&place, "changed"), "web-");
}

/// Which of the Pods answer a client that calls often.
fn answering(place: &Place, authority: &str) -> Vec<String> {
    let calls = format!(
        "for call in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do wget -q -O - http://{authority}/ || exit 1; done"
    );
    let said = eventually("answers", || place.try_shell("client", &calls));
    let mut names: Vec<String> = said.lines().map(str::to_owned).collect();
    assert_eq!(names.len(), 16, "{said}");
    names.sort();
    names.dedup();
    names
}

/// Makes a Service whose clients stay with a Pod, and three Pods.
fn sticky(place: &Place, kind: &str) {
    let mut service = spec(kind, "web");
    service["sessionAffinity"] = json!("ClientIP");
    place.make("Service", "sticky", &service);
    let address = cluster_ip(place, "sticky");
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address}");
    serve(place, &["web-1", "web-2", "web-3"], "web");
    client(place);
    // All endpoints are known, before anybody is told where to stay.
    eventually("three endpoints", || {
        let of = "kubernetes.io/service-name=sticky";
        let path = ".items[*].endpoints[*].addresses[0]";
        let found = place.value(&["endpointslices", "-l", of], path);
        let all = found.split_whitespace().count() == 3;
        all.then_some(()).ok_or(found)
    });
    reaches(place, "sticky", "web-");
    reaches(place, &address, "web-");
}

/// Clients stay, are led anywhere once that is asked for, and stay again.
fn switches(place: &Place, authority: &str) {
    let affinity = |wanted: &str| patch(place, "sticky", &json!({"sessionAffinity": wanted}));
    let led_to = |what: &str, fits: fn(usize) -> bool| {
        eventually(what, || match answering(place, authority) {
            pods if fits(pods.len()) => Ok(()),
            pods => Err(format!("{pods:?}")),
        });
    };
    led_to("one Pod", |pods| pods == 1);
    affinity("None");
    led_to("several Pods", |pods| pods > 1);
    affinity("ClientIP");
    led_to("one Pod again", |pods| pods == 1);
}

/// Must: a Service with affinity is made with an address.
/// Must: all of a client's calls are answered by one Pod.
/// Must: the Service is reached by its name and its address.
#[test]
fn services_should_have_session_affinity_work_for_service_with_type_clusterip() {
    let Some(place) = place() else { return };
    sticky(&place, "ClusterIP");
    let pods = answering(&place, &cluster_ip(&place, "sticky"));
    assert_eq!(pods.len(), 1, "{pods:?}");
}

/// Must: a Service with affinity is made with an address, and a port on the nodes.
/// Must: all of a client's calls to the node's port are answered by one Pod.
/// Must: the Service is reached by its name and its address.
/// Must: it is reached on the node, at its port there.
#[test]
fn services_should_have_session_affinity_work_for_nodeport_service() {
    let Some(place) = place() else { return };
    sticky(&place, "NodePort");
    let authority = on_node(&place, "sticky");
    reaches(&place, &authority, "web-");
    let pods = answering(&place, &authority);
    assert_eq!(pods.len(), 1, "{pods:?}");
}

/// Must: a Service with affinity is made with an address.
/// Must: it is changed to have none.
/// Must: a client's calls are then answered by any Pod.
/// Must: once it has affinity again, they are answered by one.
/// Must: the Service is reached by its name and its address.
#[test]
fn services_should_be_able_to_switch_session_affinity_for_service_with_type_clusterip() {
    let Some(place) = place() else { return };
    sticky(&place, "ClusterIP");
    switches(&place, &cluster_ip(&place, "sticky"));
}

/// Must: a Service with affinity is made with an address, and a port on the nodes.
/// Must: it is changed to have none.
/// Must: a client's calls to the node's port are then answered by any Pod.
/// Must: once it has affinity again, they are answered by one.
/// Must: the Service is reached by its name and its address.
/// Must: it is reached on the node, at its port there.
#[test]
fn services_should_be_able_to_switch_session_affinity_for_nodeport_service() {
    let Some(place) = place() else { return };
    sticky(&place, "NodePort");
    switches(&place, &on_node(&place, "sticky"));
}
