//! What goes wrong below the registry, as clients are told of it.

use coracle_apimachinery::status::{OBJECT_MODIFIED, Status};
use coracle_store::Error;

use super::strategy::Descriptor;

/// The Status for an error of the store on an object of this kind.
#[must_use]
pub fn from_store(descriptor: &Descriptor, name: &str, error: &Error) -> Status {
    let resource = descriptor.group_resource();
    match error {
        Error::Exists { .. } => Status::already_exists(&resource, name),
        Error::NotFound(_) => Status::not_found(&resource, name),
        Error::Conflict { .. } => Status::conflict(&resource, name, OBJECT_MODIFIED),
        Error::Expired { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        Error::Future { requested, current } => {
            let message = format!("Too large resource version: {requested}, current: {current}");
            Status::timeout(message, 1).with_cause(
                "ResourceVersionTooLarge",
                "Too large resource version",
                "",
            )
        }
        Error::Full(_) => {
            tracing::warn!(%error, "the store takes no more writes");
            Status::insufficient_storage(
                "no space is left for writes; delete objects or free disk space, then try again",
            )
        }
        Error::TooLarge { size, limit } => Status::request_entity_too_large(format!(
            "the object has {size} bytes when stored, the limit is {limit}"
        )),
        Error::Unavailable(_) => {
            tracing::warn!(%error, "the store is unavailable");
            Status::service_unavailable("the store has no leader or no quorum, try again later")
        }
    }
}

/// 500 for a failure of our own: its cause is logged and not sent.
#[must_use]
pub fn internal(action: &str, cause: &dyn std::error::Error) -> Status {
    tracing::error!(%cause, "failed to {action}");
    Status::internal(format!("failed to {action}"))
}
