//! Certificates of authorities in a Pod's projected volumes (`clusterTrustBundle`, KEP-3257): of one
//! bundle by its name, or of all of a signer that a selector chooses, each once.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::selector::{Selector, format_label_selector};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, Pod};
use kube::api::{Api, ListParams};

use crate::pod;

/// Which bundles a volume wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TrustKey {
    Name(String),
    Signer {
        name: String,
        /// As text.
        selector: String,
        /// Without a selector nothing is chosen.
        selects: bool,
    },
}

impl TrustKey {
    pub(crate) fn of(wanted: &ClusterTrustBundleProjection) -> Self {
        match &wanted.name {
            Some(name) => Self::Name(name.clone()),
            None => Self::Signer {
                name: wanted.signer_name.clone().unwrap_or_default(),
                selector: format_label_selector(wanted.label_selector.as_ref()),
                selects: wanted.label_selector.is_some(),
            },
        }
    }
}

/// The certificates in PEM; none where there is no such bundle.
pub(crate) type Trust = BTreeMap<TrustKey, Option<String>>;

/// Reads what the Pod's volumes want.
pub(crate) async fn fetch(client: &kube::Client, pod: &Pod) -> Result<Trust, String> {
    let bundles: Api<ClusterTrustBundle> = Api::all(client.clone());
    let mut trust = Trust::new();
    let volumes = pod::spec(pod).volumes.iter().flatten();
    let parts = volumes.flat_map(|volume| {
        let projected = volume.projected.iter();
        projected.flat_map(|projected| projected.sources.iter().flatten())
    });
    let wanted: Vec<_> = parts
        .filter_map(|part| part.cluster_trust_bundle.as_ref())
        .collect();
    for wanted in wanted {
        let key = TrustKey::of(wanted);
        if trust.contains_key(&key) {
            continue;
        }
        let found = find(&bundles, wanted).await;
        let found = found.map_err(|error| format!("cannot read ClusterTrustBundles: {error}"))?;
        let found = (!found.is_empty()).then(|| anchors(&found));
        trust.insert(key, found);
    }
    Ok(trust)
}

async fn find(
    bundles: &Api<ClusterTrustBundle>,
    wanted: &ClusterTrustBundleProjection,
) -> Result<Vec<ClusterTrustBundle>, String> {
    let failed = |error: kube::Error| error.to_string();
    if let Some(name) = &wanted.name {
        let found = bundles.get_opt(name).await.map_err(failed)?;
        return Ok(found.into_iter().collect());
    }
    let selector = Selector::from_optional(wanted.label_selector.as_ref());
    let selector = selector.map_err(|error| error.to_string())?;
    let signer = wanted.signer_name.as_deref().unwrap_or_default();
    let params = ListParams::default().fields(&format!("spec.signerName={signer}"));
    let mut found = bundles.list(&params).await.map_err(failed)?.items;
    found.retain(|bundle| {
        bundle.spec.signer_name.as_deref() == Some(signer)
            && selector.matches_optional(bundle.metadata.labels.as_ref())
    });
    Ok(found)
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Characters in a line of PEM.
const LINE: usize = 64;

/// All certificates of bundles, each once, in the order of their bytes; what stands between them is left
/// out.
fn anchors(bundles: &[ClusterTrustBundle]) -> String {
    let mut found = BTreeSet::new();
    for bundle in bundles {
        for part in bundle.spec.trust_bundle.split(BEGIN).skip(1) {
            let Some((certificate, _)) = part.split_once(END) else {
                continue;
            };
            let certificate = certificate.split_whitespace().collect::<String>();
            found.insert(certificate);
        }
    }
    let mut text = String::new();
    for certificate in found {
        text.push_str(BEGIN);
        for line in certificate.as_bytes().chunks(LINE) {
            text.push('\n');
            text.push_str(&String::from_utf8_lossy(line));
        }
        text.push('\n');
        text.push_str(END);
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn certificates_are_there_once() {
        let long = "A".repeat(65);
        let bundle = |certificates: &[&str]| -> ClusterTrustBundle {
            let text: String = certificates
                .iter()
                .map(|of| format!("# who\n{BEGIN}\n{of}\n{END}\n"))
                .collect();
            let spec = json!({"trustBundle": text});
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
        };
        let bundles = [bundle(&["BBBB", &long]), bundle(&["BB\nBB"])];
        let first = "A".repeat(64);
        let expected = format!("{BEGIN}\n{first}\nA\n{END}\n{BEGIN}\nBBBB\n{END}\n");
        assert_eq!(anchors(&bundles), expected);
    }

    #[test]
    fn selectors_tell_bundles_of_a_signer_apart() {
        let key = |of: serde_json::Value| {
            let mut wanted = of;
            wanted["path"] = json!("p");
            TrustKey::of(&serde_json::from_value(wanted).unwrap())
        };
        let labels = json!({"matchLabels": {"a": "b"}});
        let keys = BTreeSet::from([
            key(json!({"name": "x"})),
            key(json!({"signerName": "x"})),
            key(json!({"signerName": "x", "labelSelector": {}})),
            key(json!({"signerName": "x", "labelSelector": labels})),
        ]);
        assert_eq!(keys.len(), 4);
    }
}
