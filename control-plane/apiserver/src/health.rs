//! `/healthz`, `/livez`, `/readyz` and `/version`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use coracle_store::Read;
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::version::Info;

use crate::handlers::encode::response;
use crate::request::options::Query;
use crate::server::Inner;

/// The version of Kubernetes whose API is served.
const MINOR: &str = "37";

/// Longest wait for the store.
const STORE: Duration = Duration::from_secs(2);

/// What the health checks look at, beside the store.
#[derive(Default)]
pub(crate) struct Health {
    /// Whether what a cluster starts with is there.
    pub(crate) bootstrapped: AtomicBool,
}

/// Whether a path is a health check, which everybody may call.
pub(crate) fn is_public(path: &str) -> bool {
    let first = path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    matches!(first, "healthz" | "livez" | "readyz")
}

/// What `/version` answers.
pub(crate) fn version() -> Info {
    Info {
        major: "1".to_owned(),
        minor: MINOR.to_owned(),
        git_version: format!("v1.{MINOR}.0+coracle-{}", env!("CARGO_PKG_VERSION")),
        git_commit: String::new(),
        git_tree_state: "clean".to_owned(),
        build_date: "1970-01-01T00:00:00Z".to_owned(),
        go_version: "none".to_owned(),
        compiler: "rustc".to_owned(),
        platform: format!("{}/{}", std::env::consts::OS, arch()),
        ..Info::default()
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Health {
    /// Answers a health check, or one of its parts (`/readyz/store`).
    pub(crate) async fn answer(
        &self,
        server: &Arc<Inner>,
        path: &str,
        query: &Query,
    ) -> Response<Body> {
        let mut segments = path.trim_matches('/').split('/');
        let check = segments.next().unwrap_or_default();
        let only = segments.next();
        let mut checks = vec![("ping", Ok(()))];
        if check != "livez" {
            checks.push(("store", store_answers(server).await));
            let started = self.bootstrapped.load(Ordering::Relaxed);
            let fault = Err("not all of what a cluster starts with is there yet");
            checks.push((
                "poststarthook/bootstrap",
                if started { Ok(()) } else { fault },
            ));
        }
        if check == "readyz" {
            let stopping = server.stopping.is_cancelled();
            checks.push((
                "shutdown",
                if stopping {
                    Err("the server is shutting down")
                } else {
                    Ok(())
                },
            ));
        }
        if let Some(only) = only {
            checks.retain(|(name, _)| name.rsplit('/').next() == Some(only) || *name == only);
            if checks.is_empty() {
                return response(
                    StatusCode::NOT_FOUND,
                    "text/plain; charset=utf-8",
                    Body::from("404 page not found\n"),
                );
            }
        }
        checks.retain(|(name, _)| !query.all("exclude").any(|excluded| excluded == *name));
        report(check, &checks, query.get("verbose").is_some())
    }
}

fn report(check: &str, checks: &[(&str, Result<(), &str>)], verbose: bool) -> Response<Body> {
    let healthy = checks.iter().all(|(_, result)| result.is_ok());
    let mut text = String::new();
    for (name, result) in checks {
        // Writing to a string does not fail.
        let _ = match result {
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(fault) => writeln!(text, "[-]{name} failed: {fault}"),
        };
    }
    let _ = writeln!(
        text,
        "{check} check {}",
        if healthy { "passed" } else { "failed" }
    );
    if healthy && !verbose {
        "ok".clone_into(&mut text);
    }
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    response(code, "text/plain; charset=utf-8", Body::from(text))
}

/// Whether the store can be read, or why not.
pub(crate) async fn store_answers(server: &Inner) -> Result<(), &'static str> {
    let read = server.registry.store.get("/registry/health", Read::Latest);
    match tokio::time::timeout(STORE, read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the store is not healthy");
            Err("the store has no leader or no quorum")
        }
        Err(_) => Err("the store did not answer in time"),
    }
}
