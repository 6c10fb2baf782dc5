//! What is odd about containers: variables that hide others, ports that come twice, parts of bytes.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::Path;
use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{COMPARED, is_enough};
use crate::validation::{items, text};

/// Ports that other containers of the Pod have.
#[derive(Default)]
pub(super) struct Ports<'a> {
    seen: Vec<(&'a ContainerPort, Path)>,
    names: BTreeMap<&'a str, Path>,
    /// About names: they come after all others.
    pub(super) about_names: Vec<String>,
}

pub(super) fn warnings_of_variables(variables: &[EnvVar], at: &Path, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, variable) in variables.iter().enumerate() {
        // A variable may be built up from its own former value.
        let (own, value) = (format!("$({})", variable.name), text(&variable.value));
        let builds = variable.value_from.is_none() && value != own && value.contains(&own);
        let is_new = seen.insert(variable.name.as_str());
        if !builds && !is_new {
            let at = at.index(i);
            warnings.push(format!(
                "{at}: hides previous definition of {:?}, which may be dropped when using apply",
                variable.name
            ));
        }
    }
}

/// Where part of a byte is asked for.
pub(super) fn warnings_of_bytes(
    list: Option<&BTreeMap<String, ApiQuantity>>,
    counted: &[&str],
    at: &Path,
    warnings: &mut Vec<String>,
) {
    for (name, quantity) in list.into_iter().flatten() {
        let fractional = Quantity::try_from(quantity).is_ok_and(|q| q.milli_value() % 1000 != 0);
        if counted.contains(&name.as_str()) && fractional {
            let (at, value) = (at.key(name), &quantity.0);
            warnings.push(format!(
                "{at}: fractional byte value {value:?} is invalid, must be an integer"
            ));
        }
    }
}

impl<'a> Ports<'a> {
    pub(super) fn add(&mut self, container: &'a Container, at: &Path, warnings: &mut Vec<String>) {
        for (i, port) in items(&container.ports).iter().enumerate() {
            let at = at.child("ports").index(i);
            let (ip, number) = (text(&port.host_ip), port.host_port.unwrap_or(0));
            if !ip.is_empty() && number == 0 {
                warnings.push(format!(
                    "{at}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                    text(&port.name),
                    port.container_port,
                    text(&port.protocol),
                ));
            }
            let same = self.seen.iter().filter(|(other, _)| {
                other.container_port == port.container_port && other.protocol == port.protocol
            });
            for (other, first) in same {
                if is_enough(warnings) {
                    break;
                }
                let (other_ip, other_number) = (text(&other.host_ip), other.host_port.unwrap_or(0));
                let how = if ip == other_ip && number == other_number {
                    "duplicate"
                } else if number == 0 || other_number == 0 {
                    "overlapping"
                } else if number == other_number && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                warnings.push(format!("{at}: {how} port definition with {first}"));
            }
            let name = text(&port.name);
            if let Some(first) = self.names.get(name) {
                self.about_names.push(format!(
                    "{at}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                ));
            } else if !name.is_empty() {
                self.names.insert(name, at.clone());
            }
            if self.seen.len() < COMPARED {
                self.seen.push((port, at));
            }
        }
    }
}
