//! `/metrics/slis`: how the health checks went for whoever asked for them.

use axum::body::Body;
use http::{HeaderMap, Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as Metered;

use super::exposition::Form;
use crate::handlers::encode::response;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Check {
    name: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checked {
    name: &'static str,
    r#type: &'static str,
    status: &'static str,
}

/// The indicators of one server.
pub(crate) struct Slis {
    registered: Metered,
    last: Family<Check, Gauge>,
    all: Family<Checked, Counter>,
}

impl Default for Slis {
    fn default() -> Self {
        let last = Family::<Check, Gauge>::default();
        let all = Family::<Checked, Counter>::default();
        let mut registered = Metered::default();
        registered.register(
            "kubernetes_healthcheck",
            "Whether a health check went well when it was last made",
            last.clone(),
        );
        registered.register(
            "kubernetes_healthchecks",
            "Health checks that were made, by how they went",
            all.clone(),
        );
        Self {
            registered,
            last,
            all,
        }
    }
}

impl Slis {
    /// Counts a check that `kind` of endpoint (`livez` and its like) has made.
    pub(crate) fn checked(&self, name: &'static str, kind: &'static str, well: bool) {
        let r#type = kind;
        let last = self.last.get_or_create(&Check { name, r#type });
        last.set(i64::from(well));
        let status = if well { "success" } else { "error" };
        let checked = Checked {
            name,
            r#type,
            status,
        };
        self.all.get_or_create(&checked).inc();
    }

    /// The indicators as text.
    pub(crate) fn render(&self, headers: &HeaderMap) -> Response<Body> {
        let form = Form::accepted(headers);
        let text = form.encode(&self.registered);
        response(StatusCode::OK, form.media_type(), Body::from(text))
    }
}
