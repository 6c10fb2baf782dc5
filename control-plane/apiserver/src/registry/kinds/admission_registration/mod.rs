//! Who is asked before objects are written: webhooks, policies and the bindings of policies.
//!
//! Deliberately absent: asking them. What is written down here is kept and checked, and has its
//! place in the order of admission (`admission/`), where nobody calls it yet. So is a check that
//! who writes a policy may read its parameters: it belongs to the authorizer of roles.

mod binding;
mod defaults;
mod policy;
#[cfg(test)]
mod tests;
mod webhook;

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::registry::strategy::ErrorList;
use crate::validation::{cel, text};

pub(super) use binding::{MutatingBindingStrategy, ValidatingBindingStrategy};
pub(super) use policy::{MutatingPolicyStrategy, ValidatingPolicyStrategy};
pub(super) use webhook::{MutatingWebhookStrategy, ValidatingWebhookStrategy};

/// The category of what extends the API.
const CATEGORY: &str = "api-extensions";
/// What a cell shows of what is not there.
const UNSET: &str = "<unset>";

/// The end of names of what files at a server's start would say, which this one has none of.
const STATIC: &str = ".static.k8s.io";

fn static_warnings(meta: &ObjectMeta) -> Vec<String> {
    let is_static = text(&meta.name).ends_with(STATIC);
    let warning = is_static.then(|| {
        format!(
            "metadata.name: names ending with {STATIC:?} are reserved for static manifest-based configurations and cannot be managed via the API"
        )
    });
    warning.into_iter().collect()
}

/// A validation that compiles expressions, which is not done where requests are served.
fn compiling(validate: impl FnOnce() -> ErrorList + Send) -> ErrorList {
    cel::apart(validate).unwrap_or_else(|error| Error::internal(&Path::new("spec"), &error).into())
}
