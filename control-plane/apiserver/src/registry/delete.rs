//! Delete: at once, after a grace period, or once the finalizers are gone.
//!
//! An object that lingers carries a deletionTimestamp. Its grace period only shrinks. It is
//! removed by the delete that finds nothing to wait for, or by the update that takes the last
//! finalizer away (`update.rs`).

use coracle_apimachinery::status::Status;
use coracle_store::{Error, Precondition, Read, Record};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::encoding::{decode, encode};
use super::erased::{Kind, Object};
use super::meta::{FOREGROUND, ORPHAN};
use super::update::ATTEMPTS;
use super::{Caller, Registry, Target, meta};
use crate::admission::{Operation, Review};
use crate::request::options::{DeleteRequest, Propagation};

/// What a delete did.
pub enum Deleted {
    /// The object is gone; this was its last state.
    Removed(Record),
    /// It waits for finalizers or its grace period.
    Pending(Record),
}

/// What is to be done with an object that shall go.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Remove it now.
    Remove,
    /// Store it as changed, with its deletionTimestamp.
    Mark,
    /// It is being deleted already, and nothing changes.
    Wait,
}

impl Registry {
    /// Deletes an object.
    ///
    /// # Errors
    /// 404, 403 and 409 as Kubernetes has them.
    pub async fn delete(
        &self,
        target: Target<'_>,
        request: &DeleteRequest,
        caller: Caller<'_>,
    ) -> Result<Deleted, Status> {
        for _ in 0..ATTEMPTS {
            let current = self.get(target, Read::Latest).await?;
            if let Some(deleted) = self.try_delete(target, request, caller, current).await? {
                return Ok(deleted);
            }
        }
        Err(target.conflict(coracle_apimachinery::status::OBJECT_MODIFIED))
    }

    async fn try_delete(
        &self,
        target: Target<'_>,
        request: &DeleteRequest,
        caller: Caller<'_>,
        current: Record,
    ) -> Result<Option<Deleted>, Status> {
        let kind = &**target.kind;
        check_preconditions(target, request, &current)?;
        let old = decode(kind, &current)?;
        let mut review = Review {
            operation: Operation::Delete,
            kind: target.kind,
            namespace: target.namespace,
            subresource: "",
            caller,
            warnings: Vec::new(),
        };
        self.admit(&mut review, None, Some(&*old)).await?;
        self.validate(&mut review, None, Some(&*old)).await?;

        let mut new = old.boxed();
        let step = plan(kind, &mut *new, request, meta::now());
        if step == Step::Wait {
            return Ok(Some(Deleted::Pending(current)));
        }
        let marked = match step {
            Step::Mark => Some(encode(kind, &mut *new)?),
            Step::Remove | Step::Wait => None,
        };
        if caller.dry_run {
            return Ok(Some(match marked {
                Some(value) => Deleted::Pending(current.with(&value)),
                None => Deleted::Removed(current),
            }));
        }
        let precondition = Precondition {
            uid: Some(current.value().uid().to_owned()),
            revision: Some(current.revision()),
        };
        let key = target.key();
        let done = match marked {
            None => self
                .store
                .delete(&key, precondition)
                .await
                .map(Deleted::Removed),
            Some(value) => self
                .store
                .compare_and_swap(&key, precondition, value)
                .await
                .map(Deleted::Pending),
        };
        match done {
            Ok(deleted) => {
                if matches!(deleted, Deleted::Removed(_)) {
                    self.services.release(self, target, &*old).await;
                }
                Ok(Some(deleted))
            }
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(target.store_error(&error)),
        }
    }
}

/// Refuses a delete of another object, or of another version of it, than the request means.
///
/// # Errors
/// 409.
pub(crate) fn check_preconditions(
    target: Target<'_>,
    request: &DeleteRequest,
    current: &Record,
) -> Result<(), Status> {
    let uid = current.value().uid();
    if let Some(wanted) = request.uid.as_deref().filter(|wanted| *wanted != uid) {
        return Err(target.conflict(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        )));
    }
    let version = current.revision().to_string();
    if let Some(wanted) = request
        .resource_version
        .as_ref()
        .filter(|wanted| **wanted != version)
    {
        return Err(target.conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        )));
    }
    Ok(())
}

/// Decides what a delete does, and marks the object for it.
fn plan(kind: &dyn Kind, object: &mut dyn Object, request: &DeleteRequest, now: Time) -> Step {
    let meta = object.meta();
    let deleting = meta.deletion_timestamp.is_some();
    let left = meta.deletion_grace_period_seconds.unwrap_or(0);
    let shorter = request.grace_period.filter(|asked| *asked < left);
    if deleting && left > 0 && shorter.is_none() {
        // Grace only shrinks, and while it lasts nothing else is decided.
        return Step::Wait;
    }
    let propagation = propagation(kind, meta, request);
    let finalizers_changed = set_finalizers(object.meta_mut(), propagation);
    let held =
        object.meta().finalizers.iter().flatten().next().is_some() || kind.holds_deletion(object);

    if deleting {
        let grace = shorter.unwrap_or(0);
        if grace == 0 && !held {
            return Step::Remove;
        }
        if grace < left {
            mark(object.meta_mut(), grace, &now, Some(left));
        } else if !finalizers_changed {
            return Step::Wait;
        }
        return Step::Mark;
    }

    let grace = kind
        .grace_period(object, request.grace_period)
        .map(|seconds| seconds.max(0));
    let grace = grace.unwrap_or(0);
    if grace == 0 && !held {
        return Step::Remove;
    }
    mark(object.meta_mut(), grace, &now, None);
    kind.begin_deletion(object);
    Step::Mark
}

/// Sets the deletion timestamp to the end of the grace period. Where one is shortened, the time
/// counts from when the deletion began; if it has passed already, the object ends now, but in order:
/// whoever ends it has a second.
fn mark(meta: &mut ObjectMeta, grace: i64, now: &Time, shortened_from: Option<i64>) {
    let began = match (shortened_from, &meta.deletion_timestamp) {
        (Some(before), Some(end)) => add(end, -before),
        _ => now.clone(),
    };
    let end = add(&began, grace);
    let (end, grace) = if end.0 < now.0 {
        (now.clone(), grace.min(1))
    } else {
        (end, grace)
    };
    meta.deletion_timestamp = Some(end);
    meta.deletion_grace_period_seconds = Some(grace);
    if shortened_from.is_none() && meta.generation.is_some_and(|generation| generation > 0) {
        meta.generation = meta.generation.map(|generation| generation + 1);
    }
}

fn add(time: &Time, seconds: i64) -> Time {
    Time(
        time.0
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap_or(time.0),
    )
}

/// What becomes of the dependents: what the request says, else what an earlier one said, which is
/// in the finalizers, else what is usual for the kind.
fn propagation(kind: &dyn Kind, meta: &ObjectMeta, request: &DeleteRequest) -> Option<Propagation> {
    if !kind.descriptor().collected {
        return Some(Propagation::Background);
    }
    let mut finalizers = meta.finalizers.iter().flatten();
    let decided = finalizers.any(|f| matches!(f.as_str(), ORPHAN | FOREGROUND));
    let usual = (kind.descriptor().orphans && !decided).then_some(Propagation::Orphan);
    request.propagation.or(usual)
}

/// Puts the garbage collector's finalizers as the propagation policy wants them. Returns whether
/// that changed them.
fn set_finalizers(meta: &mut ObjectMeta, propagation: Option<Propagation>) -> bool {
    let Some(propagation) = propagation else {
        return false;
    };
    let wanted = match propagation {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    let before = meta.finalizers.clone().unwrap_or_default();
    let mut after: Vec<String> = before
        .iter()
        .filter(|f| Some(f.as_str()) == wanted || !matches!(f.as_str(), ORPHAN | FOREGROUND))
        .cloned()
        .collect();
    if let Some(wanted) = wanted.filter(|wanted| !after.iter().any(|f| f == wanted)) {
        after.push(wanted.to_owned());
    }
    let changed = before != after;
    meta.finalizers = (!after.is_empty()).then_some(after);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_is_shortened_to_what_is_left_of_it() {
        let at = |second| Time(jiff::Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second));
        // A grace of thirty seconds began at 100. When another is asked for, which, and what
        // becomes of it.
        for (now, grace, end, seconds) in [
            (105, 20, 120, 20),
            (105, 5, 105, 5),
            (125, 20, 125, 1),
            (125, 1, 125, 1),
            (125, 0, 125, 0),
        ] {
            let mut meta = ObjectMeta::default();
            mark(&mut meta, 30, &at(100), None);
            assert_eq!(meta.deletion_timestamp, Some(at(130)));
            mark(&mut meta, grace, &at(now), Some(30));
            assert_eq!(meta.deletion_timestamp, Some(at(end)), "{grace} at {now}");
            assert_eq!(meta.deletion_grace_period_seconds, Some(seconds));
        }
    }
}
