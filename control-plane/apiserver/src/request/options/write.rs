//! How writes are done, and what becomes of what is deleted.

use coracle_apimachinery::field::{Error as FieldError, ErrorList, Path};
use coracle_apimachinery::status::Status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};

use super::{Query, group_kind};

/// How unknown and duplicate fields of a body are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Silently dropped.
    Ignore,
    /// Dropped, and told of in a Warning header.
    #[default]
    Warn,
    /// Refused with 400.
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// Everything is done but the writing.
    pub dry_run: bool,
    /// How unknown fields are met.
    pub field_validation: FieldValidation,
}

impl WriteOptions {
    /// Reads those of a verb.
    ///
    /// # Errors
    /// 422 for values that are not known.
    pub fn parse(query: &Query, verb: &str) -> Result<Self, Status> {
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            _ => "PatchOptions",
        };
        let mut errors = ErrorList::default();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let at = Path::new("fieldValidation");
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported(&at, other, &supported));
                FieldValidation::default()
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid(&group_kind(kind), "", errors));
        }
        Ok(Self {
            dry_run,
            field_validation,
        })
    }
}

/// Whether nothing is to be kept. Who says it in another way than this server knows must not find it
/// done: not even by an empty text.
fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut ErrorList) -> bool {
    let values: Vec<&str> = values.collect();
    let dry = !values.is_empty();
    if values.iter().any(|value| *value != "All") {
        let at = Path::new("dryRun");
        errors.push(FieldError::not_supported(&at, values, &["All"]));
    }
    dry
}

/// What becomes of the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without the owner.
    Orphan,
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
}

const DELETE_OPTIONS: &str = "DeleteOptions";

/// Options of delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteRequest {
    /// Seconds until the object is gone; `None` leaves it to the kind.
    pub grace_period: Option<i64>,
    /// What becomes of dependents; `None` leaves it to the kind.
    pub propagation: Option<Propagation>,
    /// Whether `orphanDependents` says that they go: what waits is accepted (202) then.
    pub cascades: bool,
    /// UID that the object must have.
    pub uid: Option<String>,
    /// Resource version that the object must have.
    pub resource_version: Option<String>,
    /// Everything is done but the writing.
    pub dry_run: bool,
}

impl DeleteRequest {
    /// Reads them from the query and the body; where there is a body it alone counts, as in
    /// Kubernetes.
    ///
    /// # Errors
    /// 400 for values that do not parse, 422 for those that are not known.
    pub fn parse(query: &Query, body: Option<DeleteOptions>) -> Result<Self, Status> {
        let demanded = |name| query.get(name).filter(|value| !value.is_empty());
        let options = match body {
            Some(body) => body,
            None => DeleteOptions {
                // Those of a collection are demanded of each of its objects, as in Kubernetes.
                preconditions: Some(Preconditions {
                    uid: demanded("uid").map(str::to_owned),
                    resource_version: demanded("resourceVersion").map(str::to_owned),
                }),
                grace_period_seconds: query.number("gracePeriodSeconds")?,
                propagation_policy: query.get("propagationPolicy").map(str::to_owned),
                orphan_dependents: query.flag("orphanDependents"),
                dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
                ..DeleteOptions::default()
            },
        };
        Self::from_options(options)
    }

    /// Checks the options of the API.
    ///
    /// # Errors
    /// 400 for values that do not parse, 422 for those that are not known.
    pub fn from_options(options: DeleteOptions) -> Result<Self, Status> {
        if options
            .grace_period_seconds
            .is_some_and(|seconds| seconds < 0)
        {
            // What the API once took for "now": one second.
            return Self::from_options(DeleteOptions {
                grace_period_seconds: Some(1),
                ..options
            });
        }
        let mut errors = ErrorList::default();
        let policy = options.propagation_policy.as_deref();
        let at = Path::new("propagationPolicy");
        if let (Some(policy), Some(_)) = (policy, options.orphan_dependents) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&at, policy, detail));
        }
        let propagation = match (policy, options.orphan_dependents) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some(other), _) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&at, other, &supported));
                None
            }
            (None, None) => None,
        };
        let dry_run = {
            let values = options.dry_run.iter().flatten();
            dry_run(values.map(String::as_str), &mut errors)
        };
        if !errors.is_empty() {
            return Err(Status::invalid(&group_kind(DELETE_OPTIONS), "", errors));
        }
        let preconditions = options.preconditions.unwrap_or_default();
        Ok(Self {
            grace_period: options.grace_period_seconds,
            propagation,
            cascades: options.orphan_dependents == Some(false),
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            dry_run,
        })
    }
}
