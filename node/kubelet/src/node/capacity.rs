//! What the machine has.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{HUGE_PAGES, ResourceList};
use coracle_runtime::huge_pages;
use k8s_openapi::api::core::v1::NodeSystemInfo;

use super::machine;

/// Reads the machine.
pub struct Capacity;

impl Capacity {
    /// Processors, memory, huge pages, disk space below `root`, and `max_pods` Pods. Huge pages that
    /// are reserved later are not seen, as by the kubelet.
    pub fn detect(root: &Path, max_pods: usize) -> BTreeMap<String, Quantity> {
        let mut capacity = BTreeMap::new();
        let mut put = |name: &str, text: String| {
            if let Ok(quantity) = text.parse() {
                capacity.insert(name.to_owned(), quantity);
            }
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        put("cpu", cpus.to_string());
        put("pods", max_pods.to_string());
        if let Some(memory) = machine::memory() {
            put("memory", format!("{}Ki", memory.total >> 10));
        }
        if let Some(disk) = machine::disk(root) {
            put("ephemeral-storage", format!("{}Ki", disk.capacity >> 10));
        }
        let reserved = huge_pages::reserved(Path::new(huge_pages::FOLDER));
        capacity.extend(of_huge_pages(&reserved));
        capacity
    }
}

/// Resources of huge pages, of which so many are reserved, by their sizes in bytes. A size without
/// pages is there too.
fn of_huge_pages(reserved: &BTreeMap<u64, u64>) -> ResourceList {
    let bytes = |bytes: u64| Quantity::from_bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
    let of = |(size, pages): (&u64, &u64)| {
        let name = format!("{HUGE_PAGES}{}", bytes(*size));
        (name, bytes(size.saturating_mul(*pages)))
    };
    reserved.iter().map(of).collect()
}

/// `status.nodeInfo`; the runtime's version is its name and engine's version.
pub(crate) fn system_info(runtime: &str, version: &str) -> NodeSystemInfo {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().to_owned()
    };
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    let release = read("/etc/os-release");
    let pretty = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime.to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: version.to_owned(),
        system_uuid: if uuid.is_empty() {
            machine_id.clone()
        } else {
            uuid
        },
        machine_id,
        operating_system: "linux".to_owned(),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        running_in_user_namespace: None,
        swap: None,
    }
}

/// The architecture in Go's words, which labels and images use.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_a_resource_for_each_size() {
        let reserved = BTreeMap::from([(64 << 10, 3), (2 << 20, 512), (1 << 30, 0)]);
        let found = of_huge_pages(&reserved);
        let found: Vec<String> = found
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect();
        let expected = [
            "hugepages-1Gi=0",
            "hugepages-2Mi=1Gi",
            "hugepages-64Ki=192Ki",
        ];
        assert_eq!(found, expected);
    }
}
