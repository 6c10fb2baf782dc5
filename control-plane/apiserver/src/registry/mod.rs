//! The generic registry: every verb for every kind, written once over [`strategy::Strategy`].
//!
//! | module | does |
//! |---|---|
//! | [`strategy`] with `descriptor`, [`kinds`], [`erased`], [`lookup`] | the kinds |
//! | [`encoding`], `set_text` | objects as the store holds them and as clients see them |
//! | [`create`], [`update`], [`delete`], [`list`], [`watch`] | the verbs |
//! | [`continuation`] | the tokens by which lists go on |
//! | [`apply`], [`managed`] | server-side apply, and who manages which field |
//! | [`meta`] | what is kept and checked in every ObjectMeta |
//! | [`service_addresses`] | cluster IPs and node ports |
//!
//! The registry owns no state but the store's: everything durable is a key there. It knows
//! nothing of HTTP.

pub mod apply;
pub mod continuation;
pub mod create;
pub mod delete;
mod descriptor;
pub mod encoding;
pub mod erased;
pub mod errors;
pub mod kinds;
pub mod list;
pub mod lookup;
mod managed;
pub mod meta;
pub mod printing;
pub mod service_addresses;
mod set_text;
pub mod strategy;
pub mod update;
pub mod watch;
mod zero_times;

use std::sync::Arc;

use coracle_apimachinery::status::Status;
use coracle_store::{Read, Record, Store, Value};
use parking_lot::Mutex;

use crate::admission::Admission;
use crate::auth::UserInfo;
use crate::metrics::admission::AdmissionMetrics;
use crate::request::options::ListOptions;
use erased::{Kind, Object};
use lookup::Kinds;
pub use managed::FieldManager;
use service_addresses::ServiceAddresses;
use strategy::{ApiType, Descriptor};

/// All objects have keys below this prefix.
pub const PREFIX: &str = "/registry/";

/// The registry.
pub struct Registry {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kinds: Kinds,
    pub(crate) admission: Vec<Box<dyn Admission>>,
    pub(crate) services: ServiceAddresses,
    pub(crate) admitted: AdmissionMetrics,
}

/// One object that a request is about.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Its kind.
    pub kind: &'a Arc<dyn Kind>,
    /// Its namespace; empty for a kind of the cluster.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Target<'_> {
    /// Its key in the store.
    #[must_use]
    pub fn key(&self) -> String {
        key(self.kind.descriptor(), self.namespace, self.name)
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.kind.descriptor().group_resource(), self.name)
    }

    pub(crate) fn conflict(&self, cause: impl std::fmt::Display) -> Status {
        Status::conflict(&self.kind.descriptor().group_resource(), self.name, cause)
    }

    pub(crate) fn store_error(&self, error: &coracle_store::Error) -> Status {
        errors::from_store(self.kind.descriptor(), self.name, error)
    }
}

/// The key of an object.
#[must_use]
pub fn key(descriptor: &Descriptor, namespace: &str, name: &str) -> String {
    format!("{}{name}", prefix(descriptor, namespace))
}

/// The prefix of the keys of a kind's objects, in one namespace or (empty) in all.
#[must_use]
pub fn prefix(descriptor: &Descriptor, namespace: &str) -> String {
    if namespace.is_empty() || !descriptor.is_namespaced() {
        format!("{PREFIX}{}/", descriptor.storage)
    } else {
        format!("{PREFIX}{}/{namespace}/", descriptor.storage)
    }
}

/// The name of the object at a key, which ends with it.
#[must_use]
pub fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}

/// The namespace of the object at a key, of a kind that is namespaced.
#[must_use]
pub fn namespace_of(key: &str) -> &str {
    key.rsplit('/').nth(1).unwrap_or_default()
}

/// What a mutation did.
pub struct Outcome {
    /// The object as it is stored now; of revision 0 where a dry run created it.
    pub record: Record,
    /// Whether it was created.
    pub created: bool,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

/// Who mutates, and how.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The authenticated user.
    pub user: &'a UserInfo,
    /// Whether everything is done but the writing.
    pub dry_run: bool,
    /// Who manages what is written.
    pub manager: FieldManager<'a>,
    /// Where warnings go of what is refused, for who is told of them.
    pub noted: Option<&'a Mutex<Vec<String>>>,
}

impl Caller<'_> {
    /// Encodes what the caller writes. Only of an apply are the sets of managers text.
    fn encode(&self, kind: &dyn Kind, object: &mut dyn Object) -> Result<Value, Status> {
        match self.manager {
            FieldManager::Settled => encoding::encode_applied(kind, object),
            FieldManager::Update(_) => encoding::encode(kind, object),
        }
    }

    /// Passes on what was collected until a request was refused: what it says of an object may be
    /// why.
    fn note(&self, warnings: Vec<String>) {
        if let Some(noted) = self.noted {
            noted.lock().extend(warnings);
        }
    }
}

impl Registry {
    /// A registry of these kinds over a store.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        kinds: Kinds,
        admission: Vec<Box<dyn Admission>>,
        services: ServiceAddresses,
    ) -> Self {
        Self {
            store,
            kinds,
            admission,
            services,
            admitted: AdmissionMetrics::default(),
        }
    }

    /// The kinds that are served.
    #[must_use]
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads an object.
    ///
    /// # Errors
    /// 404 where there is none.
    pub async fn get(&self, target: Target<'_>, read: Read) -> Result<Record, Status> {
        match self.store.get(&target.key(), read).await {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(target.not_found()),
            Err(error) => Err(target.store_error(&error)),
        }
    }

    /// Reads an object of a built-in type from what is at hand, for admission; the newest state
    /// is asked for only where nothing is found.
    ///
    /// # Errors
    /// Where the store cannot answer.
    pub async fn find<T: ApiType>(&self, namespace: &str, name: &str) -> Result<Option<T>, Status> {
        let Ok(kind) = self.kind_of::<T>() else {
            return Ok(None);
        };
        for read in [Read::AtLeast(0), Read::Latest] {
            if let Some(record) = self.find_record::<T>(namespace, name, read).await? {
                return typed(encoding::decode(&**kind, &record)?).map(Some);
            }
        }
        Ok(None)
    }

    /// Reads an object of a built-in type as it is stored.
    ///
    /// # Errors
    /// Where the store cannot answer.
    pub async fn find_record<T: ApiType>(
        &self,
        namespace: &str,
        name: &str,
        read: Read,
    ) -> Result<Option<Record>, Status> {
        let target = Target {
            kind: self.kind_of::<T>()?,
            namespace,
            name,
        };
        let found = self.store.get(&target.key(), read).await;
        found.map_err(|error| target.store_error(&error))
    }

    /// All objects of a built-in type in a namespace (of a kind of the cluster: in the empty one)
    /// as they are at hand, for admission.
    ///
    /// # Errors
    /// Where the store cannot answer.
    pub async fn find_all<T: ApiType>(&self, namespace: &str) -> Result<Vec<T>, Status> {
        let Ok(kind) = self.kind_of::<T>() else {
            return Ok(Vec::new());
        };
        let options = ListOptions {
            resource_version: Some(0),
            ..ListOptions::default()
        };
        let page = self.list(&**kind, namespace, &options).await?;
        let decoded = page
            .records
            .iter()
            .map(|record| typed(encoding::decode(&**kind, record)?));
        decoded.collect()
    }

    /// The kind of a built-in type.
    ///
    /// # Errors
    /// 500 where it is not registered.
    pub fn kind_of<T: ApiType>(&self) -> Result<&Arc<dyn Kind>, Status> {
        self.kinds
            .resource(T::GROUP, T::VERSION, T::URL_PATH_SEGMENT)
            .ok_or_else(|| Status::internal(format!("{} is not served", T::URL_PATH_SEGMENT)))
    }
}

/// The object as the type that it is known to have.
pub(crate) fn typed<T: ApiType>(object: Box<dyn Object>) -> Result<T, Status> {
    object
        .as_any()
        .downcast_ref::<T>()
        .cloned()
        .ok_or_else(|| Status::internal(format!("an object is no {}", T::KIND)))
}
