//! PodCertificateRequest: a node asks a signer for a certificate of one of its Pods. Which Pods a
//! node may ask for, and that a certificate begins when it is issued, is for admission
//! (`admission/pod_certificate_request`).
//!
//! Deliberately absent: nodes that ask, whose volumes have no such certificates yet; and who may
//! sign, which belongs to the authorizer of roles.

#[cfg(test)]
mod tests;

use coracle_apimachinery::field::Path;
use k8s_openapi::api::certificates::v1::PodCertificateRequest;

use super::format_labels;
use crate::registry::meta::keep_metadata;
use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, Strategy, Subresource, resets_with_metadata,
};
use crate::validation::pod_certificate::{validate_answer, validate_request};
use crate::validation::{immutable, items};

const NODE_FIELD: &str = "spec.nodeName";
const POD_FIELD: &str = "spec.podName";
const SIGNER_FIELD: &str = "spec.signerName";
/// Seconds for which a certificate is wanted, where nothing is said.
const EXPIRATION: i32 = 24 * 60 * 60;

pub(super) struct PodCertificateRequestStrategy;

impl Strategy for PodCertificateRequestStrategy {
    type Object = PodCertificateRequest;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<PodCertificateRequest>()
            .subresources(&[Subresource::Status])
            .fields(&[NODE_FIELD, POD_FIELD, SIGNER_FIELD])
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut PodCertificateRequest) {
        let spec = &mut object.spec;
        spec.max_expiration_seconds.get_or_insert(EXPIRATION);
        object.status.get_or_insert_default();
    }

    fn prepare_for_create(&self, object: &mut PodCertificateRequest) {
        object.status = Some(Default::default());
    }

    fn validate(&self, object: &PodCertificateRequest) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_request(&object.spec, &mut errors);
        errors
    }

    fn prepare_for_update(&self, new: &mut PodCertificateRequest, old: &PodCertificateRequest) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(
        &self,
        new: &PodCertificateRequest,
        old: &PodCertificateRequest,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        immutable(&new.spec, &old.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_status_update(
        &self,
        new: &mut PodCertificateRequest,
        old: &PodCertificateRequest,
    ) {
        keep_metadata(&mut new.metadata, &old.metadata);
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(
        &self,
        new: &PodCertificateRequest,
        old: &PodCertificateRequest,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        let status = |of: &PodCertificateRequest| of.status.clone().unwrap_or_default();
        validate_answer(&status(new), &status(old), &old.spec, &mut errors);
        errors
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        resets_with_metadata(subresource)
    }

    fn selectable_fields(&self, object: &PodCertificateRequest) -> Vec<(&'static str, String)> {
        let spec = &object.spec;
        vec![
            (NODE_FIELD, spec.node_name.clone()),
            (POD_FIELD, spec.pod_name.clone()),
            (SIGNER_FIELD, spec.signer_name.clone()),
        ]
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("PodName", "The pod that is to have the certificate."),
            Column::text("ServiceAccountName", "The account that the pod runs as."),
            Column::text("NodeName", "The node at which the pod runs."),
            Column::text("SignerName", "Who is to sign."),
            Column::text(
                "State",
                "Is the request Pending, Issued, Denied, or Failed?",
            ),
            Column::text(
                "UnverifiedUserAnnotations",
                "What the pod's author tells the signer.",
            ),
        ]
    }

    fn row(&self, object: &PodCertificateRequest, _now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        let status = object.status.as_ref();
        let conditions = status.map(|status| items(&status.conditions));
        let state = conditions.unwrap_or_default().iter().rev();
        let state = state
            .map(|condition| condition.type_.as_str())
            .find(|kind| matches!(*kind, "Issued" | "Denied" | "Failed"));
        vec![
            printing::name(&object.metadata),
            Cell::from(spec.pod_name.as_str()),
            Cell::from(spec.service_account_name.as_str()),
            Cell::from(spec.node_name.as_str()),
            Cell::from(spec.signer_name.as_str()),
            Cell::from(state.unwrap_or("Pending")),
            Cell::from(format_labels(spec.unverified_user_annotations.as_ref())),
        ]
    }
}
