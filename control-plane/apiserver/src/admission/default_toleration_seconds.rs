//! DefaultTolerationSeconds: a Pod stays five minutes on a node that is not ready or not
//! reachable, unless it says otherwise.

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::Toleration;

use super::{Admission, Review, pod};
use crate::registry::Registry;
use crate::registry::erased::Object;

const KEYS: &[&str] = &[
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];
const NO_EXECUTE: &str = "NoExecute";
const SECONDS: i64 = 300;

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    async fn admit(
        &self,
        _registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        // An update may not take away what creation has added.
        if !review.writes_pod() {
            return Ok(());
        }
        if let Some(spec) = pod(object).and_then(|pod| pod.spec.as_mut()) {
            for key in KEYS {
                add(spec.tolerations.get_or_insert_default(), key);
            }
        }
        Ok(())
    }
}

fn add(tolerations: &mut Vec<Toleration>, key: &str) {
    let covered = tolerations.iter().any(|toleration| {
        let key_matches = toleration
            .key
            .as_deref()
            .is_none_or(|k| k.is_empty() || k == key);
        let effect = toleration.effect.as_deref().unwrap_or_default();
        key_matches && (effect.is_empty() || effect == NO_EXECUTE)
    });
    if !covered {
        tolerations.push(Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(NO_EXECUTE.to_owned()),
            toleration_seconds: Some(SECONDS),
            ..Toleration::default()
        });
    }
}
