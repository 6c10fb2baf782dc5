//! `/debug`: the verbosity of the log, and what flow control holds. Whoever comes here has been
//! authorized. There is no profiler, and so no `/debug/pprof`.

use std::sync::Arc;

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::{HeaderMap, Method, Response, StatusCode};

use crate::handlers::encode::response;
use crate::request::body;
use crate::request::options::Query;
use crate::server::Inner;

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers a path below `/debug/`.
pub(crate) async fn answer(
    server: &Arc<Inner>,
    method: &Method,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
    sent: Body,
) -> Result<Response<Body>, Status> {
    let text = |code, text: String| Ok(response(code, TEXT, Body::from(text)));
    if path == "flags/v" {
        let Some(verbosity) = &server.verbosity else {
            return Err(Status::unknown_path());
        };
        if method != Method::PUT {
            return text(
                StatusCode::NOT_ACCEPTABLE,
                "unsupported http method".to_owned(),
            );
        }
        let sent = body::read(headers, sent).await?;
        let wanted = String::from_utf8_lossy(&sent).trim().to_owned();
        return match verbosity(&wanted) {
            Ok(()) => text(
                StatusCode::OK,
                format!("successfully set klog.logging.verbosity to {wanted}"),
            ),
            Err(reason) => text(
                StatusCode::BAD_REQUEST,
                format!("failed set klog.logging.verbosity {wanted}: {reason}"),
            ),
        };
    }
    let details = query
        .get("includeRequestDetails")
        .is_some_and(|value| !value.is_empty());
    let dump = path
        .strip_prefix("api_priority_and_fairness/")
        .filter(|_| method == Method::GET)
        .and_then(|what| server.flow.dump(what, details));
    match dump {
        Some(dump) => text(StatusCode::OK, dump),
        None => Err(Status::unknown_path()),
    }
}
