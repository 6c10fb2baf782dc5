//! ImageLocality: rather a node that has the images already, where they are big.

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{MAX_SCORE, Plugin, Score};

/// Below this, in bytes, a pull costs nothing worth counting.
const SMALL: i64 = 23 * 1024 * 1024;
/// Above this per container, in bytes, it costs no more.
const BIG: i64 = 1000 * 1024 * 1024;

pub(crate) struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
}

impl Score for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, nodes: &[&NodeInfo]) -> i64 {
        let spec = pod.pod.spec.as_ref();
        let init = spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten());
        let containers = spec.iter().flat_map(|spec| &spec.containers);
        let images: Vec<String> = init
            .chain(containers)
            .filter_map(|container| container.image.as_deref())
            .map(with_tag)
            .collect();
        let total = i64::try_from(nodes.len()).unwrap_or(1).max(1);
        // An image that few nodes have counts less, or these nodes would get every Pod of it.
        let present = images.iter().filter_map(|image| {
            let size = node.images.get(image)?;
            let having = nodes
                .iter()
                .filter(|node| node.images.contains_key(image))
                .count();
            Some(size * i64::try_from(having).unwrap_or(0) / total)
        });
        let count = i64::try_from(images.len()).unwrap_or(1).max(1);
        let most = BIG * count;
        let size = present.sum::<i64>().clamp(SMALL, most);
        MAX_SCORE * (size - SMALL) / (most - SMALL)
    }
}

/// The name as nodes report it: a tag is never left out.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, node_info, pod_info};
    use serde_json::json;

    #[test]
    fn big_images_that_are_there_count() {
        let having = |size: i64| {
            let image = json!({"names": ["r:5000/i:latest"], "sizeBytes": size});
            node_info(node("n", json!({"status": {"images": [image]}})), &[])
        };
        let (none, small, big) = (
            node_info(node("n", json!({})), &[]),
            having(1 << 20),
            having(BIG),
        );
        let image = json!({"spec": {"containers": [{"name": "c", "image": "r:5000/i"}]}});
        let pod = pod_info("p", image);
        assert_eq!(ImageLocality.score(&pod, &none, &[&none, &big]), 0);
        assert_eq!(ImageLocality.score(&pod, &small, &[&small]), 0);
        assert_eq!(ImageLocality.score(&pod, &big, &[&big]), 100);
        assert_eq!(ImageLocality.score(&pod, &big, &[&none, &big]), 48);
    }
}
