//! `/healthz`, `/livez`, `/readyz` and `/version`. Checks have the names that upstream gives to
//! what they check: `etcd` is the store, `informer-sync` the configuration that this server reads
//! for itself, and a `poststarthook/` is done when its part of what a cluster starts with is there.
//!
//! Everybody may call them, so that reasons are told to the log alone.
//!
//! **Invariant**: the store is no part of `/livez`. It is part of this process, and to restart it
//! heals no lost quorum. Upstream's `log` is absent: nothing waits for the log here.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use coracle_store::Read;
use http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::version::Info;

use crate::handlers::encode::response;
use crate::metrics::slis::Slis;
use crate::request::options::Query;
use crate::server::Inner;

/// The version of Kubernetes whose API is served.
const MINOR: &str = "37";

/// Longest wait for the store.
const STORE: Duration = Duration::from_secs(2);

/// What is done when what a cluster starts with has been made.
const BOOTSTRAPPED: &[&str] = &[
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/bootstrap-controller",
];

/// What the health checks look at, beside the store.
#[derive(Default)]
pub(crate) struct Health {
    /// Whether what a cluster starts with is there.
    pub(crate) bootstrapped: AtomicBool,
    /// Whether the configuration of flow control is in use.
    pub(crate) configured: AtomicBool,
    /// Whether the server is to end.
    pub(crate) stopping: AtomicBool,
    /// How the checks went.
    pub(crate) slis: Slis,
}

/// Where health is asked for.
const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// Whether a path is a health check, which everybody may call.
pub(crate) fn is_public(path: &str) -> bool {
    let first = path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    ENDPOINTS.contains(&first)
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

/// A check and how it went.
type Check = (&'static str, Result<(), &'static str>);

impl Health {
    /// Answers a health check, or one of its parts (`/readyz/etcd`).
    pub(crate) async fn answer(
        &self,
        server: &Arc<Inner>,
        path: &str,
        query: &Query,
    ) -> Response<Body> {
        let path = path.trim_matches('/');
        let (which, only) = match path.split_once('/') {
            Some((which, only)) => (which, Some(only)),
            None => (path, None),
        };
        let store = if which == "livez" {
            Ok(())
        } else {
            store_answers(server).await
        };
        let checks = self.checks(which, store);
        match only {
            None => {
                let excluded: Vec<&str> = query.all("exclude").collect();
                for check in checks.iter().filter(|(name, _)| !excluded.contains(name)) {
                    self.count(which, check);
                }
                report(which, &checks, &excluded, query.get("verbose").is_some())
            }
            Some(only) => match checks
                .into_iter()
                .find(|(name, _)| *name == only)
                .inspect(|check| self.count(which, check))
            {
                None => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
                Some((_, Ok(()))) => text(StatusCode::OK, "ok".to_owned()),
                Some((name, Err(fault))) => {
                    tracing::warn!(check = name, fault, "a health check failed");
                    let answer = "internal server error: reason withheld\n".to_owned();
                    text(StatusCode::INTERNAL_SERVER_ERROR, answer)
                }
            },
        }
    }

    fn count(&self, which: &str, (name, result): &Check) {
        let kind = ENDPOINTS.iter().find(|known| **known == which);
        self.slis
            .checked(name, kind.copied().unwrap_or_default(), result.is_ok());
    }

    fn checks(&self, which: &str, store: Result<(), &'static str>) -> Vec<Check> {
        let mut checks: Vec<Check> = vec![("ping", Ok(()))];
        if which == "livez" {
            return checks;
        }
        let unless = |fine: bool, fault| if fine { Ok(()) } else { Err(fault) };
        let configured = self.configured.load(Ordering::Relaxed);
        let configured = unless(
            configured,
            "the configuration of flow control is not read yet",
        );
        checks.push(("etcd", store));
        if which == "readyz" {
            checks.push(("informer-sync", configured));
        }
        let bootstrapped = self.bootstrapped.load(Ordering::Relaxed);
        let fault = "not all of what a cluster starts with is there yet";
        let hooks = BOOTSTRAPPED.iter();
        checks.extend(hooks.map(|name| (*name, unless(bootstrapped, fault))));
        checks.push((
            "poststarthook/priority-and-fairness-config-consumer",
            configured,
        ));
        if which == "readyz" {
            let stopping = self.stopping.load(Ordering::Relaxed);
            checks.push(("shutdown", unless(!stopping, "process is shutting down")));
        }
        checks
    }
}

fn report(which: &str, checks: &[Check], excluded: &[&str], verbose: bool) -> Response<Body> {
    let mut failed = false;
    let mut lines = String::new();
    // Writing to a string does not fail.
    for (name, result) in checks {
        let _ = match result {
            _ if excluded.contains(name) => writeln!(lines, "[+]{name} excluded: ok"),
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(fault) => {
                failed = true;
                tracing::debug!(which, check = name, fault, "a health check failed");
                writeln!(lines, "[-]{name} failed: reason withheld")
            }
        };
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|(known, _)| known == *name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        let _ = writeln!(
            lines,
            "warn: some health checks cannot be excluded: no matches for {unknown}"
        );
    }
    if failed {
        let _ = writeln!(lines, "{which} check failed");
        return text(StatusCode::INTERNAL_SERVER_ERROR, lines);
    }
    if verbose {
        let _ = writeln!(lines, "{which} check passed");
        return text(StatusCode::OK, lines);
    }
    text(StatusCode::OK, "ok".to_owned())
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = response(code, "text/plain; charset=utf-8", Body::from(text));
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
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
