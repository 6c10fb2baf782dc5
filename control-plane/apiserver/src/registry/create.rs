//! Create: the order of defaulting, admission, strategy and store is fixed here.

use coracle_apimachinery::names;
use coracle_apimachinery::status::Status;
use coracle_store::{Error, Read, Record, Value};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::encoding::decode;
use super::erased::{Kind, Object};
use super::{Caller, Outcome, Registry, Target, meta};
use crate::admission::{Operation, Review};

/// How often a generated name is tried before the client is told to try again.
const NAME_ATTEMPTS: usize = 8;

impl Registry {
    /// Creates an object, decoded but otherwise as the client sent it. The name of the target is
    /// empty unless the path fixes it.
    ///
    /// # Errors
    /// 400, 403, 409 and 422 as Kubernetes has them.
    pub async fn create(
        &self,
        target: Target<'_>,
        object: Box<dyn Object>,
        caller: Caller<'_>,
    ) -> Result<Outcome, Status> {
        let mut review = Review {
            operation: Operation::Create,
            kind: target.kind,
            namespace: target.namespace,
            subresource: "",
            caller,
            warnings: Vec::new(),
        };
        match self.create_reviewed(target, object, &mut review).await {
            Ok(record) => Ok(Outcome {
                record,
                created: true,
                warnings: review.warnings,
            }),
            Err(status) => {
                caller.note(review.warnings);
                Err(status)
            }
        }
    }

    async fn create_reviewed(
        &self,
        target: Target<'_>,
        mut object: Box<dyn Object>,
        review: &mut Review<'_>,
    ) -> Result<Record, Status> {
        let caller = review.caller;
        let kind = &**target.kind;
        let descriptor = kind.descriptor();
        match_namespace(target, &mut *object)?;
        match_name(target, &mut *object)?;
        if object
            .meta()
            .resource_version
            .as_deref()
            .is_some_and(|v| !v.is_empty())
        {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        meta::fill_system_fields(descriptor, object.meta_mut(), meta::now());
        review.warnings = meta::drop_doubled_owners(object.meta_mut());
        let generated = generate_name(&mut *object);

        kind.set_defaults(&mut *object);
        self.manage_created(target, &mut *object, caller.manager);
        self.admit(review, Some(&mut *object), None).await?;

        kind.prepare_for_create(&mut *object);
        let mut errors = meta::validate(descriptor, object.meta());
        errors.extend(kind.validate(&*object));
        let name = object.meta().name.clone().unwrap_or_default();
        if !errors.is_empty() {
            return Err(Status::invalid(&descriptor.group_kind(), &name, errors));
        }
        review.warnings.extend(kind.warnings(&*object));
        self.validate(review, Some(&*object), None).await?;

        let target = Target {
            name: &name,
            ..target
        };
        if generated.is_none() && self.services.concerns(&*object) {
            // Else a Service that exists would be told that its own address is taken.
            self.refuse_existing(target).await?;
        }
        let reservation = self
            .services
            .reserve(self, target, &mut *object, None, caller.dry_run)
            .await?;
        let written = self
            .write_new(target, kind, &mut *object, generated, caller)
            .await;
        reservation.settle(self, written.is_ok()).await;
        written
    }

    async fn write_new(
        &self,
        target: Target<'_>,
        kind: &dyn Kind,
        object: &mut dyn Object,
        generated: Option<String>,
        caller: Caller<'_>,
    ) -> Result<Record, Status> {
        let mut name = target.name.to_owned();
        for _ in 0..NAME_ATTEMPTS {
            let target = Target {
                name: &name,
                ..target
            };
            let value = caller.encode(kind, object)?;
            let created = if caller.dry_run {
                self.pretend_create(target, value).await
            } else {
                self.store.create(&target.key(), value).await
            };
            match (created, &generated) {
                (Ok(record), _) => return Ok(record),
                (Err(Error::Exists { .. }), Some(base)) => {
                    name = names::generate_name(base, &mut rand::rng());
                    object.meta_mut().name = Some(name.clone());
                }
                (Err(Error::Exists { current, .. }), None) => {
                    return Err(taken(target, &current));
                }
                // Who manages what may be large, and can be done without.
                (Err(Error::TooLarge { .. }), _) if object.meta().managed_fields.is_some() => {
                    object.meta_mut().managed_fields = None;
                }
                (Err(error), _) => return Err(target.store_error(&error)),
            }
        }
        Err(Status::generate_name_conflict(
            &kind.descriptor().group_resource(),
            &name,
        ))
    }

    async fn refuse_existing(&self, target: Target<'_>) -> Result<(), Status> {
        match self.store.get(&target.key(), Read::Latest).await {
            Ok(None) => Ok(()),
            Ok(Some(current)) => Err(taken(target, &current)),
            Err(error) => Err(target.store_error(&error)),
        }
    }

    async fn pretend_create(
        &self,
        target: Target<'_>,
        value: Value,
    ) -> coracle_store::Result<Record> {
        let key = target.key();
        match self.store.get(&key, Read::Latest).await? {
            Some(current) => Err(Error::Exists {
                key,
                current: Box::new(current),
            }),
            None => Ok(Record::new(&key, 0, 0, value.get())),
        }
    }
}

/// 409: something has the name already, and says so if it is on its way out.
fn taken(target: Target<'_>, current: &Record) -> Status {
    let kind = &**target.kind;
    let resource = kind.descriptor().group_resource();
    let status = Status::already_exists(&resource, target.name);
    let goes =
        decode(kind, current).is_ok_and(|current| current.meta().deletion_timestamp.is_some());
    if !goes {
        return status;
    }
    let message = format!("object is being deleted: {}", status.message());
    let mut api = status.into_api();
    api.message = Some(message);
    api.into()
}

/// Makes the name from generateName, where there is no name. Returns the base.
fn generate_name(object: &mut dyn Object) -> Option<String> {
    let meta = object.meta_mut();
    if meta.name.as_deref().is_some_and(|name| !name.is_empty()) {
        return None;
    }
    let base = meta.generate_name.clone().filter(|base| !base.is_empty())?;
    meta.name = Some(names::generate_name(&base, &mut rand::rng()));
    Some(base)
}

/// Gives the object the namespace of the request, if it has none.
pub(crate) fn match_namespace(target: Target<'_>, object: &mut dyn Object) -> Result<(), Status> {
    let meta = object.meta_mut();
    if !target.kind.descriptor().is_namespaced() {
        meta.namespace = None;
        return Ok(());
    }
    let given = meta.namespace.as_deref().unwrap_or_default();
    if given.is_empty() {
        meta.namespace = Some(target.namespace.to_owned());
    } else if given != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Gives the object the name of the request, if it has none.
pub(crate) fn match_name(target: Target<'_>, object: &mut dyn Object) -> Result<(), Status> {
    if target.name.is_empty() {
        return Ok(());
    }
    let meta = object.meta_mut();
    if meta.name.as_deref().unwrap_or_default().is_empty() {
        meta.name = Some(target.name.to_owned());
    }
    check_name(target, meta)
}

/// Refuses an object that does not say by its name that it is the one of the request.
pub(crate) fn check_name(target: Target<'_>, meta: &ObjectMeta) -> Result<(), Status> {
    let wanted = target.name;
    let reason = match meta.name.as_deref().unwrap_or_default() {
        name if name == wanted => return Ok(()),
        "" => format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ),
        name => {
            format!("the name of the object ({name}) does not match the name on the URL ({wanted})")
        }
    };
    Err(Status::bad_request(reason))
}
