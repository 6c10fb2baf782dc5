//! What a kind is: how it is named and scoped, what is served of it, and which of the registry's
//! rules are its own. Facts alone; what a kind does is [`super::strategy`].

use std::any::TypeId;

use coracle_apimachinery::gvk::{GroupKind, GroupResource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type of the Kubernetes API as `k8s-openapi` has it. Implemented for all of them.
pub trait ApiType:
    Resource
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + JsonSchema
    + Clone
    + PartialEq
    + Send
    + Sync
    + 'static
{
}

impl<T> ApiType for T where
    T: Resource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + JsonSchema
        + Clone
        + PartialEq
        + Send
        + Sync
        + 'static
{
}

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// They do.
    Namespaced,
    /// They belong to the cluster.
    Cluster,
}

/// The rule for `metadata.name` (and for generateName, which is a prefix of one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253 characters: most kinds.
    DnsSubdomain,
    /// RFC 1123 label, at most 63 characters: Namespace, Service.
    DnsLabel,
    /// Anything that can be a segment of a path: RBAC kinds, Events of v1.
    PathSegment,
    /// An IP address in its canonical form: IPAddress.
    IpAddress,
}

/// A subresource that is served below objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// `…/status`: get, update, patch.
    Status,
    /// `…/scale` as `autoscaling/v1 Scale`: get, update, patch.
    Scale,
    /// `pods/NAME/binding`: create.
    Binding,
    /// `pods/NAME/eviction`: create.
    Eviction,
    /// `pods/NAME/log`: get, proxied to the kubelet.
    Log,
    /// `pods/NAME/exec`: a WebSocket or SPDY, proxied to the kubelet.
    Exec,
    /// `pods/NAME/attach`: a WebSocket or SPDY, proxied to the kubelet.
    Attach,
    /// `pods/NAME/portforward`: a WebSocket or SPDY, proxied to the kubelet.
    PortForward,
    /// `pods/NAME/proxy`, `services/NAME/proxy`, `nodes/NAME/proxy`: HTTP of any method, and all paths
    /// below.
    Proxy,
    /// `certificatesigningrequests/NAME/approval`: get, update, patch.
    Approval,
    /// `namespaces/NAME/finalize`: update.
    Finalize,
    /// `pods/NAME/ephemeralcontainers`: get, update, patch.
    EphemeralContainers,
    /// `pods/NAME/resize`: get, update, patch.
    Resize,
    /// `serviceaccounts/NAME/token` as `authentication.k8s.io/v1 TokenRequest`: create.
    Token,
}

impl Subresource {
    /// Its name in paths.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Approval => "approval",
            Self::Finalize => "finalize",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Token => "token",
        }
    }

    /// Whether it is the object itself, of which it changes one part.
    #[must_use]
    pub fn is_part(self) -> bool {
        matches!(
            self,
            Self::Status | Self::Approval | Self::EphemeralContainers | Self::Resize
        )
    }

    /// Whether it is bytes in both directions for as long as both sides want.
    #[must_use]
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Exec | Self::Attach | Self::PortForward)
    }

    /// Whether it leads to somebody else, who may take as long as he wants.
    #[must_use]
    pub fn is_connection(self) -> bool {
        self.is_stream() || self == Self::Proxy
    }
}

/// How a kind is named and served. Read once, when the kind is registered.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind, in CamelCase.
    pub kind: String,
    /// Plural name, as in paths (`configmaps`).
    pub plural: String,
    /// Singular name (`configmap`).
    pub singular: String,
    /// Abbreviations that kubectl knows (`cm`).
    pub short_names: Vec<String>,
    /// Categories (`all`).
    pub categories: Vec<String>,
    /// Where objects live.
    pub scope: Scope,
    /// Verbs that are served; all eight unless said otherwise.
    pub verbs: Vec<String>,
    /// The rule for names.
    pub names: NameRule,
    /// Subresources that are served.
    pub subresources: Vec<Subresource>,
    /// Names of selectable fields beside `metadata.name` and `metadata.namespace`. A selector on
    /// another field is refused with 400.
    pub fields: Vec<String>,
    /// Whether `metadata.generation` is kept: 1 at creation, advanced when
    /// [`Strategy::spec_changed`] and when deletion begins.
    pub generation: bool,
    /// Whether an update (PUT or patch) of an object that does not exist creates it.
    pub create_on_update: bool,
    /// Whether an update without a resourceVersion is taken (most kinds).
    pub unconditional_update: bool,
    /// Segment of the store's keys. Two kinds that are two views of the same objects (Event in
    /// v1 and in events.k8s.io) share it; `group/plural`, or `plural` in the core group.
    pub storage: String,
    /// Whether stored bytes are of another group-version than this kind's, so that
    /// [`Strategy::decode_stored`] and [`Strategy::encode_stored`] translate.
    pub converted: bool,
    /// Whether objects are computed when they are asked for, and none is stored.
    pub computed: bool,
    /// Whether a delete answers with the object where that is gone, in the place of a Status.
    pub returns_deleted: bool,
    /// Whether the garbage collector looks at objects: else nobody would take its finalizers away.
    pub collected: bool,
    /// Whether what an object owns stays when it is deleted by who does not say (most: it goes).
    pub orphans: bool,
    /// What clients are told of the kind's version in every answer, where it is deprecated.
    pub deprecation: Option<String>,
}

impl Descriptor {
    /// The usual descriptor of a type: names and scope as `k8s-openapi` has them, every verb,
    /// subdomain names, no subresources, no generation.
    #[must_use]
    pub fn of<T: ApiType>() -> Self {
        let scope = if TypeId::of::<T::Scope>() == TypeId::of::<NamespaceResourceScope>() {
            Scope::Namespaced
        } else {
            Scope::Cluster
        };
        let plural = T::URL_PATH_SEGMENT.to_owned();
        let storage = if T::GROUP.is_empty() {
            plural.clone()
        } else {
            format!("{}/{plural}", T::GROUP)
        };
        Self {
            group: T::GROUP.to_owned(),
            version: T::VERSION.to_owned(),
            kind: T::KIND.to_owned(),
            singular: T::KIND.to_lowercase(),
            plural,
            short_names: Vec::new(),
            categories: Vec::new(),
            scope,
            verbs: [
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ]
            .map(str::to_owned)
            .to_vec(),
            names: NameRule::DnsSubdomain,
            subresources: Vec::new(),
            fields: Vec::new(),
            generation: false,
            create_on_update: false,
            unconditional_update: true,
            storage,
            converted: false,
            computed: false,
            returns_deleted: false,
            collected: true,
            orphans: false,
            deprecation: None,
        }
    }

    /// With these abbreviations.
    #[must_use]
    pub fn short_names(mut self, names: &[&str]) -> Self {
        self.short_names = names.iter().map(|&n| n.to_owned()).collect();
        self
    }

    /// In these categories.
    #[must_use]
    pub fn categories(mut self, categories: &[&str]) -> Self {
        self.categories = categories.iter().map(|&n| n.to_owned()).collect();
        self
    }

    /// With this rule for names.
    #[must_use]
    pub fn names(mut self, rule: NameRule) -> Self {
        self.names = rule;
        self
    }

    /// With these subresources.
    #[must_use]
    pub fn subresources(mut self, subresources: &[Subresource]) -> Self {
        self.subresources = subresources.to_vec();
        self
    }

    /// With these selectable fields.
    #[must_use]
    pub fn fields(mut self, fields: &[&str]) -> Self {
        self.fields = fields.iter().map(|&n| n.to_owned()).collect();
        self
    }

    /// With `metadata.generation` kept.
    #[must_use]
    pub fn generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// With creation by update.
    #[must_use]
    pub fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    /// With a resourceVersion demanded of every update.
    #[must_use]
    pub fn conditional_update(mut self) -> Self {
        self.unconditional_update = false;
        self
    }

    /// As a view of objects that another kind stores under `storage`.
    #[must_use]
    pub fn view_of(mut self, storage: &str) -> Self {
        self.storage = storage.to_owned();
        self.converted = true;
        self
    }

    /// As one of which nothing is stored, with the verbs that make an object.
    #[must_use]
    pub fn computed(mut self, verbs: &[&str]) -> Self {
        self.computed = true;
        self.verbs = verbs.iter().map(|&verb| verb.to_owned()).collect();
        self
    }

    /// Without this verb.
    #[must_use]
    pub fn without(mut self, verb: &str) -> Self {
        self.verbs.retain(|served| served != verb);
        self
    }

    /// As one of which a delete answers with the object.
    #[must_use]
    pub fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    /// As one that owns nothing, and that the garbage collector leaves alone.
    #[must_use]
    pub fn uncollected(mut self) -> Self {
        self.collected = false;
        self
    }

    /// As one whose dependents stay unless the delete says otherwise: it was so before there was
    /// a garbage collector, and clients rely on it.
    #[must_use]
    pub fn orphans(mut self) -> Self {
        self.orphans = true;
        self
    }

    /// As one whose version is deprecated, with what is said of that.
    #[must_use]
    pub fn deprecated(mut self, warning: &str) -> Self {
        self.deprecation = Some(warning.to_owned());
        self
    }

    /// `v1`, or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, or `deployments.apps`: the resource as errors name it.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group.clone(), self.plural.clone())
    }

    /// The kind as errors of validation name it.
    #[must_use]
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.group.clone(), self.kind.clone())
    }

    /// Whether objects live in namespaces.
    #[must_use]
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The subresource of this name in paths, where it is served.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        let mut all = self.subresources.iter().copied();
        all.find(|known| known.name() == name)
    }

    /// Whether it serves the subresource.
    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}
