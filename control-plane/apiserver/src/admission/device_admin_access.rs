//! Access to devices that are in use, as administrators need it to look after them: only in
//! namespaces that are marked for it.

use async_trait::async_trait;
use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::resource::v1::{
    DeviceRequest, ResourceClaim, ResourceClaimSpec, ResourceClaimTemplate,
};

use super::{Admission, Review};
use crate::registry::Registry;
use crate::registry::erased::Object;
use crate::validation::{items, text};

/// The label that marks a namespace.
const LABEL: &str = "resource.kubernetes.io/admin-access";

pub(super) struct DeviceAdminAccess;

#[async_trait]
impl Admission for DeviceAdminAccess {
    async fn validate(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(object) = object else {
            return Ok(());
        };
        let Some(at) = wanted(object, old, review.subresource) else {
            return Ok(());
        };
        let namespace: Option<Namespace> = registry.find("", review.namespace).await?;
        let labels = namespace.and_then(|namespace| namespace.metadata.labels);
        if labels.is_some_and(|labels| labels.get(LABEL).is_some_and(|value| value == "true")) {
            return Ok(());
        }
        let detail = format!(
            "admin access to devices requires the `{LABEL}: true` label on the containing namespace"
        );
        let kind = review.kind.descriptor().group_kind();
        let name = text(&object.meta().name);
        Err(Status::invalid(
            &kind,
            name,
            vec![Error::forbidden(&at, detail)],
        ))
    }
}

/// Where an object asks for it that did not before.
fn wanted(object: &dyn Object, old: Option<&dyn Object>, subresource: &str) -> Option<Path> {
    let at = Path::new("spec");
    if let Some(template) = object.as_any().downcast_ref::<ResourceClaimTemplate>() {
        let claim = template.spec.as_ref().and_then(|spec| spec.spec.as_ref());
        return old.is_none().then(|| in_spec(claim, &at.child("spec")))?;
    }
    let claim = object.as_any().downcast_ref::<ResourceClaim>()?;
    if subresource == "status" {
        let before = old.and_then(|old| old.as_any().downcast_ref::<ResourceClaim>());
        return match before.and_then(in_status) {
            Some(_) => None,
            None => in_status(claim),
        };
    }
    // What is claimed does not change.
    old.is_none().then(|| in_spec(claim.spec.as_ref(), &at))?
}

fn in_spec(spec: Option<&ResourceClaimSpec>, at: &Path) -> Option<Path> {
    let claim = spec?.devices.as_ref()?;
    let at = at.child("devices").child("requests");
    let asks = |request: &DeviceRequest| {
        let exactly = request.exactly.as_ref();
        exactly.is_some_and(|exactly| exactly.admin_access == Some(true))
    };
    let first = items(&claim.requests).iter().position(asks)?;
    Some(at.index(first).child("adminAccess"))
}

fn in_status(claim: &ResourceClaim) -> Option<Path> {
    let allocation = claim.status.as_ref()?.allocation.as_ref()?;
    let results = items(&allocation.devices.as_ref()?.results);
    let first = results.iter().position(|r| r.admin_access == Some(true))?;
    let at = Path::new("status").child("allocation").child("devices");
    Some(at.child("results").index(first).child("adminAccess"))
}
