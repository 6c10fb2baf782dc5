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

use crate::registry::strategy::ErrorList;
use crate::validation::cel;

pub(super) use binding::{MutatingBindingStrategy, ValidatingBindingStrategy};
pub(super) use policy::{MutatingPolicyStrategy, ValidatingPolicyStrategy};
pub(super) use webhook::{MutatingWebhookStrategy, ValidatingWebhookStrategy};

/// The category of what extends the API.
const CATEGORY: &str = "api-extensions";
/// What a cell shows of what is not there.
const UNSET: &str = "<unset>";

/// A validation that compiles expressions, which is not done where requests are served.
fn compiling(validate: impl FnOnce() -> ErrorList + Send) -> ErrorList {
    cel::apart(validate).unwrap_or_else(|error| vec![Error::internal(&Path::new("spec"), &error)])
}
