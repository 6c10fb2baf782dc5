//! Handlers: from a request that has been authorized to a response.
//!
//! [`dispatch`] chooses by the verb and the subresource; the modules do the verbs.

mod apply;
mod components;
pub(crate) mod compress;
mod computed;
mod decode;
pub(crate) mod encode;
mod eviction;
mod finalize;
mod log;
pub(crate) mod patch;
mod pods;
pub(crate) mod pretty;
mod proxy;
mod read;
mod reviews;
mod scale;
mod shapes;
mod streaming;
mod token;
pub(crate) mod usage;
mod watch;
pub(crate) mod websocket;
mod write;

use std::sync::Arc;

use axum::body::Body;
use coracle_apimachinery::status::Status;
use coracle_store::Read;
use http::Response;
use http::request::Parts;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use crate::audit::trail::Trail;
use crate::auth::UserInfo;
use crate::auth::authorization::authorize;
use crate::flow::Permit;
use crate::registry::erased::Kind;
use crate::registry::strategy::{ApiType, Subresource};
use crate::registry::{Caller, Target, encoding, typed};
use crate::request::info::RequestInfo;
use crate::request::options::Query;
use crate::server::Inner;

/// A request for an object or objects of a kind.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Arc<Inner>,
    pub(crate) kind: &'a Arc<dyn Kind>,
    pub(crate) info: &'a RequestInfo,
    pub(crate) query: &'a Query,
    pub(crate) parts: &'a Parts,
    pub(crate) user: &'a UserInfo,
    /// What flow control has given it. A watch takes them along until it has sent the state with
    /// which it begins; all others keep them until the answer has been sent.
    pub(crate) seats: &'a Mutex<Option<Permit>>,
    /// Where it is audited, if it is.
    pub(crate) trail: Option<&'a Trail>,
    /// Warnings that its client is told also if it is refused.
    pub(crate) noted: &'a Mutex<Vec<String>>,
}

impl<'a> Call<'a> {
    /// The namespace, as the registry means it: empty for kinds of the cluster.
    pub(crate) fn namespace(&self) -> &'a str {
        if self.kind.descriptor().is_namespaced() {
            &self.info.namespace
        } else {
            ""
        }
    }

    pub(crate) fn target(&self) -> Target<'a> {
        Target {
            kind: self.kind,
            namespace: self.namespace(),
            name: &self.info.name,
        }
    }

    pub(crate) fn caller(&self, dry_run: bool) -> Caller<'a> {
        Caller {
            user: self.user,
            dry_run,
            manager: apply::field_manager(self.query, &self.parts.headers, self.user),
            noted: Some(self.noted),
        }
    }

    /// The subresource that it names, where its kind has it.
    fn subresource(&self) -> Option<Subresource> {
        self.kind.descriptor().subresource(&self.info.subresource)
    }

    /// Notes an object that was sent: what it is called, for who audits, and what field validation
    /// has found in it.
    fn sent(&self, meta: &ObjectMeta, warnings: &[String]) {
        if let Some(trail) = self.trail {
            trail.sent(meta);
        }
        self.note(warnings);
    }

    /// Tells who audits of something that the answer does not show.
    fn annotate(&self, key: &'static str, value: String) {
        if let Some(trail) = self.trail {
            trail.annotate(key, value);
        }
    }

    /// Notes what field validation has found in what was sent: a field that is misspelt may be why
    /// the object is refused.
    fn note(&self, warnings: &[String]) {
        *self.noted.lock() = warnings.to_vec();
    }

    /// Whether who may change an object may also create it, where it is missing.
    ///
    /// # Errors
    /// 403.
    fn may_create(&self) -> Result<(), Status> {
        let create = RequestInfo {
            verb: "create".to_owned(),
            ..self.info.clone()
        };
        authorize(self.user, &create)
    }

    fn refuse(&self) -> Status {
        Status::method_not_supported(&self.kind.descriptor().group_resource(), &self.info.verb)
    }
}

/// An object as it is in the store now.
async fn newest<T: ApiType>(call: &Call<'_>, namespace: &str, name: &str) -> Result<T, Status> {
    let registry = &call.server.registry;
    let target = Target {
        kind: registry.kind_of::<T>()?,
        namespace,
        name,
    };
    let record = registry.get(target, Read::Latest).await?;
    typed(encoding::decode(&**target.kind, &record)?)
}

/// Answers a request for a resource.
pub(crate) async fn dispatch(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let descriptor = call.kind.descriptor();
    let info = call.info;
    let misplaced =
        !descriptor.is_namespaced() && !info.namespace.is_empty() && info.resource != "namespaces";
    // What follows a proxy's name is the other side's.
    let proxied = call.subresource() == Some(Subresource::Proxy);
    // Only objects are watched.
    let below = info.watched && !info.subresource.is_empty();
    if misplaced || below || !(info.rest.is_empty() || proxied) {
        return Err(Status::unknown_path());
    }
    if info.watched && info.verb != "watch" {
        return Err(call.refuse());
    }
    if descriptor.computed {
        return computed::answer(call, body).await;
    }
    if descriptor.is_namespaced() && info.namespace.is_empty() {
        // All namespaces at once can only be read.
        return match (info.verb.as_str(), info.is_of_collection()) {
            ("list", _) => read::list(call).await,
            ("watch", true) => watch::watch(call).await,
            (_, true) => Err(call.refuse()),
            _ => Err(Status::unknown_path()),
        };
    }
    if proxied {
        return proxy::answer(call, body).await;
    }
    apply::check_options(call)?;
    if !info.subresource.is_empty() {
        return subresource(call, body).await;
    }
    if !descriptor.verbs.contains(&info.verb) {
        return Err(call.refuse());
    }
    match (info.verb.as_str(), info.is_of_collection()) {
        ("get", false) => read::get(call).await,
        ("list", true) => read::list(call).await,
        ("watch", _) => watch::watch(call).await,
        ("create", true) => write::create(call, body).await,
        ("update", false) => write::update(call, body).await,
        ("patch", false) => patch::patch(call, body).await,
        ("delete", false) => write::delete(call, body).await,
        ("deletecollection", true) => write::delete_collection(call, body).await,
        _ => Err(call.refuse()),
    }
}

async fn subresource(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let known = call.subresource().ok_or_else(Status::unknown_path)?;
    match (known, call.info.verb.as_str()) {
        (part, "get") if part.is_part() => read::get(call).await,
        (part, "update") if part.is_part() => write::replace(call, body, patch::part(call)).await,
        (part, "patch") if part.is_part() => patch::patch(call, body).await,
        (Subresource::Scale, "get") => scale::get(call).await,
        (Subresource::Scale, "update") => scale::update(call, body).await,
        (Subresource::Scale, "patch") => scale::patch(call, body).await,
        (Subresource::Binding, "create") => pods::bind(call, body).await,
        (Subresource::Eviction, "create") => eviction::evict(call, body).await,
        (Subresource::Log, "get") => log::log(call).await,
        (stream, "get" | "create") if stream.is_stream() => streaming::answer(call, stream).await,
        (Subresource::Finalize, "update") => finalize::update(call, body).await,
        (Subresource::Token, "create") => token::create(call, body).await,
        _ => Err(call.refuse()),
    }
}
