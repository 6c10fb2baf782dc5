//! Update and patch: read, change, check, write, and again where another writer was faster.
//!
//! A change is a function of the current object, so that a patch is computed anew from each
//! newer state. An object that demands a resourceVersion is refused when it is another one.

use coracle_apimachinery::field::{Error as FieldError, ErrorList, Path};
use coracle_apimachinery::status::{OBJECT_MODIFIED, Status};
use coracle_store::{Error, Precondition, Read, Record};

use super::create::{match_name, match_namespace};
use super::encoding::decode;
use super::erased::Object;
use super::managed::keep_times;
use super::strategy::Subresource;
use super::{Caller, Outcome, Registry, Target, meta, service_addresses};
use crate::admission::{Operation, Review};

/// How often a write is tried against writers that are faster. Upstream tries for as long as the
/// request may take; each try waits for the store, and somebody else's has succeeded.
pub(super) const ATTEMPTS: usize = 1024;

/// Which part of an object an update changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
    /// Another part that has a subresource of its own.
    Own(Subresource),
    /// Its number of replicas.
    Scale,
    /// What the handler of this subresource changed itself (binding, finalize): the rules of the
    /// kind for updates by clients do not hold for it.
    Internal(&'static str),
}

impl Part {
    pub(super) fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Own(subresource) => subresource.name(),
            Self::Scale => "scale",
            Self::Internal(name) => name,
        }
    }
}

/// What an update makes of the current object, which has its resourceVersion set.
pub type Change<'a> = dyn Fn(&dyn Object) -> Result<Box<dyn Object>, Status> + Send + Sync + 'a;

impl Registry {
    /// Changes an object.
    ///
    /// # Errors
    /// 404, 409 and 422 as Kubernetes has them, and those of the change itself.
    pub async fn update(
        &self,
        target: Target<'_>,
        part: Part,
        change: &Change<'_>,
        caller: Caller<'_>,
    ) -> Result<Outcome, Status> {
        for _ in 0..ATTEMPTS {
            let current = self.get(target, Read::Latest).await?;
            let old = decode(&**target.kind, &current)?;
            let new = change(&*old)?;
            let tried = self.try_update(target, part, old, new, caller, current);
            if let Some(outcome) = tried.await? {
                return Ok(outcome);
            }
        }
        Err(target.conflict(OBJECT_MODIFIED))
    }

    /// Puts the new object in the place of the old one, which `current` decodes to; `None` where
    /// another writer was faster.
    pub(super) async fn try_update(
        &self,
        target: Target<'_>,
        part: Part,
        old: Box<dyn Object>,
        new: Box<dyn Object>,
        caller: Caller<'_>,
        current: Record,
    ) -> Result<Option<Outcome>, Status> {
        let mut review = Review {
            operation: Operation::Update,
            kind: target.kind,
            namespace: target.namespace,
            subresource: part.subresource(),
            caller,
            warnings: Vec::new(),
        };
        let tried = self.update_reviewed(target, part, old, new, &mut review, current);
        match tried.await {
            Ok(written) => Ok(written.map(|record| Outcome {
                record,
                created: false,
                warnings: review.warnings,
            })),
            Err(status) => {
                caller.note(review.warnings);
                Err(status)
            }
        }
    }

    async fn update_reviewed(
        &self,
        target: Target<'_>,
        part: Part,
        mut old: Box<dyn Object>,
        mut new: Box<dyn Object>,
        review: &mut Review<'_>,
        current: Record,
    ) -> Result<Option<Record>, Status> {
        let caller = review.caller;
        let kind = &**target.kind;
        let descriptor = kind.descriptor();
        match_namespace(target, &mut *new)?;
        match_name(target, &mut *new)?;
        review.warnings = meta::drop_doubled_owners(new.meta_mut());
        self.check_version(target, &*new, &current)?;
        check_uid(target, &*new, &*old)?;
        meta::restore_system_fields(new.meta_mut(), old.meta());

        kind.set_defaults(&mut *new);
        self.manage_updated(target, part, &mut *new, &mut *old, caller.manager);
        self.admit(review, Some(&mut *new), Some(&*old)).await?;

        service_addresses::carry_over(&mut *new, &*old);
        match part {
            Part::Main => kind.prepare_for_update(&mut *new, &*old),
            Part::Status => kind.prepare_for_status_update(&mut *new, &*old),
            Part::Own(part) => kind.prepare_for_part(part, &mut *new, &*old),
            Part::Scale | Part::Internal(_) => {}
        }
        let changed =
            descriptor.generation && part != Part::Status && kind.spec_changed(&*new, &*old);
        if changed {
            let generation = old.meta().generation.unwrap_or(0) + 1;
            new.meta_mut().generation = Some(generation);
        }
        let mut errors = meta::validate_update(new.meta(), old.meta());
        errors.extend(match part {
            Part::Main | Part::Scale => kind.validate_update(&*new, &*old),
            Part::Status => kind.validate_status_update(&*new, &*old),
            Part::Own(part) => kind.validate_part(part, &*new, &*old),
            Part::Internal(_) => ErrorList::default(),
        });
        if !errors.is_empty() {
            return Err(Status::invalid(
                &descriptor.group_kind(),
                target.name,
                errors,
            ));
        }
        // Where a spec is as it was, its author has heard of it already.
        if part == Part::Main && (changed || !descriptor.generation) {
            let warnings = kind.warnings_on_update(&*new, &*old);
            review.warnings.extend(warnings);
        }
        self.validate(review, Some(&*new), Some(&*old)).await?;

        let reservation = self
            .services
            .reserve(self, target, &mut *new, Some(&*old), caller.dry_run)
            .await?;
        let written = self
            .write_changed(target, &mut *new, &*old, current, caller)
            .await;
        reservation
            .settle(self, matches!(written, Ok(Some(_))))
            .await;
        written
    }

    async fn write_changed(
        &self,
        target: Target<'_>,
        new: &mut dyn Object,
        old: &dyn Object,
        current: Record,
        caller: Caller<'_>,
    ) -> Result<Option<Record>, Status> {
        let kind = &**target.kind;
        keep_times(new, old);
        let value = caller.encode(kind, new)?;
        if value.get() == current.value() {
            return Ok(Some(current));
        }
        let gone = old.meta().deletion_timestamp.is_some()
            && old.meta().deletion_grace_period_seconds.unwrap_or(0) == 0
            && new.meta().finalizers.iter().flatten().next().is_none()
            && !kind.holds_deletion(new);
        if caller.dry_run {
            return Ok(Some(current.with(&value)));
        }
        let key = target.key();
        let precondition = Precondition {
            uid: Some(current.value().uid().to_owned()),
            revision: Some(current.revision()),
        };
        let written = if gone {
            self.store
                .delete(&key, precondition)
                .await
                .map(|removed| removed.with(&value))
        } else {
            let swap = |value| {
                let precondition = precondition.clone();
                self.store.compare_and_swap(&key, precondition, value)
            };
            match swap(value).await {
                // Who manages what may be large, and can be done without.
                Err(Error::TooLarge { .. }) if new.meta().managed_fields.is_some() => {
                    new.meta_mut().managed_fields = None;
                    swap(caller.encode(kind, new)?).await
                }
                written => written,
            }
        };
        match written {
            Ok(record) => {
                if gone {
                    self.services.release(self, target, old).await;
                }
                Ok(Some(record))
            }
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(target.store_error(&error)),
        }
    }

    fn check_version(
        &self,
        target: Target<'_>,
        new: &dyn Object,
        current: &Record,
    ) -> Result<(), Status> {
        let descriptor = target.kind.descriptor();
        let invalid = |value: &str, message: &str| {
            let path = Path::new("metadata").child("resourceVersion");
            let error = FieldError::invalid(&path, value, message);
            Status::invalid(&descriptor.group_kind(), target.name, vec![error])
        };
        match new.meta().resource_version.as_deref().unwrap_or_default() {
            "" | "0" if descriptor.unconditional_update => Ok(()),
            "" | "0" => Err(invalid("0", "must be specified for an update")),
            text => match text.parse::<u64>() {
                Ok(version) if version == current.revision() => Ok(()),
                Ok(_) => Err(target.conflict(OBJECT_MODIFIED)),
                Err(_) => Err(invalid(
                    text,
                    "must be a resource version that this server gave",
                )),
            },
        }
    }
}

/// 422: a patch makes an object of another uid. An update that names another is one of an object
/// that is gone, which is a conflict.
pub(crate) fn refuse_other_uid(
    target: Target<'_>,
    new: &dyn Object,
    old: &dyn Object,
) -> Result<(), Status> {
    let uid = new.meta().uid.as_deref().unwrap_or_default();
    if uid.is_empty() || old.meta().uid.as_deref() == Some(uid) {
        return Ok(());
    }
    let path = Path::new("metadata").child("uid");
    let error = FieldError::invalid(&path, uid, "field is immutable");
    let kind = target.kind.descriptor().group_kind();
    Err(Status::invalid(&kind, target.name, vec![error]))
}

fn check_uid(target: Target<'_>, new: &dyn Object, old: &dyn Object) -> Result<(), Status> {
    match (
        new.meta().uid.as_deref().unwrap_or_default(),
        old.meta().uid.as_deref(),
    ) {
        ("", _) => Ok(()),
        (new, Some(old)) if new == old => Ok(()),
        (new, old) => Err(target.conflict(format!(
            "Precondition failed: UID in precondition: {new}, UID in object meta: {}",
            old.unwrap_or_default()
        ))),
    }
}
