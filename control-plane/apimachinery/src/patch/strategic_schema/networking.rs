//! The kinds of networking.k8s.io.

use super::meta::{LABEL_SELECTOR, OBJECT_META};
use super::{Struct, atomic, map, nested};

pub(super) static HTTP_INGRESS_RULE_VALUE: Struct = Struct {
    name: "io.k8s.api.networking.v1.HTTPIngressRuleValue",
    fields: &[("paths", atomic())],
};

pub(super) static INGRESS_RULE: Struct = Struct {
    name: "io.k8s.api.networking.v1.IngressRule",
    fields: &[("http", nested(&HTTP_INGRESS_RULE_VALUE))],
};

pub(super) static INGRESS_TLS: Struct = Struct {
    name: "io.k8s.api.networking.v1.IngressTLS",
    fields: &[("hosts", atomic())],
};

pub(super) static INGRESS_SPEC: Struct = Struct {
    name: "io.k8s.api.networking.v1.IngressSpec",
    fields: &[
        ("rules", atomic().of(&INGRESS_RULE)),
        ("tls", atomic().of(&INGRESS_TLS)),
    ],
};

pub(super) static INGRESS_LOAD_BALANCER_INGRESS: Struct = Struct {
    name: "io.k8s.api.networking.v1.IngressLoadBalancerIngress",
    fields: &[("ports", atomic())],
};

pub(super) static INGRESS_LOAD_BALANCER_STATUS: Struct = Struct {
    name: "io.k8s.api.networking.v1.IngressLoadBalancerStatus",
    fields: &[("ingress", atomic().of(&INGRESS_LOAD_BALANCER_INGRESS))],
};

pub(super) static INGRESS_STATUS: Struct = Struct {
    name: "io.k8s.api.networking.v1.IngressStatus",
    fields: &[("loadBalancer", nested(&INGRESS_LOAD_BALANCER_STATUS))],
};

pub(super) static INGRESS: Struct = Struct {
    name: "io.k8s.api.networking.v1.Ingress",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&INGRESS_SPEC)),
        ("status", nested(&INGRESS_STATUS)),
    ],
};

pub(super) static INGRESS_CLASS: Struct = Struct {
    name: "io.k8s.api.networking.v1.IngressClass",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static IP_BLOCK: Struct = Struct {
    name: "io.k8s.api.networking.v1.IPBlock",
    fields: &[("except", atomic())],
};

pub(super) static NETWORK_POLICY_PEER: Struct = Struct {
    name: "io.k8s.api.networking.v1.NetworkPolicyPeer",
    fields: &[
        ("ipBlock", nested(&IP_BLOCK)),
        ("namespaceSelector", nested(&LABEL_SELECTOR)),
        ("podSelector", nested(&LABEL_SELECTOR)),
    ],
};

pub(super) static NETWORK_POLICY_EGRESS_RULE: Struct = Struct {
    name: "io.k8s.api.networking.v1.NetworkPolicyEgressRule",
    fields: &[
        ("ports", atomic()),
        ("to", atomic().of(&NETWORK_POLICY_PEER)),
    ],
};

pub(super) static NETWORK_POLICY_INGRESS_RULE: Struct = Struct {
    name: "io.k8s.api.networking.v1.NetworkPolicyIngressRule",
    fields: &[
        ("from", atomic().of(&NETWORK_POLICY_PEER)),
        ("ports", atomic()),
    ],
};

pub(super) static NETWORK_POLICY_SPEC: Struct = Struct {
    name: "io.k8s.api.networking.v1.NetworkPolicySpec",
    fields: &[
        ("egress", atomic().of(&NETWORK_POLICY_EGRESS_RULE)),
        ("ingress", atomic().of(&NETWORK_POLICY_INGRESS_RULE)),
        ("podSelector", nested(&LABEL_SELECTOR)),
        ("policyTypes", atomic()),
    ],
};

pub(super) static NETWORK_POLICY: Struct = Struct {
    name: "io.k8s.api.networking.v1.NetworkPolicy",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&NETWORK_POLICY_SPEC)),
    ],
};

pub(super) static SERVICE_CIDR_SPEC: Struct = Struct {
    name: "io.k8s.api.networking.v1.ServiceCIDRSpec",
    fields: &[("cidrs", atomic())],
};

pub(super) static SERVICE_CIDR_STATUS: Struct = Struct {
    name: "io.k8s.api.networking.v1.ServiceCIDRStatus",
    fields: &[("conditions", map(&["type"]))],
};

pub(super) static SERVICE_CIDR: Struct = Struct {
    name: "io.k8s.api.networking.v1.ServiceCIDR",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&SERVICE_CIDR_SPEC)),
        ("status", nested(&SERVICE_CIDR_STATUS)),
    ],
};

pub(super) static IP_ADDRESS: Struct = Struct {
    name: "io.k8s.api.networking.v1.IPAddress",
    fields: &[("metadata", nested(&OBJECT_META))],
};
