//! Ports of the machine that lead to a Pod's.

use std::net::Ipv4Addr;

use coracle_apimachinery::host_ports::{self, HostPort as Asked};
use coracle_runtime::Protocol;
use k8s_openapi::api::core::v1::Pod;

use crate::pod_network::HostPort;

/// Those of a Pod that the network can give, or what it cannot. On the machine's own network a Pod's
/// ports are the machine's already.
pub(crate) fn host_ports(pod: &Pod) -> Result<Vec<HostPort>, String> {
    let spec = super::spec(pod);
    if spec.host_network == Some(true) {
        return Ok(Vec::new());
    }
    host_ports::of(spec).iter().map(host_port).collect()
}

fn host_port(asked: &Asked) -> Result<HostPort, String> {
    let Asked {
        address,
        protocol,
        port,
        container_port,
    } = asked;
    let is = |what: String| format!("hostPort {port} {what}");
    let number = |port: i32| u16::try_from(port).map_err(|_| is("is no port".to_owned()));
    Ok(HostPort {
        address: address
            .parse::<Ipv4Addr>()
            .map_err(|_| is(format!("of hostIP {address}, which is no IPv4 address,")))?,
        protocol: match protocol.as_str() {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            other => return Err(is(format!("of protocol {other}"))),
        },
        port: number(*port)?,
        pod_port: number(*container_port)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_had_is_named() {
        let asked = |more: serde_json::Value| {
            let mut port = json!({"containerPort": 80, "hostPort": 8080});
            port.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let spec = json!({"containers": [{"name": "c", "ports": [port]}]});
            let pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            host_ports(&pod)
        };
        let found = asked(json!({"hostIP": "127.0.0.1", "protocol": "UDP"})).unwrap();
        let expected = HostPort {
            address: Ipv4Addr::LOCALHOST,
            protocol: Protocol::Udp,
            port: 8080,
            pod_port: 80,
        };
        assert_eq!(found, [expected]);
        let all = asked(json!({})).unwrap();
        assert_eq!(all[0].address, Ipv4Addr::UNSPECIFIED);
        let error = asked(json!({"protocol": "SCTP"})).unwrap_err();
        assert_eq!(error, "hostPort 8080 of protocol SCTP");
        let error = asked(json!({"hostIP": "::1"})).unwrap_err();
        assert!(error.contains("hostIP ::1"), "{error}");
    }
}
