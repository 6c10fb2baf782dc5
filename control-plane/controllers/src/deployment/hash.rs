//! The `pod-template-hash`: a short name for a Pod template.
//!
//! Its value needs to be stable for this program alone; clients only compare it. The alphabet
//! is the one that Kubernetes uses, without vowels, so that no hash spells a word.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of `template`; another one after each collision.
pub(super) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut hasher = Sha256::new();
    // A template is plain data: that it cannot be written as JSON does not happen, and then
    // equal names would be found out as a collision.
    hasher.update(serde_json::to_vec(template).unwrap_or_default());
    if collisions > 0 {
        hasher.update(collisions.to_le_bytes());
    }
    let digest = hasher.finalize();
    let letters = digest
        .iter()
        .take(10)
        .map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    letters.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_and_different_after_a_collision() {
        let template = PodTemplateSpec::default();
        assert_eq!(hash(&template, 0), hash(&template, 0));
        assert_ne!(hash(&template, 0), hash(&template, 1));
        assert_eq!(hash(&template, 0).len(), 10);
    }
}
