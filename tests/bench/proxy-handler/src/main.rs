//! Serves a component by wasmtime's own `ProxyHandler`, as a mark to measure Coracle's host by.
//!
//! What `wasmtime serve` does is done here too: tokio's multi-thread scheduler, a fresh instance
//! per request, no epochs. The pool is set as in Coracle's
//! host, which makes it faster than the command line's defaults.
//!
//! `proxy-handler COMPONENT [NAME=VALUE]…` prints the address that it serves, and runs until it
//! is killed.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use wasmtime::component::{Component, GuestTaskId, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, PoolingAllocationConfig, Result, Store, StoreContextMut, StoreLimits,
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyHandler, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState,
    WorkerStatus,
};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView, p2};

struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    limits: StoreLimits,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: wasmtime_wasi_http::default_hooks(),
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

struct State {
    engine: Engine,
    pre: ProxyPre<Host>,
    env: Vec<(String, String)>,
}

/// One request, and no bound in time.
struct Once;

impl WorkerExpiration for Once {
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>, _: WorkerStatus, _: Instant) -> Poll<()> {
        Poll::Pending
    }
}

impl WorkerState for Once {
    type StoreData = Host;
    type RequestData = ();

    fn should_accept_request(&self, _: usize, total: usize) -> ShouldAccept {
        if total == 0 {
            ShouldAccept::Yes
        } else {
            ShouldAccept::Never
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, Host>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        Box::pin(std::future::pending())
    }

    fn drop(&self, _: Store<Host>, result: Result<()>) {
        if let Err(error) = result {
            eprintln!("worker: {error:#}");
        }
    }
}

impl HandlerState for State {
    type StoreData = Host;
    type WorkerExpiration = Once;
    type WorkerState = Once;

    async fn instantiate(&self) -> Result<Instance<Host, Once, Once>> {
        let host = Host {
            wasi: WasiCtxBuilder::new().envs(&self.env).build(),
            table: ResourceTable::new(),
            http: WasiHttpCtx::new(),
            limits: StoreLimits::default(),
        };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limits);
        let proxy = self.pre.instantiate_async(&mut store).await?;
        Ok(Instance {
            store,
            proxy,
            view: Host::http,
            expiration: Once,
            state: Once,
        })
    }
}

fn engine() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.max_unused_warm_slots(64)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config.allocation_strategy(pool).wasm_component_model(true);
    Engine::new(&config)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("the path of a component");
    let env = args
        .filter_map(|arg| arg.split_once('=').map(|(k, v)| (k.into(), v.into())))
        .collect();
    let engine = engine()?;
    let component = Component::from_file(&engine, path)?;
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    p2::add_only_http_to_linker_async(&mut linker)?;
    let pre = p2::bindings::ProxyPre::new(linker.instantiate_pre(&component)?)?;
    let handler = ProxyHandler::new(State {
        engine,
        pre: ProxyPre::P2(pre),
        env,
    });
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(handler))
}

async fn serve(handler: ProxyHandler<State>) -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let handler = handler.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let handler = handler.clone();
                async move {
                    let request = request
                        .map(|body| body.map_err(wasmtime_wasi_http::Error::from).boxed_unsync());
                    let response = handler.handle((), request).await;
                    Ok::<_, Infallible>(response.unwrap_or_else(|error| {
                        eprintln!("request: {error:#}");
                        let mut response = hyper::Response::new(
                            http_body_util::Empty::new()
                                .map_err(|never| match never {})
                                .boxed_unsync(),
                        );
                        *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
                        response
                    }))
                }
            });
            let _ = http1::Builder::new()
                .keep_alive(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
