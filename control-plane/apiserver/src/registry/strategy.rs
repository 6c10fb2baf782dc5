//! What one kind adds to the generic registry.
//!
//! A kind is a unit struct that implements [`Strategy`] in its own file under `kinds/`, and one
//! line in [`super::kinds::all`]. The registry calls the methods in an order that is fixed in
//! one place (`registry/create.rs`, `registry/update.rs`, `registry/delete.rs`):
//!
//! - create: decode → [`Strategy::set_defaults`] → managed fields → mutating admission →
//!   [`Strategy::prepare_for_create`] → [`Strategy::validate`] → validating admission → store;
//! - update and patch: decode → [`Strategy::set_defaults`] → managed fields → mutating admission →
//!   [`Strategy::prepare_for_update`] → [`Strategy::validate_update`] → validating admission →
//!   store, where an object that does not differ from the stored one is not written;
//! - the status subresource: the same with [`Strategy::prepare_for_status_update`] and
//!   [`Strategy::validate_status_update`].
//!
//! **The registry does for every kind**, so no strategy does it: name, namespace, uid,
//! creationTimestamp, deletionTimestamp, resourceVersion, generation, generateName, validation of
//! ObjectMeta (names, labels, annotations, finalizers, owner references) and the immutability of
//! its system fields, that an empty value which says nothing is no value (`hostNetwork: false`,
//! `args: []`), optimistic concurrency, selectors on `metadata.name` and
//! `metadata.namespace`, the `Name` column's value as row metadata.
//!
//! Strategies are pure: they see the object (and the old one), never the store or the clock.
//! What needs other objects is admission (`admission/`).

pub use coracle_apimachinery::field::{self, ErrorList};
pub use coracle_apimachinery::table::{Cell, Column};
use k8s_openapi::Metadata;

pub use super::descriptor::{ApiType, Descriptor, NameRule, Scope, Subresource};

/// What the scale subresource shows of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleView {
    /// `spec.replicas`, defaulted.
    pub replicas: i32,
    /// `status.replicas`.
    pub current: i32,
    /// The label selector, rendered as a query (`app=web`).
    pub selector: String,
}

/// [`Strategy::reset_fields`] of a kind whose status is written without its metadata.
#[must_use]
pub fn resets_with_metadata(subresource: &str) -> &'static [&'static [&'static str]] {
    match subresource {
        "status" => &[&["metadata"], &["spec"]],
        _ => &[&["status"]],
    }
}

/// What one kind adds to the generic registry; see the module's documentation for the order in
/// which these are called.
pub trait Strategy: Send + Sync + 'static {
    /// The type of its objects.
    type Object: ApiType;

    /// How it is named and served.
    fn descriptor(&self) -> Descriptor;

    /// Fills in what the Kubernetes API reference calls defaults. Idempotent; called for every
    /// decoded object, on create and on update.
    fn set_defaults(&self, _object: &mut Self::Object) {}

    /// Clears what a client may not set on creation (`status`), and sets what the kind starts
    /// with (`status.phase = "Pending"`).
    fn prepare_for_create(&self, _object: &mut Self::Object) {}

    /// Everything that is wrong with a new object beyond its ObjectMeta.
    fn validate(&self, object: &Self::Object) -> ErrorList;

    /// Restores what an update of the main resource may not change (`new.status = old.status`).
    fn prepare_for_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Everything that is wrong with an update: usually [`Strategy::validate`] of the new
    /// object and the immutable fields.
    fn validate_update(&self, new: &Self::Object, old: &Self::Object) -> ErrorList;

    /// Restores what an update of the status subresource may not change (`new.spec = old.spec`,
    /// and the labels where Kubernetes does). Called only with [`Subresource::Status`].
    fn prepare_for_status_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Everything that is wrong with an update of the status subresource.
    fn validate_status_update(&self, _new: &Self::Object, _old: &Self::Object) -> ErrorList {
        ErrorList::default()
    }

    /// Restores what an update of a part other than the status may not change. Called only with
    /// subresources of the kind that are such parts.
    fn prepare_for_part(&self, _part: Subresource, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Everything that is wrong with an update of such a part.
    fn validate_part(
        &self,
        _part: Subresource,
        _new: &Self::Object,
        _old: &Self::Object,
    ) -> ErrorList {
        ErrorList::default()
    }

    /// Paths of the fields that a write of a subresource cannot change, because
    /// [`Strategy::prepare_for_update`] or [`Strategy::prepare_for_status_update`] restores them:
    /// they are not given to its manager. The subresource of the object itself is empty.
    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"]],
            "" | "finalize" => &[&["status"]],
            _ => &[],
        }
    }

    /// The only fields that a write of a subresource can change, where they are few: paths, in
    /// which `*` is any item. What [`Strategy::reset_fields`] says does not count then.
    fn only_fields(&self, _subresource: &str) -> Option<&'static [&'static [&'static str]]> {
        None
    }

    /// Whether an update advances `metadata.generation` (only with [`Descriptor::generation`]):
    /// `new.spec != old.spec`.
    fn spec_changed(&self, _new: &Self::Object, _old: &Self::Object) -> bool {
        false
    }

    /// Warnings for the client (the `Warning` header), on create and, unless the kind says
    /// otherwise, on update.
    fn warnings(&self, _object: &Self::Object) -> Vec<String> {
        Vec::new()
    }

    /// Warnings on update, where they are not those of a new object.
    fn warnings_on_update(&self, new: &Self::Object, _old: &Self::Object) -> Vec<String> {
        self.warnings(new)
    }

    /// Values of the selectable fields of [`Descriptor::fields`], in any order. A field that has
    /// no value is given as the empty string (`spec.nodeName` of a Pod not yet bound).
    fn selectable_fields(&self, _object: &Self::Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Columns of `kubectl get`; those of priority 1 are shown with `-o wide` only. The default
    /// is Name and Age.
    fn columns(&self) -> Vec<Column> {
        super::printing::default_columns()
    }

    /// The cells of one row, one for each of [`Strategy::columns`].
    fn row(&self, object: &Self::Object, now: jiff::Timestamp) -> Vec<Cell> {
        super::printing::default_row(object.metadata(), now)
    }

    /// The grace period in seconds with which an object of this kind is deleted, given what the
    /// client asked for. `None`: the kind knows no grace, it goes at once. `Some(0)` for an
    /// object that could linger but need not (a Pod that no node has).
    fn grace_period(&self, _object: &Self::Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Called when a deletion timestamp is first set on an object that stays for finalizers or
    /// its grace period: a Namespace's phase becomes Terminating.
    fn begin_deletion(&self, _object: &mut Self::Object) {}

    /// Whether the kind's own fields hold back the removal of a deleted object, beside
    /// `metadata.finalizers`: `spec.finalizers` of a Namespace.
    fn holds_deletion(&self, _object: &Self::Object) -> bool {
        false
    }

    /// What the scale subresource shows. Called only with [`Subresource::Scale`].
    fn scale(&self, _object: &Self::Object) -> Option<ScaleView> {
        None
    }

    /// Sets `spec.replicas` from the scale subresource.
    fn set_replicas(&self, _object: &mut Self::Object, _replicas: i32) {}

    /// Encodes for the store; only a [`Descriptor::converted`] kind overrides it. The bytes are
    /// JSON, begin with `apiVersion` and `kind`, and carry no `metadata.resourceVersion`.
    fn encode_stored(&self, object: &Self::Object) -> serde_json::Result<Vec<u8>> {
        // Most objects are larger than what the vector would begin with.
        let mut bytes = Vec::with_capacity(2048);
        serde_json::to_writer(&mut bytes, object)?;
        Ok(bytes)
    }

    /// Decodes what the store holds; only a [`Descriptor::converted`] kind overrides it.
    fn decode_stored(&self, bytes: &[u8]) -> serde_json::Result<Self::Object> {
        serde_json::from_slice(bytes)
    }
}
