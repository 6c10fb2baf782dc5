//! What the API does for volumes and claims by itself: the default class of claims, finalizers
//! that keep what is used, the time at which a volume's phase changed, and which claims may grow.

use async_trait::async_trait;
use coracle_apimachinery::meta::add_finalizer;
use coracle_apimachinery::resources::parse;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Admission, Operation, Review};
use crate::registry::erased::Object;
use crate::registry::kinds::storage_class::is_default;
use crate::registry::{Registry, meta};
use crate::validation::text;

/// Where the class of a claim stood before it had a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Claims that name no class are of the default one.
pub(super) struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(claim) = created::<PersistentVolumeClaim>(review, object) else {
            return Ok(());
        };
        let annotations = claim.metadata.annotations.as_ref();
        let annotated = annotations.is_some_and(|all| all.contains_key(CLASS_ANNOTATION));
        let spec = claim.spec.get_or_insert_default();
        if annotated || spec.storage_class_name.is_some() {
            return Ok(());
        }
        let classes = registry.find_all::<StorageClass>("").await?;
        let newest = classes.into_iter().filter(is_default).max_by(|a, b| {
            let (a, b) = (&a.metadata, &b.metadata);
            let time = |meta: &ObjectMeta| meta.creation_timestamp.as_ref().map(|time| time.0);
            // Of two of the same age the first by name counts.
            time(a).cmp(&time(b)).then_with(|| b.name.cmp(&a.name))
        });
        spec.storage_class_name = newest.and_then(|class| class.metadata.name);
        Ok(())
    }
}

/// What is used is not removed: its controller takes the finalizer away once nobody uses it.
pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    async fn admit(
        &self,
        _registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.subresource.is_empty() {
            return Ok(());
        }
        if let Some(object) = object {
            let finalizer = protection(object);
            if let Some(finalizer) = finalizer {
                add_finalizer(object.meta_mut(), finalizer);
            }
        }
        Ok(())
    }
}

fn protection(object: &dyn Object) -> Option<&'static str> {
    let any = object.as_any();
    if any.is::<PersistentVolumeClaim>() {
        Some("kubernetes.io/pvc-protection")
    } else if any.is::<PersistentVolume>() {
        Some("kubernetes.io/pv-protection")
    } else if any.is::<VolumeAttributesClass>() {
        Some("kubernetes.io/vac-protection")
    } else {
        None
    }
}

/// A volume says since when it has been in its phase.
pub(super) struct VolumePhase;

#[async_trait]
impl Admission for VolumePhase {
    async fn admit(
        &self,
        _registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if review.operation != Operation::Update || review.subresource != "status" {
            return Ok(());
        }
        let new = object.and_then(|object| object.as_any_mut().downcast_mut::<PersistentVolume>());
        let old = old.and_then(|old| old.as_any().downcast_ref::<PersistentVolume>());
        if let (Some(new), Some(old)) = (new, old) {
            let was = old.status.clone().unwrap_or_default();
            let status = new.status.get_or_insert_default();
            if status.phase != was.phase
                && status.last_phase_transition_time == was.last_phase_transition_time
            {
                status.last_phase_transition_time = Some(meta::now());
            }
        }
        Ok(())
    }
}

/// A claim grows only where its class says that volumes can.
pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    async fn validate(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        fn claim(object: Option<&dyn Object>) -> Option<&PersistentVolumeClaim> {
            object?.as_any().downcast_ref()
        }
        let (Some(new), Some(old)) = (claim(object), claim(old)) else {
            return Ok(());
        };
        let size = |claim: &PersistentVolumeClaim| {
            let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
            let requests = resources.and_then(|resources| resources.requests.as_ref());
            parse(requests).get("storage").copied()
        };
        if !review.subresource.is_empty() || size(new) <= size(old) {
            return Ok(());
        }
        let name = text(&old.metadata.name);
        let phase = old.status.as_ref().map_or("", |s| text(&s.phase));
        if phase != "Bound" {
            let cause = "Only bound persistent volume claims can be expanded";
            return Err(review.forbidden(name, cause));
        }
        let class = old
            .spec
            .as_ref()
            .map_or("", |s| text(&s.storage_class_name));
        let grows = registry
            .find::<StorageClass>("", class)
            .await?
            .is_some_and(|class| class.allow_volume_expansion == Some(true));
        if grows {
            return Ok(());
        }
        let cause = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(review.forbidden(name, cause))
    }
}

/// The object of this type that is being created.
fn created<'a, T: 'static>(
    review: &Review<'_>,
    object: Option<&'a mut dyn Object>,
) -> Option<&'a mut T> {
    let creates = review.operation == Operation::Create && review.subresource.is_empty();
    object
        .filter(|_| creates)
        .and_then(|object| object.as_any_mut().downcast_mut())
}
