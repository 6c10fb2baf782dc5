//! Strategies and objects with their types erased, so that the registry is compiled once and
//! not once for each kind.
//!
//! [`Kind`] is what the registry sees. Built-in kinds are [`Typed`] adapters over a
//! [`Strategy`]; a custom resource implements [`Kind`] itself, over its schema.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use coracle_apimachinery::field::ErrorList;
use coracle_apimachinery::gvk::GroupVersionKind;
use coracle_apimachinery::protobuf;
use coracle_apimachinery::schema::{Node, Schema as Structures};
use coracle_apimachinery::table::{Cell, Column};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::strategy::{ApiType, Descriptor, ScaleView, Strategy, Subresource};
use super::zero_times;

/// A decoded object of any kind.
pub trait Object: Any + Send + Sync {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// A copy.
    fn boxed(&self) -> Box<dyn Object>;
    /// Whether it is the same as another object of its kind.
    fn same(&self, other: &dyn Object) -> bool;
    /// As JSON, the way clients see it.
    fn to_json(&self) -> serde_json::Result<Vec<u8>>;
    /// As a JSON value.
    fn to_value(&self) -> serde_json::Result<Value>;
    /// To downcast.
    fn as_any(&self) -> &dyn Any;
    /// To downcast.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: ApiType> Object for T {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }

    fn boxed(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn same(&self, other: &dyn Object) -> bool {
        other
            .as_any()
            .downcast_ref::<T>()
            .is_some_and(|other| self == other)
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    fn to_value(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// A kind as the registry sees it: [`Strategy`] with the types erased. The methods are those of
/// the strategy; objects that are passed in are always of this kind.
#[expect(missing_docs, reason = "each method is documented on Strategy")]
pub trait Kind: Send + Sync {
    fn descriptor(&self) -> &Descriptor;
    /// Decodes what a client sent, or what a patch has made of it, without the empty values that
    /// say nothing. From bytes alone: each way to decode is code of its own for every type there is.
    fn decode(&self, bytes: &[u8]) -> serde_json::Result<Box<dyn Object>>;
    fn decode_stored(&self, bytes: &[u8]) -> serde_json::Result<Box<dyn Object>>;
    fn encode_stored(&self, object: &dyn Object) -> serde_json::Result<Vec<u8>>;
    /// The kind's schema, and through the generator those that it refers to.
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema;
    /// The name of the kind's schema (`io.k8s.api.core.v1.Pod`).
    fn schema_name(&self) -> String;
    /// What the lists and maps of its objects are to those who merge them.
    fn structure(&self) -> Node<'_> {
        Node::untyped()
    }
    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
    fn only_fields(&self, _subresource: &str) -> Option<&'static [&'static [&'static str]]> {
        None
    }
    fn set_defaults(&self, object: &mut dyn Object);
    fn prepare_for_create(&self, object: &mut dyn Object);
    fn validate(&self, object: &dyn Object) -> ErrorList;
    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object);
    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList;
    fn prepare_for_status_update(&self, new: &mut dyn Object, old: &dyn Object);
    fn validate_status_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList;
    fn prepare_for_part(&self, _part: Subresource, _new: &mut dyn Object, _old: &dyn Object) {}
    fn validate_part(&self, _part: Subresource, _new: &dyn Object, _old: &dyn Object) -> ErrorList {
        ErrorList::default()
    }
    fn spec_changed(&self, new: &dyn Object, old: &dyn Object) -> bool;
    fn warnings(&self, object: &dyn Object) -> Vec<String>;
    fn warnings_on_update(&self, new: &dyn Object, old: &dyn Object) -> Vec<String>;
    fn selectable_fields(&self, object: &dyn Object) -> Vec<(&'static str, String)>;
    fn columns(&self) -> Vec<Column>;
    fn row(&self, object: &dyn Object, now: jiff::Timestamp) -> Vec<Cell>;
    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64>;
    fn begin_deletion(&self, object: &mut dyn Object);
    fn holds_deletion(&self, object: &dyn Object) -> bool;
    fn scale(&self, object: &dyn Object) -> Option<ScaleView>;
    fn set_replicas(&self, object: &mut dyn Object, replicas: i32);
}

/// A [`Strategy`] as a [`Kind`].
struct Typed<S> {
    strategy: S,
    descriptor: Descriptor,
    structure: Node<'static>,
    /// What tells which of its empty values say nothing.
    fields: Option<protobuf::Kind>,
}

/// Erases a strategy.
#[must_use]
pub fn kind<S: Strategy>(strategy: S) -> Arc<dyn Kind> {
    let descriptor = strategy.descriptor();
    let kind = GroupVersionKind::of::<S::Object>();
    Arc::new(Typed {
        strategy,
        fields: protobuf::Kind::find(&descriptor.api_version(), &descriptor.kind),
        descriptor,
        structure: Structures::built_in()
            .kind(&kind)
            .unwrap_or_else(Node::untyped),
    })
}

const MIXED: &str = "an object is passed only to the kind that decoded it";

fn typed<T: ApiType>(object: &dyn Object) -> &T {
    object.as_any().downcast_ref().expect(MIXED)
}

fn typed_mut<T: ApiType>(object: &mut dyn Object) -> &mut T {
    object.as_any_mut().downcast_mut().expect(MIXED)
}

impl<S: Strategy> Kind for Typed<S> {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn decode(&self, bytes: &[u8]) -> serde_json::Result<Box<dyn Object>> {
        let bytes = match &self.fields {
            Some(fields) => fields.without_omitted(bytes),
            None => Cow::Borrowed(bytes),
        };
        Ok(Box::new(zero_times::from_slice::<S::Object>(&bytes)?))
    }

    fn decode_stored(&self, bytes: &[u8]) -> serde_json::Result<Box<dyn Object>> {
        Ok(Box::new(self.strategy.decode_stored(bytes)?))
    }

    fn encode_stored(&self, object: &dyn Object) -> serde_json::Result<Vec<u8>> {
        self.strategy.encode_stored(typed(object))
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<S::Object>()
    }

    fn schema_name(&self) -> String {
        S::Object::schema_name().into_owned()
    }

    fn structure(&self) -> Node<'_> {
        self.structure
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        self.strategy.reset_fields(subresource)
    }

    fn only_fields(&self, subresource: &str) -> Option<&'static [&'static [&'static str]]> {
        self.strategy.only_fields(subresource)
    }

    fn set_defaults(&self, object: &mut dyn Object) {
        self.strategy.set_defaults(typed_mut(object));
    }

    fn prepare_for_create(&self, object: &mut dyn Object) {
        self.strategy.prepare_for_create(typed_mut(object));
    }

    fn validate(&self, object: &dyn Object) -> ErrorList {
        self.strategy.validate(typed(object))
    }

    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object) {
        self.strategy.prepare_for_update(typed_mut(new), typed(old));
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        self.strategy.validate_update(typed(new), typed(old))
    }

    fn prepare_for_status_update(&self, new: &mut dyn Object, old: &dyn Object) {
        self.strategy
            .prepare_for_status_update(typed_mut(new), typed(old));
    }

    fn validate_status_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        self.strategy.validate_status_update(typed(new), typed(old))
    }

    fn prepare_for_part(&self, part: Subresource, new: &mut dyn Object, old: &dyn Object) {
        self.strategy
            .prepare_for_part(part, typed_mut(new), typed(old));
    }

    fn validate_part(&self, part: Subresource, new: &dyn Object, old: &dyn Object) -> ErrorList {
        self.strategy.validate_part(part, typed(new), typed(old))
    }

    fn spec_changed(&self, new: &dyn Object, old: &dyn Object) -> bool {
        self.strategy.spec_changed(typed(new), typed(old))
    }

    fn warnings(&self, object: &dyn Object) -> Vec<String> {
        self.strategy.warnings(typed(object))
    }

    fn warnings_on_update(&self, new: &dyn Object, old: &dyn Object) -> Vec<String> {
        self.strategy.warnings_on_update(typed(new), typed(old))
    }

    fn selectable_fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        self.strategy.selectable_fields(typed(object))
    }

    fn columns(&self) -> Vec<Column> {
        self.strategy.columns()
    }

    fn row(&self, object: &dyn Object, now: jiff::Timestamp) -> Vec<Cell> {
        self.strategy.row(typed(object), now)
    }

    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        self.strategy.grace_period(typed(object), requested)
    }

    fn begin_deletion(&self, object: &mut dyn Object) {
        self.strategy.begin_deletion(typed_mut(object));
    }

    fn holds_deletion(&self, object: &dyn Object) -> bool {
        self.strategy.holds_deletion(typed(object))
    }

    fn scale(&self, object: &dyn Object) -> Option<ScaleView> {
        self.strategy.scale(typed(object))
    }

    fn set_replicas(&self, object: &mut dyn Object, replicas: i32) {
        self.strategy.set_replicas(typed_mut(object), replicas);
    }
}
