//! List: pages of stored bytes, chosen by selectors without decoding anything.

use coracle_apimachinery::selector::{FieldSelector, Selector};
use coracle_apimachinery::status::Status;
use coracle_store::{Error, ListOptions as StoreOptions, Read, Record, Revision};

use super::continuation::Continuation;
use super::erased::Kind;
use super::strategy::Descriptor;
use super::{Registry, errors, name_of, namespace_of, prefix};
use crate::request::options::{ListOptions, VersionMatch};

/// Records read at once while a selector looks for those that match.
const SCAN: usize = 1000;

/// Records whose mean size is taken for that of all.
const SAMPLE: usize = 100;

/// Which objects of a kind are wanted.
pub struct Selection {
    labels: Selector,
    fields: FieldSelector,
    namespaced: bool,
}

impl Selection {
    /// Reads the selectors of a request.
    ///
    /// # Errors
    /// 400 where one does not parse, or names a field by which the kind cannot be selected.
    pub fn parse(kind: &dyn Kind, options: &ListOptions) -> Result<Self, Status> {
        let labels = Selector::parse(&options.label_selector).map_err(|error| {
            Status::bad_request(format!("unable to parse requirement: {error}"))
        })?;
        let fields = FieldSelector::parse(&options.field_selector)
            .map_err(|error| Status::bad_request(format!("invalid field selector: {error}")))?;
        let descriptor = kind.descriptor();
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            // Kinds without fields of their own have both, also those of the cluster, whose
            // namespace is empty.
            let has_namespace = descriptor.is_namespaced() || descriptor.fields.is_empty();
            let known = field == "metadata.name"
                || (field == "metadata.namespace" && has_namespace)
                || descriptor.fields.iter().any(|known| known == field);
            if !known {
                return Err(Status::bad_request(unknown_field(descriptor, field)));
            }
        }
        Ok(Self {
            labels,
            fields,
            namespaced: descriptor.is_namespaced(),
        })
    }

    /// Whether everything is wanted.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether a record is wanted.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let (labels, fields) = (record.value().labels(), record.value().fields());
        self.labels.matches_by(|label| labels.get(label))
            && self.fields.matches(|field| match field {
                "metadata.name" => Some(name_of(record.key())),
                "metadata.namespace" if self.namespaced => Some(namespace_of(record.key())),
                _ => fields.get(field),
            })
    }

    /// The keys to look through: those of a namespace, or of one object where a selector names it.
    #[must_use]
    pub fn prefix(&self, kind: &dyn Kind, namespace: &str) -> String {
        let descriptor = kind.descriptor();
        let namespace = if namespace.is_empty() {
            self.fields.exact("metadata.namespace").unwrap_or_default()
        } else {
            namespace
        };
        let mut prefix = prefix(descriptor, namespace);
        if !descriptor.is_namespaced() || !namespace.is_empty() {
            // Longer names begin alike: the selector still decides.
            prefix.push_str(self.fields.exact("metadata.name").unwrap_or_default());
        }
        prefix
    }
}

/// What is said of a field by which a kind cannot be selected.
fn unknown_field(descriptor: &Descriptor, field: &str) -> String {
    if descriptor.fields.is_empty() {
        return format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }
    format!("field label not supported: {field}")
}

/// A page of a list.
pub struct Page {
    /// The objects.
    pub records: Vec<Record>,
    /// The revision of the state that was listed.
    pub revision: Revision,
    /// How to go on; empty where this is all.
    pub continue_token: String,
    /// How many are left, where that is known.
    pub remaining: Option<usize>,
}

/// What is stored of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Objects.
    pub(crate) count: usize,
    /// Bytes of one, in the mean of some.
    pub(crate) size: usize,
}

impl Registry {
    /// Lists objects of a kind, in a namespace or (empty) in all.
    ///
    /// # Errors
    /// 400 for selectors and tokens that do not parse, 410 where the revision is gone, 504 where
    /// it is not reached yet.
    pub async fn list(
        &self,
        kind: &dyn Kind,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Page, Status> {
        let selection = Selection::parse(kind, options)?;
        let prefix = selection.prefix(kind, namespace);
        let (read, start) = if options.continue_token.is_empty() {
            (freshness(options), None)
        } else {
            let token = Continuation::parse(&options.continue_token)?;
            (token.read(), Some(format!("{prefix}{}", token.start())))
        };
        let page = self
            .page(&selection, &prefix, read, start.clone(), options.limit)
            .await;
        page.map_err(|error| match (&error, start) {
            (Error::Expired { .. }, Some(start)) => continue_expired(&start[prefix.len()..]),
            _ => errors::from_store(kind.descriptor(), "", &error),
        })
    }

    /// How many objects of a kind are at hand.
    pub(crate) async fn count(&self, descriptor: &Descriptor) -> coracle_store::Result<usize> {
        Ok(self.some(descriptor, 1).await?.count)
    }

    /// How many objects of a kind are at hand, and how large the first of them are.
    pub(crate) async fn stored(&self, descriptor: &Descriptor) -> coracle_store::Result<Stored> {
        self.some(descriptor, SAMPLE).await
    }

    async fn some(&self, descriptor: &Descriptor, limit: usize) -> coracle_store::Result<Stored> {
        let some = StoreOptions {
            read: Read::AtLeast(0),
            limit,
            start_after: None,
        };
        let list = self.store.list(&prefix(descriptor, ""), some).await?;
        let sizes = list
            .records
            .iter()
            .map(|record| record.value().json().len());
        Ok(Stored {
            size: sizes.sum::<usize>() / list.records.len().max(1),
            count: list.records.len() + list.remaining.unwrap_or(0),
        })
    }

    async fn page(
        &self,
        selection: &Selection,
        prefix: &str,
        read: Read,
        start: Option<String>,
        limit: usize,
    ) -> coracle_store::Result<Page> {
        if selection.is_everything() {
            let options = StoreOptions {
                read,
                limit,
                start_after: start,
            };
            let list = self.store.list(prefix, options).await?;
            let last = list.records.last().filter(|_| list.remaining.is_some());
            let continue_token = last.map_or_else(String::new, |last| {
                continuation(list.revision, prefix, last)
            });
            return Ok(Page {
                records: list.records,
                revision: list.revision,
                continue_token,
                remaining: list.remaining,
            });
        }
        let mut page = Page {
            records: Vec::new(),
            revision: 0,
            continue_token: String::new(),
            remaining: None,
        };
        let mut options = StoreOptions {
            read,
            limit: SCAN,
            start_after: start,
        };
        loop {
            let list = self.store.list(prefix, options.clone()).await?;
            page.revision = list.revision;
            let more = list.remaining.is_some();
            options.read = Read::Exact(list.revision);
            options.start_after = list.records.last().map(|record| record.key().to_owned());
            for record in list.records {
                if !selection.matches(&record) {
                    continue;
                }
                if limit > 0 && page.records.len() == limit {
                    // One more than fits: there is another page, which begins after the last.
                    let last = page.records.last();
                    page.continue_token = last.map_or_else(String::new, |last| {
                        continuation(page.revision, prefix, last)
                    });
                    return Ok(page);
                }
                page.records.push(record);
            }
            if !more {
                return Ok(page);
            }
            // What the store has at hand it gives at once: others have their turn in between.
            tokio::task::yield_now().await;
        }
    }
}

/// How fresh a list must be, by the rules of the resourceVersion parameter.
fn freshness(options: &ListOptions) -> Read {
    match (options.resource_version, options.version_match) {
        (None, _) => Read::Latest,
        (Some(0), _) => Read::AtLeast(0),
        (Some(version), Some(VersionMatch::Exact)) => Read::Exact(version),
        (Some(version), Some(VersionMatch::NotOlderThan)) => Read::AtLeast(version),
        (Some(version), None) if options.limit > 0 => Read::Exact(version),
        (Some(version), None) => Read::AtLeast(version),
    }
}

fn continuation(revision: Revision, prefix: &str, last: &Record) -> String {
    let start = last.key().strip_prefix(prefix).unwrap_or_default();
    Continuation::at(revision, start).token()
}

/// 410 with a token that goes on from the same place in the newest state.
fn continue_expired(start: &str) -> Status {
    let status = Status::expired(
        "the continue token is too old for a consistent list; start the list again without it, or \
         go on with the token in this response, which shows the remaining objects as they are now",
    );
    let mut api = status.into_api();
    api.metadata.continue_ = Some(Continuation::inconsistent(start).token());
    api.into()
}
