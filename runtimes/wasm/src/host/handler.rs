//! Compiled components, mapped once for all Pods that serve them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::pool::{self, Pool};
use crate::guest::state::{self, Guest};

/// A component that is ready to be instantiated.
pub(super) struct Handler {
    pub engine: Engine,
    pub pre: ProxyPre<Guest>,
    /// Whether it can ask for folders at all. Most handlers cannot, and none need be held open for
    /// them; every Pod has at least the one with its token.
    pub opens_folders: bool,
    /// Where its instances come from.
    pub pool: Arc<Pool>,
    /// What one of them costs.
    pub cost: u32,
}

/// The interface by which a component finds its folders.
const PREOPENS: &str = "wasi:filesystem/preopens@";

/// The components of this process.
pub(super) struct Handlers {
    engine: Engine,
    linker: Linker<Guest>,
    pool: Arc<Pool>,
    mapped: Mutex<HashMap<PathBuf, Arc<Handler>>>,
}

impl Handlers {
    pub(super) fn new(engine: Engine) -> wasmtime::Result<Self> {
        Ok(Self {
            linker: state::component_linker(&engine)?,
            engine,
            pool: Arc::new(Pool::new()),
            mapped: Mutex::new(HashMap::new()),
        })
    }

    /// The component in a file of compiled code; maps it if need be.
    pub(super) fn get(&self, code: &Path) -> wasmtime::Result<Arc<Handler>> {
        let mut mapped = self.mapped.lock();
        if let Some(handler) = mapped.get(code) {
            return Ok(handler.clone());
        }
        // SAFETY: the file was compiled by this node, see `crate::compile`.
        let component = unsafe { Component::deserialize_file(&self.engine, code) }?;
        let types = component.component_type();
        let mut imports = types.imports(&self.engine);
        let opens_folders = imports.any(|(name, _)| name.starts_with(PREOPENS));
        drop(imports);
        let handler = Arc::new(Handler {
            engine: self.engine.clone(),
            opens_folders,
            pool: self.pool.clone(),
            cost: pool::cost(&component),
            pre: ProxyPre::new(self.linker.instantiate_pre(&component)?)?,
        });
        mapped.insert(code.to_owned(), handler.clone());
        Ok(handler)
    }

    /// Unmaps what no Pod serves any more.
    pub(super) fn forget_unused(&self) {
        self.mapped
            .lock()
            .retain(|_, handler| Arc::strong_count(handler) > 1);
    }
}
