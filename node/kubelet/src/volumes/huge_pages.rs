//! Volumes of huge pages: `emptyDir` with `medium: HugePages` or `HugePages-2Mi`.
//!
//! A file system whose files are huge pages (KEP-1539). What bounds it is the Pod's control group, as
//! for pages that containers map by themselves; its files are mapped, and cannot be written otherwise.
//! There is no folder in its place where none can be mounted: whoever asks for it maps its files.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::Pod;

use super::memory;
use crate::pod;

/// The medium, which the size of its pages may follow.
const MEDIUM: &str = "HugePages";

/// Why it is not known which pages a volume is made of.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PageSizeError {
    #[error("medium: {0} can't be used if container requests multiple huge page sizes")]
    Several(String),
    #[error(
        "medium {0}: hugePages storage requested, but there is no resource request for huge pages"
    )]
    NotRequested(String),
}

/// The size of pages that a medium names; none if it is no medium of huge pages.
fn named(medium: &str) -> Option<Option<&str>> {
    match medium.strip_prefix(MEDIUM)? {
        "" => Some(None),
        size => size.strip_prefix('-').map(Some),
    }
}

/// Whether a medium is one of huge pages.
pub(super) fn is_medium(medium: &str) -> bool {
    named(medium).is_some()
}

/// The size of a volume's pages, in bytes: that which the medium names, or else the only one that the
/// Pod asks for.
pub(super) fn page_size(pod: &Pod, medium: &str) -> Result<u64, PageSizeError> {
    let spec = pod::spec(pod);
    let inits = spec.init_containers.iter().flatten();
    let containers = spec.containers.iter().chain(inits);
    let whole = spec.resources.as_ref();
    let whole = resources::parse(whole.and_then(|of| of.requests.as_ref()));
    let sizes = |list: ResourceList| resources::huge_pages(&list).into_keys();
    let asked = containers.map(resources::container_requests).chain([whole]);
    let asked: BTreeSet<u64> = asked.flat_map(sizes).collect();
    let not_requested = || PageSizeError::NotRequested(medium.to_owned());
    match named(medium).flatten() {
        Some(size) => {
            let size = size.parse::<Quantity>().map(|size| size.value());
            let size = size.ok().and_then(|size| u64::try_from(size).ok());
            let size = size.filter(|size| asked.contains(size));
            size.ok_or_else(not_requested)
        }
        None if asked.len() > 1 => Err(PageSizeError::Several(medium.to_owned())),
        None => asked.first().copied().ok_or_else(not_requested),
    }
}

/// Mounts a file system of such pages at a folder, unless that was done.
pub(super) fn set_up(folder: &Path, page_size: u64) -> io::Result<()> {
    if memory::is_mounted(folder)? {
        return Ok(());
    }
    let options = format!("mode=0777,pagesize={page_size}");
    memory::mount(folder, c"hugetlbfs", &options)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn pages_are_of_the_size_that_is_named_or_the_only_one() {
        let asking = |requests: Value| json!({"name": "c", "resources": {"requests": requests}});
        let both = asking(json!({"cpu": "1", "hugepages-2Mi": "2Mi", "hugepages-1Gi": "1Gi"}));
        let small = asking(json!({"memory": "1Gi", "hugepages-2Mi": "2Mi"}));
        let none = asking(json!({"memory": "1Gi"}));
        let not_requested = |medium: &str| Err(PageSizeError::NotRequested(medium.to_owned()));
        for (containers, inits, medium, expected) in [
            (json!([small]), json!([]), "HugePages", Ok(2 << 20)),
            (json!([none]), json!([small]), "HugePages", Ok(2 << 20)),
            (
                json!([both]),
                json!([]),
                "HugePages",
                Err(PageSizeError::Several("HugePages".into())),
            ),
            (json!([both]), json!([]), "HugePages-1Gi", Ok(1 << 30)),
            (json!([both]), json!([]), "HugePages-1024Mi", Ok(1 << 30)),
            (
                json!([small]),
                json!([]),
                "HugePages-1Gi",
                not_requested("HugePages-1Gi"),
            ),
            (
                json!([small]),
                json!([]),
                "HugePages-big",
                not_requested("HugePages-big"),
            ),
            (
                json!([none]),
                json!([]),
                "HugePages",
                not_requested("HugePages"),
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({
                "spec": {"containers": containers, "initContainers": inits},
            }))
            .unwrap();
            assert_eq!(page_size(&pod, medium), expected, "{medium} of {pod:?}");
        }
        let whole = json!({"spec": {
            "containers": [none],
            "resources": {"requests": {"cpu": "1", "hugepages-64Ki": "64Ki"}},
        }});
        let whole: Pod = serde_json::from_value(whole).unwrap();
        assert_eq!(page_size(&whole, "HugePages"), Ok(64 << 10));
    }

    #[test]
    fn media_have_their_names() {
        for (medium, is_one) in [
            ("HugePages", true),
            ("HugePages-2Mi", true),
            ("HugePages2Mi", false),
            ("Memory", false),
        ] {
            assert_eq!(is_medium(medium), is_one, "{medium}");
        }
    }
}
