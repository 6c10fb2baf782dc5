//! Which resources the API server serves, as namespaces and the garbage collector need to know.

use kube::Client;
use kube::core::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::discovery::Discovery;

use crate::error::Error;

/// One served resource.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

impl Served {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The resource as messages name it: `deployments.apps`.
    pub(crate) fn name(&self) -> String {
        resource_name(&self.resource)
    }
}

/// A resource as messages and quotas name it: `deployments.apps`.
pub(crate) fn resource_name(resource: &ApiResource) -> String {
    let ApiResource { plural, group, .. } = resource;
    if group.is_empty() {
        plural.clone()
    } else {
        format!("{plural}.{group}")
    }
}

/// Every resource once, in its most stable version.
pub(crate) async fn served(client: &Client) -> Result<Vec<Served>, Error> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await;
    let discovery = discovery.map_err(Error::api("discover the served resources"))?;
    let resources = discovery
        .groups()
        .flat_map(|group| group.resources_by_stability());
    let served = |(resource, capabilities): (ApiResource, ApiCapabilities)| Served {
        resource,
        namespaced: capabilities.scope == Scope::Namespaced,
        verbs: capabilities.operations,
    };
    Ok(resources.map(served).collect())
}
