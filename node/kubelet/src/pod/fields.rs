//! The downward API: fields of the Pod and resources of its containers, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::whole_limits;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::{name, namespace, own_container, spec, uid};

/// What surrounds a Pod on its node and is not in its spec.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) node_name: String,
    pub(crate) host_ips: Vec<IpAddr>,
    pub(crate) pod_ips: Vec<IpAddr>,
    /// Limits that a container without its own is told: what the node can allocate.
    pub(crate) allocatable: BTreeMap<String, Quantity>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    UnknownField(String),
    #[error("container {0} not found")]
    UnknownContainer(String),
    #[error("unsupported container resource : {0}")]
    UnknownResource(String),
    #[error("quantity {0} cannot be read")]
    BadQuantity(String),
}

/// The value of a `fieldRef`.
pub(crate) fn field(pod: &Pod, around: &Surroundings, path: &str) -> Result<String, FieldError> {
    if let Some((map, key)) = subscript(path) {
        let found = match map {
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            "metadata.labels" => pod.metadata.labels.as_ref(),
            _ => return Err(FieldError::UnknownField(path.to_owned())),
        };
        let value = found.and_then(|entries| entries.get(key));
        return Ok(value.cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => name(pod).to_owned(),
        "metadata.namespace" => namespace(pod).to_owned(),
        "metadata.uid" => uid(pod).to_owned(),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "spec.nodeName" => around.node_name.clone(),
        "spec.serviceAccountName" => spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&around.host_ips),
        "status.hostIPs" => all(&around.host_ips),
        "status.podIP" => first(&around.pod_ips),
        "status.podIPs" => all(&around.pod_ips),
        _ => return Err(FieldError::UnknownField(path.to_owned())),
    })
}

/// The value of a `resourceFieldRef`, for the container that it names or else for `own`.
pub(crate) fn resource(
    pod: &Pod,
    around: &Surroundings,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let of = match named {
        Some(wanted) => own_container(pod, wanted).map(|(container, _)| container),
        None => own,
    };
    let unknown = || FieldError::UnknownContainer(named.unwrap_or_default().to_owned());
    let resources = of.ok_or_else(unknown)?.resources.as_ref();
    let unsupported = || FieldError::UnknownResource(selector.resource.clone());
    let (kind, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let huge = resource.starts_with("hugepages-");
    if !matches!(resource, "cpu" | "memory" | "ephemeral-storage") && !huge {
        return Err(unsupported());
    }
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limit = limits.and_then(|l| l.get(resource));
    let value = match kind {
        "limits" => limit,
        "requests" => requests.and_then(|r| r.get(resource)).or(limit),
        _ => return Err(unsupported()),
    };
    let own = value.map_or(Ok(Quantity::default()), |value| parse(&value.0))?;
    let value = match own.is_zero() && kind == "limits" && !huge {
        // No limit, as which zero counts: it may have what its Pod may as a whole, or else what the
        // node has; of huge pages there is never more than was asked for.
        true => {
            let whole = whole_limits(spec(pod));
            let most = whole.get(resource).or(around.allocatable.get(resource));
            most.copied().unwrap_or_default()
        }
        false => own,
    };
    let divisor = match &selector.divisor {
        Some(divisor) => parse(&divisor.0)?,
        None => Quantity::default(),
    };
    Ok(divide(resource == "cpu", &value, &divisor).to_string())
}

/// Rounded up, as the API reference says; a divisor of zero or none is one.
fn divide(cpu: bool, value: &Quantity, divisor: &Quantity) -> i64 {
    let (value, divisor) = match cpu {
        true if divisor.is_zero() => (value.milli_value(), 1000),
        true => (value.milli_value(), divisor.milli_value()),
        false if divisor.is_zero() => (value.value(), 1),
        false => (value.value(), divisor.value()),
    };
    let divisor = divisor.max(1);
    value.checked_add(divisor - 1).unwrap_or(i64::MAX) / divisor
}

fn parse(text: &str) -> Result<Quantity, FieldError> {
    let bad = |_| FieldError::BadQuantity(text.to_owned());
    text.parse().map_err(bad)
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="escaped value"` by key, one on a line, as the volume of the downward API has it.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !text.is_empty() {
            text.push('\n');
        }
        // A String cannot fail to be written to.
        let _ = write!(text, "{key}={}", quoted(value));
    }
    text
}

/// As a string is written in Go: what cannot be seen is escaped.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        let escaped = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{b}' => "\\v",
            _ => {
                // A String cannot fail to be written to.
                let _ = match u32::from(c) {
                    _ if is_seen(c) => write!(text, "{c}"),
                    code @ (0..0x20 | 0x7f) => write!(text, "\\x{code:02x}"),
                    code @ 0..0x1_0000 => write!(text, "\\u{code:04x}"),
                    code => write!(text, "\\U{code:08x}"),
                };
                continue;
            }
        };
        text.push_str(escaped);
    }
    text.push('"');
    text
}

/// Whether a character is one that can be seen, or the space. Rust tells them apart by the same
/// categories of Unicode; a mark it shows behind a letter.
fn is_seen(c: char) -> bool {
    let shown = || String::from_iter(['a', c]).escape_debug().count() == 2;
    matches!(c, ' '..='~') || shown()
}

fn first(ips: &[IpAddr]) -> String {
    ips.first().map(ToString::to_string).unwrap_or_default()
}

fn all(ips: &[IpAddr]) -> String {
    let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
    ips.join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "ns", "uid": "u",
                "labels": {"app": "web", "b/c": "d"},
                "annotations": {"note": "say \"hi\"\nthere"},
            },
            "spec": {
                "serviceAccountName": "sa",
                "containers": [{
                    "name": "main",
                    "resources": {
                        "limits": {"cpu": "1500m", "memory": "64Mi"},
                        "requests": {"cpu": "250m"},
                    },
                }, {"name": "bare"}, {"name": "zero", "resources": {"limits": {"cpu": "0"}}}],
            },
        }))
        .unwrap()
    }

    fn around() -> Surroundings {
        Surroundings {
            node_name: "n1".to_owned(),
            host_ips: vec!["192.0.2.1".parse().unwrap()],
            pod_ips: vec!["10.42.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            allocatable: BTreeMap::from([
                ("cpu".to_owned(), "4".parse().unwrap()),
                ("hugepages-2Mi".to_owned(), "64Mi".parse().unwrap()),
            ]),
        }
    }

    #[test]
    fn fields_of_the_pod() {
        let table = [
            ("metadata.name", Some("p")),
            ("metadata.namespace", Some("ns")),
            ("metadata.uid", Some("u")),
            ("metadata.labels", Some("app=\"web\"\nb/c=\"d\"")),
            ("metadata.labels['app']", Some("web")),
            ("metadata.labels['none']", Some("")),
            (
                "metadata.annotations",
                Some("note=\"say \\\"hi\\\"\\nthere\""),
            ),
            ("spec.nodeName", Some("n1")),
            ("spec.serviceAccountName", Some("sa")),
            ("status.hostIP", Some("192.0.2.1")),
            ("status.podIP", Some("10.42.0.7")),
            ("status.podIPs", Some("10.42.0.7,fd00::7")),
            ("spec.containers", None),
            ("spec['a']", None),
        ];
        for (path, expected) in table {
            let got = field(&pod(), &around(), path).ok();
            assert_eq!(got.as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn values_are_written_as_go_writes_them() {
        for (value, expected) in [
            ("a \"b\" \\c", r#""a \"b\" \\c""#),
            ("ü€😀e\u{301}", "\"ü€😀e\u{301}\""),
            ("\u{7}\u{8}\t\n\u{b}\u{c}\r", r#""\a\b\t\n\v\f\r""#),
            ("\0\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            (
                "\u{85}\u{a0}\u{feff}\u{2028}",
                r#""\u0085\u00a0\ufeff\u2028""#,
            ),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quoted(value), expected);
        }
    }

    #[test]
    fn resources_of_containers() {
        let table = [
            ("main", "limits.cpu", None, Some("2")),
            ("main", "limits.cpu", Some("1m"), Some("1500")),
            ("main", "requests.cpu", Some("1m"), Some("250")),
            ("main", "limits.memory", None, Some("67108864")),
            ("main", "limits.memory", Some("1Mi"), Some("64")),
            ("main", "requests.memory", Some("1Mi"), Some("64")),
            ("bare", "limits.cpu", None, Some("4")),
            ("zero", "limits.cpu", None, Some("4")),
            ("zero", "requests.cpu", None, Some("0")),
            ("bare", "limits.hugepages-2Mi", None, Some("0")),
            ("bare", "requests.cpu", None, Some("0")),
            ("none", "limits.cpu", None, None),
            ("main", "limits.gpus", None, None),
            ("main", "cpu", None, None),
        ];
        for (container, resource_name, divisor, expected) in table {
            let selector: ResourceFieldSelector = serde_json::from_value(json!({
                "containerName": container, "resource": resource_name, "divisor": divisor,
            }))
            .unwrap();
            let got = resource(&pod(), &around(), None, &selector).ok();
            assert_eq!(got.as_deref(), expected, "{container} {resource_name}");
        }
        let mut limited = pod();
        let whole = json!({"limits": {"cpu": "3"}});
        limited.spec.as_mut().unwrap().resources = serde_json::from_value(whole).unwrap();
        let selector = json!({"containerName": "bare", "resource": "limits.cpu"});
        let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
        let got = resource(&limited, &around(), None, &selector);
        assert_eq!(got.as_deref(), Ok("3"), "what the Pod may as a whole");
    }
}
