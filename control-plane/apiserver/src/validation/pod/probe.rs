//! Probes and lifecycle hooks of a container.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe,
    SleepAction, TCPSocketAction,
};

use crate::validation::port::{validate_number, validate_number_or_name};
use crate::validation::{faults, items, non_negative, text};

/// The probes and hooks of a container that may have them. `grace` is the Pod's
/// terminationGracePeriodSeconds.
pub(crate) fn validate_probes(
    container: &Container,
    grace: Option<i64>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(lifecycle) = &container.lifecycle {
        validate_lifecycle(lifecycle, grace, &at.child("lifecycle"), errors);
    }
    if let Some(probe) = &container.liveness_probe {
        validate_restarting_probe(probe, grace, &at.child("livenessProbe"), errors);
    }
    if let Some(probe) = &container.readiness_probe {
        let at = at.child("readinessProbe");
        validate_probe(probe, grace, &at, errors);
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let detail = "must not be set for readinessProbes";
            errors.push(Error::invalid(
                &at.child("terminationGracePeriodSeconds"),
                seconds,
                detail,
            ));
        }
    }
    if let Some(probe) = &container.startup_probe {
        validate_restarting_probe(probe, grace, &at.child("startupProbe"), errors);
    }
}

/// A probe whose failure restarts the container: one success is enough for it.
fn validate_restarting_probe(probe: &Probe, grace: Option<i64>, at: &Path, errors: &mut ErrorList) {
    validate_probe(probe, grace, at, errors);
    let threshold = probe.success_threshold.unwrap_or(0);
    if threshold != 1 {
        errors.push(Error::invalid(
            &at.child("successThreshold"),
            threshold,
            "must be 1",
        ));
    }
}

fn validate_probe(probe: &Probe, grace: Option<i64>, at: &Path, errors: &mut ErrorList) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    validate_handler(&handler, grace, at, errors);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        non_negative(number.unwrap_or(0), &at.child(field), errors);
    }
    match probe.termination_grace_period_seconds {
        Some(seconds) if seconds <= 0 => {
            let at = at.child("terminationGracePeriodSeconds");
            errors.push(Error::invalid(&at, seconds, "must be greater than 0"));
        }
        _ => {}
    }
}

fn validate_lifecycle(
    lifecycle: &Lifecycle,
    grace: Option<i64>,
    at: &Path,
    errors: &mut ErrorList,
) {
    for (field, hook) in [
        ("postStart", &lifecycle.post_start),
        ("preStop", &lifecycle.pre_stop),
    ] {
        if let Some(hook) = hook {
            validate_handler(&Handler::of_hook(hook), grace, &at.child(field), errors);
        }
    }
}

/// What a probe or a hook does: exactly one of these.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl<'a> Handler<'a> {
    fn of_hook(hook: &'a LifecycleHandler) -> Self {
        Self {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        }
    }
}

fn validate_handler(handler: &Handler<'_>, grace: Option<i64>, at: &Path, errors: &mut ErrorList) {
    let mut handlers = 0;
    let mut first = |field: &str, errors: &mut ErrorList| {
        handlers += 1;
        if handlers > 1 {
            errors.push(Error::forbidden(
                &at.child(field),
                "may not specify more than 1 handler type",
            ));
        }
        handlers == 1
    };
    if let Some(exec) = handler.exec
        && first("exec", errors)
        && items(&exec.command).is_empty()
    {
        errors.push(Error::required(&at.child("exec").child("command"), ""));
    }
    if let Some(get) = handler.http_get
        && first("httpGet", errors)
    {
        validate_http_get(get, &at.child("httpGet"), errors);
    }
    if let Some(socket) = handler.tcp_socket
        && first("tcpSocket", errors)
    {
        validate_number_or_name(&socket.port, &at.child("tcpSocket").child("port"), errors);
    }
    if let Some(grpc) = handler.grpc
        && first("grpc", errors)
    {
        let at = at.child("grpc");
        validate_number(grpc.port, &at.child("port"), errors);
        if let Some(mode) = &grpc.mode
            && !matches!(mode.as_str(), "TLS" | "Plaintext")
        {
            errors.push(Error::not_supported(
                &at.child("mode"),
                mode.as_str(),
                &["Plaintext", "TLS"],
            ));
        }
    }
    if let Some(sleep) = handler.sleep
        && first("sleep", errors)
        && let Some(grace) = grace
        && !(0..=grace).contains(&sleep.seconds)
    {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(Error::invalid(&at.child("sleep"), sleep.seconds, detail));
    }
    if handlers == 0 {
        errors.push(Error::required(at, "must specify a handler type"));
    }
}

fn validate_http_get(get: &HTTPGetAction, at: &Path, errors: &mut ErrorList) {
    if text(&get.path).is_empty() {
        errors.push(Error::required(&at.child("path"), ""));
    }
    validate_number_or_name(&get.port, &at.child("port"), errors);
    let scheme = text(&get.scheme);
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.push(Error::not_supported(
            &at.child("scheme"),
            scheme,
            &["HTTP", "HTTPS"],
        ));
    }
    for header in items(&get.http_headers) {
        faults(
            &header.name,
            names::http_header_name(&header.name),
            &at.child("httpHeaders"),
            errors,
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn probes_and_hooks() {
        let get = json!({"path": "/", "port": 8080, "scheme": "HTTP"});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"livenessProbe": {"httpGet": get, "successThreshold": 1}}),
                vec![],
            ),
            (
                json!({"livenessProbe": {"httpGet": get, "successThreshold": 2}}),
                vec!["c.livenessProbe.successThreshold FieldValueInvalid must be 1"],
            ),
            (
                json!({"readinessProbe": {}}),
                vec!["c.readinessProbe FieldValueRequired must specify a handler type"],
            ),
            (
                json!({"readinessProbe": {"httpGet": get, "tcpSocket": {"port": "http"}, "periodSeconds": -1}}),
                vec![
                    "c.readinessProbe.tcpSocket FieldValueForbidden may not specify more than 1 handler type",
                    "c.readinessProbe.periodSeconds FieldValueInvalid must be greater than or equal to 0",
                ],
            ),
            (
                json!({"startupProbe": {"exec": {}, "successThreshold": 1}}),
                vec!["c.startupProbe.exec.command FieldValueRequired"],
            ),
            (
                json!({"livenessProbe": {"httpGet": {"port": 0, "scheme": "FTP", "httpHeaders": [{"name": "a b", "value": ""}]}, "successThreshold": 1}}),
                vec![
                    "c.livenessProbe.httpGet.path FieldValueRequired",
                    "c.livenessProbe.httpGet.port FieldValueInvalid must be between 1 and 65535",
                    "c.livenessProbe.httpGet.scheme FieldValueNotSupported",
                    "c.livenessProbe.httpGet.httpHeaders FieldValueInvalid",
                ],
            ),
            (
                json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}, "postStart": {}}}),
                vec![
                    "c.lifecycle.postStart FieldValueRequired",
                    "c.lifecycle.preStop.sleep FieldValueInvalid must be non-negative and less than",
                ],
            ),
        ];
        for (value, want) in table {
            let mut errors = ErrorList::default();
            let container: Container = serde_json::from_value(value).unwrap();
            validate_probes(&container, Some(30), &Path::new("c"), &mut errors);
            assert_causes(&errors, &want);
        }
    }
}
