//! The hash that tells the revisions of a template apart: the label `pod-template-hash`.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::names;

/// A short string that is equal for equal templates and safe in names. `collision_count` is the
/// Deployment's: it makes another hash where two templates were unlucky.
///
/// Kubernetes hashes its own in-memory form, so the values differ from its; nothing may rely on
/// them but on their being equal.
pub fn pod_template(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    // Fields in a fixed order and sorted maps: equal templates have equal JSON.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let hash = fnv1a(&json, FNV_OFFSET);
    let hash = collision_count.map_or(hash, |count| fnv1a(&count.to_le_bytes(), hash));
    names::safe_encode(&hash.to_string())
}

const FNV_OFFSET: u32 = 0x811c_9dc5;

fn fnv1a(bytes: &[u8], hash: u32) -> u32 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, PodSpec};

    use super::*;

    #[test]
    fn equal_templates_have_equal_hashes() {
        let template = |image: &str| PodTemplateSpec {
            spec: Some(PodSpec {
                containers: vec![Container {
                    image: Some(image.into()),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let hash = pod_template(&template("a"), None);
        assert_eq!(hash, pod_template(&template("a"), None));
        assert_ne!(hash, pod_template(&template("b"), None));
        assert_ne!(hash, pod_template(&template("a"), Some(1)));
        assert!(names::label_value(&hash).is_empty() && !hash.is_empty());
        // A published vector of FNV-1a.
        assert_eq!(fnv1a(b"foobar", FNV_OFFSET), 0xbf9c_f968);
    }
}
