//! Kinds that are served in several versions.
//!
//! One version is stored, and its [`Strategy`] has all rules of the kind. Each other version is a
//! [`View`]: two functions that convert, and what is different in words. A request in a version
//! that is not stored is judged by the rules of the one that is: [`Viewed`] converts, asks the
//! stored version's strategy, and converts back. Conversion loses nothing: what a version has no
//! field for, it carries in annotations.

use crate::registry::strategy::{
    ApiType, Cell, Column, Descriptor, ErrorList, NameRule, ScaleView, Strategy,
};

/// The object of the stored version.
type StoredObject<V> = <<V as View>::Stored as Strategy>::Object;

/// A version that is served beside the one that is stored.
pub(super) trait View: Send + Sync + 'static {
    /// The strategy of the version that is stored.
    type Stored: Strategy;
    /// The type of this version.
    type Served: ApiType;

    /// The stored version's strategy.
    fn stored(&self) -> &Self::Stored;

    /// The object in the stored version.
    fn to_stored(served: Self::Served) -> StoredObject<Self>;

    /// The object in this version.
    fn from_stored(stored: StoredObject<Self>) -> Self::Served;

    /// The selectable fields, where they have other names.
    fn fields(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// The rule for names, where it is another.
    fn names(&self) -> Option<NameRule> {
        None
    }

    /// What is wrong with a new object; beside or in place of what the stored version says.
    fn validate(&self, served: &Self::Served) -> ErrorList {
        self.stored().validate(&Self::to_stored(served.clone()))
    }

    /// What is wrong with an update.
    fn validate_update(&self, new: &Self::Served, old: &Self::Served) -> ErrorList {
        let (new, old) = (Self::to_stored(new.clone()), Self::to_stored(old.clone()));
        self.stored().validate_update(&new, &old)
    }
}

/// The [`Strategy`] of a [`View`].
pub(super) struct Viewed<V>(pub(super) V);

impl<V: View> Viewed<V> {
    fn read<R>(
        &self,
        object: &V::Served,
        ask: impl FnOnce(&V::Stored, &StoredObject<V>) -> R,
    ) -> R {
        ask(self.0.stored(), &V::to_stored(object.clone()))
    }

    fn read_both<R>(
        &self,
        new: &V::Served,
        old: &V::Served,
        ask: impl FnOnce(&V::Stored, &StoredObject<V>, &StoredObject<V>) -> R,
    ) -> R {
        let (new, old) = (V::to_stored(new.clone()), V::to_stored(old.clone()));
        ask(self.0.stored(), &new, &old)
    }

    fn change(
        &self,
        object: &mut V::Served,
        change: impl FnOnce(&V::Stored, &mut StoredObject<V>),
    ) {
        let mut stored = V::to_stored(object.clone());
        change(self.0.stored(), &mut stored);
        *object = V::from_stored(stored);
    }
}

impl<V: View> Strategy for Viewed<V> {
    type Object = V::Served;

    fn descriptor(&self) -> Descriptor {
        let own = Descriptor::of::<V::Served>();
        let stored = self.0.stored().descriptor();
        let storage = stored.storage.clone();
        let descriptor = Descriptor {
            group: own.group,
            version: own.version,
            kind: own.kind,
            plural: own.plural,
            singular: own.singular,
            ..stored
        };
        let mut descriptor = descriptor.view_of(&storage);
        if let Some(rule) = self.0.names() {
            descriptor = descriptor.names(rule);
        }
        match self.0.fields() {
            Some(fields) => descriptor.fields(fields),
            None => descriptor,
        }
    }

    fn set_defaults(&self, object: &mut V::Served) {
        self.change(object, |strategy, stored| strategy.set_defaults(stored));
    }

    fn prepare_for_create(&self, object: &mut V::Served) {
        self.change(object, |strategy, stored| {
            strategy.prepare_for_create(stored);
        });
    }

    fn validate(&self, object: &V::Served) -> ErrorList {
        self.0.validate(object)
    }

    fn prepare_for_update(&self, new: &mut V::Served, old: &V::Served) {
        let old = V::to_stored(old.clone());
        self.change(new, |strategy, new| strategy.prepare_for_update(new, &old));
    }

    fn validate_update(&self, new: &V::Served, old: &V::Served) -> ErrorList {
        self.0.validate_update(new, old)
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        self.0.stored().reset_fields(subresource)
    }

    fn prepare_for_status_update(&self, new: &mut V::Served, old: &V::Served) {
        let old = V::to_stored(old.clone());
        self.change(new, |strategy, new| {
            strategy.prepare_for_status_update(new, &old);
        });
    }

    fn validate_status_update(&self, new: &V::Served, old: &V::Served) -> ErrorList {
        self.read_both(new, old, Strategy::validate_status_update)
    }

    fn spec_changed(&self, new: &V::Served, old: &V::Served) -> bool {
        self.read_both(new, old, Strategy::spec_changed)
    }

    fn warnings(&self, object: &V::Served) -> Vec<String> {
        self.read(object, Strategy::warnings)
    }

    fn warnings_on_update(&self, new: &V::Served, old: &V::Served) -> Vec<String> {
        self.read_both(new, old, Strategy::warnings_on_update)
    }

    fn selectable_fields(&self, object: &V::Served) -> Vec<(&'static str, String)> {
        self.read(object, Strategy::selectable_fields)
    }

    fn columns(&self) -> Vec<Column> {
        self.0.stored().columns()
    }

    fn row(&self, object: &V::Served, now: jiff::Timestamp) -> Vec<Cell> {
        self.read(object, |strategy, stored| strategy.row(stored, now))
    }

    fn grace_period(&self, object: &V::Served, requested: Option<i64>) -> Option<i64> {
        self.read(object, |strategy, stored| {
            strategy.grace_period(stored, requested)
        })
    }

    fn begin_deletion(&self, object: &mut V::Served) {
        self.change(object, |strategy, stored| strategy.begin_deletion(stored));
    }

    fn holds_deletion(&self, object: &V::Served) -> bool {
        self.read(object, Strategy::holds_deletion)
    }

    fn scale(&self, object: &V::Served) -> Option<ScaleView> {
        self.read(object, Strategy::scale)
    }

    fn set_replicas(&self, object: &mut V::Served, replicas: i32) {
        self.change(object, |strategy, stored| {
            strategy.set_replicas(stored, replicas);
        });
    }

    fn encode_stored(&self, object: &V::Served) -> serde_json::Result<Vec<u8>> {
        self.read(object, Strategy::encode_stored)
    }

    fn decode_stored(&self, bytes: &[u8]) -> serde_json::Result<V::Served> {
        self.0.stored().decode_stored(bytes).map(V::from_stored)
    }
}
