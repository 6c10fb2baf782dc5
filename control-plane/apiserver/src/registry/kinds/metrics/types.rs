//! The types of `metrics.k8s.io/v1beta1`, which are not among those of `k8s-openapi`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Resources by their names: `cpu`, `memory`.
pub(crate) type Usage = BTreeMap<String, Quantity>;

/// A kind: an object with a measure of its own between what all of them have.
macro_rules! kind {
    (
        $(#[$attribute:meta])*
        $kind:ident ($plural:literal, $scope:ty) { $measure:ident: $type:ty }
    ) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", default)]
        $(#[$attribute])*
        pub(crate) struct $kind {
            pub(crate) api_version: String,
            pub(crate) kind: String,
            pub(crate) metadata: ObjectMeta,
            /// The end of the window.
            pub(crate) timestamp: Time,
            /// The interval from which rates were taken, as Go writes durations.
            pub(crate) window: String,
            pub(crate) $measure: $type,
        }

        impl Default for $kind {
            fn default() -> Self {
                Self {
                    api_version: API_VERSION.to_owned(),
                    kind: Self::KIND.to_owned(),
                    metadata: ObjectMeta::default(),
                    timestamp: Time(Timestamp::UNIX_EPOCH),
                    window: "0s".to_owned(),
                    $measure: <$type>::default(),
                }
            }
        }

        impl Resource for $kind {
            const API_VERSION: &'static str = API_VERSION;
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = stringify!($kind);
            const VERSION: &'static str = VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl Metadata for $kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

kind! {
    /// What a node used.
    #[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics")]
    NodeMetrics("nodes", ClusterResourceScope) { usage: Usage }
}

kind! {
    /// What the containers of a Pod used.
    #[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics")]
    PodMetrics("pods", NamespaceResourceScope) { containers: Vec<ContainerMetrics> }
}

/// What one container used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics")]
pub(crate) struct ContainerMetrics {
    pub(crate) name: String,
    pub(crate) usage: Usage,
}

impl NodeMetrics {
    pub(super) fn usages(&self) -> impl Iterator<Item = &Usage> + Clone {
        std::iter::once(&self.usage)
    }
}

impl PodMetrics {
    pub(super) fn usages(&self) -> impl Iterator<Item = &Usage> + Clone {
        self.containers.iter().map(|container| &container.usage)
    }
}
