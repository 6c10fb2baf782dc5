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

pub(super) use binding::{MutatingBindingStrategy, ValidatingBindingStrategy};
pub(super) use policy::{MutatingPolicyStrategy, ValidatingPolicyStrategy};
pub(super) use webhook::{MutatingWebhookStrategy, ValidatingWebhookStrategy};

/// The category of what extends the API.
const CATEGORY: &str = "api-extensions";
/// What a cell shows of what is not there.
const UNSET: &str = "<unset>";
