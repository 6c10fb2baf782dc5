//! Server-side apply: the object that there is, or none, with a configuration applied to it, and
//! then through the same path as every other write.

use coracle_apimachinery::managed::{self, Error, Managers, Write};
use coracle_apimachinery::status::{OBJECT_MODIFIED, Status};
use coracle_store::Read;
use k8s_openapi::Resource;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Map, Value};

use super::create::check_name;
use super::encoding::decode_to_apply;
use super::erased::Object;
use super::errors::internal;
use super::managed::{FieldManager, reset_fields, without_nulls};
use super::update::{ATTEMPTS, Part, refuse_other_uid};
use super::{Caller, Outcome, Registry, Target};

/// What is applied, and by whom.
#[derive(Clone, Copy)]
pub struct Application<'a> {
    /// The configuration, of the target's kind and version.
    pub config: &'a Value,
    /// The name of the manager.
    pub manager: &'a str,
    /// Whether fields are taken from others.
    pub force: bool,
    /// Whether the caller may create the object if there is none.
    pub may_create: &'a (dyn Fn() -> Result<(), Status> + Send + Sync),
}

impl Registry {
    /// Applies a configuration.
    ///
    /// # Errors
    /// 409 for fields of other managers, 400 for a configuration that does not fit, and those of
    /// create and update.
    pub async fn apply(
        &self,
        target: Target<'_>,
        part: Part,
        application: Application<'_>,
        caller: Caller<'_>,
    ) -> Result<Outcome, Status> {
        let caller = Caller {
            manager: FieldManager::Settled,
            ..caller
        };
        for _ in 0..ATTEMPTS {
            let current = match self.get(target, Read::Latest).await {
                Ok(current) => current,
                Err(status) if status.code() == 404 && part == Part::Main => {
                    match self.apply_new(target, part, application, caller).await {
                        // Somebody was faster in creating it.
                        Err(status) if status.reason() == "AlreadyExists" => continue,
                        done => return done,
                    }
                }
                Err(status) => return Err(status),
            };
            let mut old = decode_to_apply(&**target.kind, &current)?;
            let new = self.applied(target, part, application, Some(&mut *old))?;
            match self
                .try_update(target, part, old, new, caller, current)
                .await
            {
                // Somebody was faster in changing or deleting it.
                Ok(None) => {}
                Err(status) if status.code() == 404 && part == Part::Main => {}
                Ok(Some(done)) => return Ok(done),
                Err(status) => return Err(status),
            }
        }
        Err(target.conflict(OBJECT_MODIFIED))
    }

    /// Creates the object that the configuration makes of nothing.
    async fn apply_new(
        &self,
        target: Target<'_>,
        part: Part,
        application: Application<'_>,
        caller: Caller<'_>,
    ) -> Result<Outcome, Status> {
        let mut object = self.applied(target, part, application, None)?;
        if let Some(uid) = object.meta().uid.as_deref().filter(|uid| !uid.is_empty()) {
            return Err(target.conflict(format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            )));
        }
        check_name(target, object.meta())?;
        (application.may_create)()?;
        // There is no object whose version it could be.
        object.meta_mut().resource_version = None;
        self.create(target, object, caller).await
    }

    /// The object with the configuration applied, and its managers, whose sets are text. The current
    /// object is as it was afterwards.
    fn applied(
        &self,
        target: Target<'_>,
        part: Part,
        application: Application<'_>,
        mut current: Option<&mut dyn Object>,
    ) -> Result<Box<dyn Object>, Status> {
        let (mut live, mut managers) = (Value::Object(Map::new()), Managers::default());
        if let Some(current) = current.as_deref_mut() {
            let entries = current.meta_mut().managed_fields.take();
            // What cannot be read is nobody's.
            let read = Managers::read_text(entries.as_deref().unwrap_or_default());
            managers = read.unwrap_or_default();
            let value = current.to_value();
            current.meta_mut().managed_fields = entries;
            live = value.map_err(|error| internal("encode an object", &error))?;
        }
        let kind = &**target.kind;
        let api_version = kind.descriptor().api_version();
        let versions = self.versions(target);
        let write = Write {
            api_version: &api_version,
            structure: kind.structure(),
            versions: &versions,
            reset: &reset_fields(kind, part.subresource()),
            only: kind.only_fields(part.subresource()),
            manager: application.manager,
            subresource: part.subresource(),
            now: super::meta::now().0,
        };
        let Application { config, force, .. } = application;
        let applied = managed::apply(live, config, managers, &write, force);
        let applied = applied.map_err(|error| match error {
            Error::Conflicts(conflicts) if part == Part::Scale => {
                conflicts.in_version(Scale::API_VERSION).into()
            }
            Error::Conflicts(conflicts) => conflicts.into(),
            Error::Config(error) => malformed(target, "patch", &error),
            Error::Live(error) => malformed(target, "live", &error),
        })?;
        let object = serde_json::to_vec(&without_nulls(applied.object));
        let mut object = object
            .and_then(|json| kind.decode(&json))
            .map_err(|error| {
                Status::bad_request(format!("the applied object cannot be decoded: {error}"))
            })?;
        // The uid of a scale is a precondition.
        if let Some(current) = current.filter(|_| part != Part::Scale) {
            refuse_other_uid(target, &*object, current)?;
        }
        object.meta_mut().managed_fields = applied.managers.write_text();
        Ok(object)
    }
}

/// 400: lists or maps of an object are not what their types say, in the words of Kubernetes.
pub(crate) fn malformed(target: Target<'_>, which: &str, error: &dyn std::fmt::Display) -> Status {
    let d = target.kind.descriptor();
    let (namespace, name) = (target.namespace, target.name);
    let (api_version, kind) = (d.api_version(), &d.kind);
    Status::bad_request(format!(
        "failed to create typed {which} object ({namespace}/{name}; {api_version}, Kind={kind}): {error}"
    ))
}
