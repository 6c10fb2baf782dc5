//! Which runtime runs a container.
//!
//! The image decides: WebAssembly goes to the runtime `wasm`, a root file system to `oci`. A
//! RuntimeClass with a handler overrides it: a runtime of the machine may have several
//! ([`RuntimeService::handlers`]). There is no fallback from one to the other.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_runtime::{GuestUser, RuntimeService};

use crate::images::Kind;

/// Why no runtime fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("no runtime for handler \"{handler}\" is configured on this node, which has: {known}")]
    UnknownHandler { handler: String, known: String },
    #[error(
        "the image holds a container's root file system, and this node runs WebAssembly only: \
         push a WebAssembly module, or start the node as root with a container runtime"
    )]
    NoContainers,
    #[error("the image holds WebAssembly, and this node has no runtime for it")]
    NoWasm,
}

/// The runtimes of the node.
#[derive(Clone)]
pub(crate) struct Router {
    runtimes: Arc<[Arc<dyn RuntimeService>]>,
}

impl Router {
    pub(crate) fn new(runtimes: Vec<Arc<dyn RuntimeService>>) -> Self {
        let runtimes = runtimes.into();
        Self { runtimes }
    }

    pub(crate) fn all(&self) -> &[Arc<dyn RuntimeService>] {
        &self.runtimes
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<dyn RuntimeService>> {
        self.runtimes.iter().find(|runtime| runtime.name() == name)
    }

    /// What all containers of a Pod with that handler are run as, where images do not decide.
    pub(crate) fn only(&self, handler: Option<&str>) -> Option<Kind> {
        match handler {
            Some("wasm") => Some(Kind::Wasm),
            Some(_) => Some(Kind::Container),
            None if self.by_name("oci").is_none() => Some(Kind::Wasm),
            None => None,
        }
    }

    /// The handlers that RuntimeClasses may name.
    pub(crate) fn handlers(&self) -> Vec<String> {
        self.runtimes.iter().flat_map(|r| r.handlers()).collect()
    }

    /// Whether all runtimes can leave out the groups of images.
    pub(crate) fn strict_groups(&self) -> bool {
        self.runtimes.iter().all(|runtime| runtime.strict_groups())
    }

    /// The same, each with whether it gives Pods users of their own.
    pub(crate) fn handlers_with_users(&self) -> Vec<(String, bool)> {
        let of = |r: &Arc<dyn RuntimeService>| {
            let users = r.gives_users();
            r.handlers().into_iter().map(move |name| (name, users))
        };
        self.runtimes.iter().flat_map(of).collect()
    }

    fn by_handler(&self, handler: &str) -> Option<&Arc<dyn RuntimeService>> {
        let has = |runtime: &&Arc<dyn RuntimeService>| {
            runtime.handlers().iter().any(|known| known == handler)
        };
        self.runtimes.iter().find(has)
    }

    /// Whether there is a runtime for the handler of a RuntimeClass.
    pub(crate) fn check_handler(&self, handler: &str) -> Result<(), RouteError> {
        match self.by_handler(handler) {
            Some(_) => Ok(()),
            None => Err(RouteError::UnknownHandler {
                handler: handler.to_owned(),
                known: self.handlers().join(", "),
            }),
        }
    }

    /// Where the images' disk is, where that is a runtime's own business.
    pub(crate) fn images_folder(&self) -> Option<PathBuf> {
        self.runtimes.iter().find_map(|r| r.images_folder())
    }

    /// The user as which guests of a namespace run, in a Pod with that handler; without one, images
    /// decide later, and it is that of the runtime that has users at all.
    pub(crate) fn guest_user(
        &self,
        namespace: &str,
        handler: Option<&str>,
    ) -> coracle_runtime::Result<Option<GuestUser>> {
        let fits = |runtime: &&Arc<dyn RuntimeService>| {
            handler.is_none_or(|handler| runtime.handlers().iter().any(|known| known == handler))
        };
        for runtime in self.runtimes.iter().filter(fits) {
            if let Some(user) = runtime.guest_user(namespace)? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// The runtime for an image of that kind in a Pod with that handler.
    pub(crate) fn route(
        &self,
        kind: Kind,
        handler: Option<&str>,
    ) -> Result<&Arc<dyn RuntimeService>, RouteError> {
        if let Some(handler) = handler {
            self.check_handler(handler)?;
            return self.by_handler(handler).ok_or(RouteError::NoWasm);
        }
        match kind {
            Kind::Wasm => self.by_name("wasm").ok_or(RouteError::NoWasm),
            Kind::Container => self.by_name("oci").ok_or(RouteError::NoContainers),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_runtime::fake::FakeRuntime;

    use super::*;

    #[test]
    fn the_image_decides_and_a_handler_overrides() {
        let wasm = || Arc::new(FakeRuntime::new("wasm")) as Arc<dyn RuntimeService>;
        let oci = || Arc::new(FakeRuntime::new("oci")) as Arc<dyn RuntimeService>;
        let both = Router::new(vec![wasm(), oci()]);
        let only_wasm = Router::new(vec![wasm()]);
        let name = |router: &Router, kind, handler| {
            router.route(kind, handler).map(|runtime| runtime.name())
        };
        assert_eq!(name(&both, Kind::Wasm, None), Ok("wasm"));
        assert_eq!(name(&both, Kind::Container, None), Ok("oci"));
        assert_eq!(name(&both, Kind::Wasm, Some("oci")), Ok("oci"));
        assert_eq!(both.only(None), None);
        assert_eq!(both.only(Some("oci")), Some(Kind::Container));
        assert_eq!(both.only(Some("wasm")), Some(Kind::Wasm));
        assert_eq!(only_wasm.only(None), Some(Kind::Wasm));
        let missing = name(&only_wasm, Kind::Container, None);
        assert_eq!(missing, Err(RouteError::NoContainers));
        let unknown = name(&both, Kind::Wasm, Some("kata")).unwrap_err();
        assert!(unknown.to_string().contains("\"kata\""), "{unknown}");
    }
}
