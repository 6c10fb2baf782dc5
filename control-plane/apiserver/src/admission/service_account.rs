//! ServiceAccount: every Pod runs as one, and takes its image pull secrets.
//!
//! Deliberately absent: the volume with a token, until tokens are issued. A namespace's
//! `default` account need not exist yet: nothing but that volume would depend on it.

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::ServiceAccount as Account;

use super::{Admission, Review, pod};
use crate::registry::Registry;
use crate::registry::erased::Object;

const DEFAULT: &str = "default";

pub(super) struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if !review.creates_pod() {
            return Ok(());
        }
        let Some(pod) = pod(object) else {
            return Ok(());
        };
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let Some(spec) = pod.spec.as_mut() else {
            return Ok(());
        };
        let given = spec
            .service_account_name
            .take()
            .or_else(|| spec.service_account.take());
        let name = given
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| DEFAULT.to_owned());
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name.clone());
        match registry.find::<Account>(review.namespace, &name).await? {
            Some(account) => {
                let secrets = spec.image_pull_secrets.get_or_insert_default();
                if secrets.is_empty() {
                    secrets.extend(account.image_pull_secrets.unwrap_or_default());
                }
                if secrets.is_empty() {
                    spec.image_pull_secrets = None;
                }
                Ok(())
            }
            None if name == DEFAULT => Ok(()),
            None => {
                let cause = format!(
                    "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                    review.namespace
                );
                Err(review.forbidden(&pod_name, cause))
            }
        }
    }
}
