//! How long admission takes, by its two steps.
//!
//! Deliberately absent: the same by plugin. All plugins are asked about every write, and most have
//! nothing to say of it: to measure them would take longer than they do.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Metered;

use crate::admission::Operation;

const SECONDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

/// A step of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The object is changed.
    Admit,
    /// The object is judged as it would be stored.
    Validate,
}

/// The metrics of admission.
pub(crate) struct AdmissionMetrics {
    steps: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Default for AdmissionMetrics {
    fn default() -> Self {
        Self {
            steps: Family::new_with_constructor(|| Histogram::new(SECONDS)),
        }
    }
}

impl AdmissionMetrics {
    /// Registers them below `apiserver`.
    pub(super) fn register(&self, registry: &mut Metered) {
        registry.register(
            "admission_step_admission_duration_seconds",
            "How long all plugins together took in a step of admission, in seconds",
            self.steps.clone(),
        );
    }

    /// Counts a step that is over.
    pub(crate) fn step(&self, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let labels = Labels {
            r#type: match step {
                Step::Admit => "admit",
                Step::Validate => "validate",
            },
            operation: match operation {
                Operation::Create => "CREATE",
                Operation::Update => "UPDATE",
                Operation::Delete => "DELETE",
            },
            rejected: if rejected { "true" } else { "false" },
        };
        self.steps
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }
}
