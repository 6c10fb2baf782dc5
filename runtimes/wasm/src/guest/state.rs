//! What a store holds for a guest, and the linkers that give it WASI.

use std::sync::Arc;

use coracle_runtime::Protocol;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::cli::AsyncStdinStream;
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::files::{Files, GuestFiles};
use super::limits::{Limits, Memory};
use super::outgoing::Outgoing;
use super::quota::Quota;
use super::sockets::{GuestSockets, Reach};
use super::streams::GuestStreams;
use super::volumes::Volumes;

/// Entries of a guest's resource table: open files, sockets, requests, bodies.
const MAX_RESOURCES: usize = 16 << 10;
/// Random bytes that a guest may make the host draw in one call.
const MAX_RANDOM: u64 = 1 << 20;
/// Bytes that a guest may hand over in one call where others wait for its thread: nothing interrupts
/// a call, and a list of headers is copied to its end before anybody counts it. It is more than any
/// stream takes at once.
const MAX_PASSED: usize = 8 << 20;

/// State of a component's store.
pub(crate) struct Guest {
    pub(super) environment: Arc<Environment>,
    wasi: WasiCtx,
    table: ResourceTable,
    // After the table: what that holds open is closed before it is no longer counted.
    files: GuestFiles,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    pub(crate) sockets: GuestSockets,
    limits: Limits,
}

/// State of a core module's store.
pub(crate) struct CoreGuest {
    wasi: WasiP1Ctx,
    limits: Limits,
}

/// What every instance of a container gets. Instances begin thousands of times a second and on
/// several cores: they refer to what they share in as few places as may be.
pub(crate) struct Environment {
    pub argv: Arc<[String]>,
    pub env: Arc<[(String, String)]>,
    pub working_dir: Option<String>,
    pub volumes: Volumes,
    pub streams: GuestStreams,
    pub memory: Arc<Memory>,
    pub reach: Arc<Reach>,
    /// What the guest may open in its volumes, where its process has other guests too. A process
    /// of its own has bounds of its own, and waits for a pipe as any process does.
    pub files: Option<Quota>,
    /// Whether file operations may block the thread that polls the guest: in the runner it is
    /// the guest's own.
    pub may_block: bool,
}

impl Environment {
    fn wasi(&self) -> WasiCtxBuilder {
        let mut builder = WasiCtxBuilder::new();
        builder
            .stdout(self.streams.stdout.clone())
            .stderr(self.streams.stderr.clone())
            .allow_blocking_current_thread(self.may_block)
            .max_random_size(MAX_RANDOM)
            .allow_tcp(true)
            .allow_udp(true);
        if let Some(input) = self.streams.take_input() {
            builder.stdin(AsyncStdinStream::new(input));
        }
        // Binds and connects were decided, and rewritten, by the shadowing sockets interfaces;
        // what is left is whom the guest hears.
        let reach = self.reach.clone();
        builder.socket_addr_check(move |address, purpose| {
            let heard = |protocol| reach.network.peer(protocol, address).is_ok();
            let allowed = match purpose {
                SocketAddrUse::TcpAccept => heard(Protocol::Tcp),
                SocketAddrUse::UdpReceive => heard(Protocol::Udp),
                _ => true,
            };
            Box::pin(std::future::ready(allowed))
        });
        builder
    }

    /// A store for an instance of a component.
    pub(crate) fn component_store(
        self: &Arc<Self>,
        engine: &Engine,
    ) -> wasmtime::Result<Store<Guest>> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let mut wasi = self.wasi().build();
        *wasi.filesystem() = self.volumes.opened(self.may_block)?;
        let guest = Guest {
            environment: self.clone(),
            wasi,
            table,
            files: GuestFiles::new(self.files.clone()),
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(self.reach.clone()),
            sockets: GuestSockets::new(self.reach.clone()),
            limits: Limits::new(self.memory.clone()),
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limits);
        if !self.may_block {
            store.set_hostcall_fuel(MAX_PASSED);
        }
        interruptible(&mut store);
        Ok(store)
    }

    /// A store for an instance of a core module.
    pub(crate) fn core_store(&self, engine: &Engine) -> wasmtime::Result<Store<CoreGuest>> {
        let mut wasi = self.wasi();
        wasi.args(&self.argv).envs(&self.env);
        if let Some(folder) = &self.working_dir {
            wasi.initial_cwd(folder);
        }
        self.volumes.open(&mut wasi)?;
        let guest = CoreGuest {
            wasi: wasi.build_p1(),
            limits: Limits::new(self.memory.clone()),
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limits);
        interruptible(&mut store);
        Ok(store)
    }
}

fn interruptible<T>(store: &mut Store<T>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl Guest {
    pub(super) fn files(&mut self) -> Files<'_> {
        Files {
            wasi: WasiFilesystemCtxView {
                ctx: self.wasi.filesystem(),
                table: &mut self.table,
            },
            state: &mut self.files,
        }
    }

    pub(super) fn sockets_view(&mut self) -> super::sockets::Sockets<'_> {
        use wasmtime_wasi::sockets::WasiSocketsCtxView;
        super::sockets::Sockets {
            wasi: WasiSocketsCtxView {
                ctx: self.wasi.sockets(),
                table: &mut self.table,
            },
            state: &mut self.sockets,
        }
    }
}

/// WASI 0.2 with our own sockets, environment, and opening and listing of files, and `wasi:http`.
pub(crate) fn component_linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // Beside a newer version of wasmtime's own they would not be found: guests would have no
    // environment, and nothing would count their files.
    wasmtime::ensure!(
        super::variables::add_to_linker(&mut linker).is_err()
            && super::files::add_to_linker(&mut linker).is_err(),
        "wasmtime has no environment or files of the version that is to be shadowed"
    );
    linker.allow_shadowing(true);
    super::files::add_to_linker(&mut linker)?;
    super::sockets::add_to_linker(&mut linker)?;
    super::variables::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// WASI preview 1, which has no sockets of its own.
pub(crate) fn core_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<CoreGuest>> {
    let mut linker = wasmtime::Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut CoreGuest| &mut guest.wasi)?;
    Ok(linker)
}
