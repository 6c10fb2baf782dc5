//! How a webhook is reached.

use coracle_apimachinery::field::{Error, ErrorList, Path, Shown};
use coracle_apimachinery::names;
use k8s_openapi::api::admissionregistration::v1::{ServiceReference, WebhookClientConfig};

use crate::validation::text;

const FORM: &str = "; desired format: https://host[/path]";

/// A URL or a Service, and not both.
pub(super) fn validate_client_config(
    config: &WebhookClientConfig,
    at: &Path,
    errors: &mut ErrorList,
) {
    match (&config.url, &config.service) {
        (Some(url), None) => validate_url(url, &at.child("url"), errors),
        (None, Some(service)) => validate_service(service, &at.child("service"), errors),
        _ => errors.push(Error::required(
            at,
            "exactly one of url or service is required",
        )),
    }
}

/// The parts of a URL that webhooks may or may not have.
struct Url<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Result<Self, &'static str> {
        if url.contains(|c: char| c.is_ascii_control()) {
            return Err("invalid control character in URL");
        }
        let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, rest) = match rest.split_once(':') {
            Some(("", _)) => return Err("missing protocol scheme"),
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            Some((before, _)) if !before.contains('/') => {
                return Err("first path segment in URL cannot contain colon");
            }
            _ => ("", rest),
        };
        let authority = rest.strip_prefix("//").unwrap_or_default();
        let authority = authority.split('/').next().unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if host.contains(|c: char| c == ' ' || "\"<>\\^`{|}".contains(c)) {
            return Err("invalid character in host name");
        }
        let port = host
            .rsplit_once(']')
            .map_or(host, |(_, after)| after)
            .rsplit_once(':')
            .map(|(_, port)| port);
        if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
            return Err("invalid port after host");
        }
        Ok(Self {
            scheme,
            user,
            host,
            query,
            fragment,
        })
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn validate_url(url: &str, at: &Path, errors: &mut ErrorList) {
    let parts = match Url::parse(url) {
        Ok(parts) => parts,
        Err(fault) => {
            let detail = format!("url must be a valid URL: {fault}{FORM}");
            errors.push(Error::required(at, detail));
            return;
        }
    };
    let mut refuse = |part: &str, detail: String| errors.push(Error::invalid(at, part, detail));
    if parts.scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        refuse(parts.scheme, detail);
    }
    if parts.host.is_empty() {
        refuse("", format!("host must be specified{FORM}"));
    }
    if let Some(user) = parts.user {
        let detail = "user information is not permitted in the URL";
        refuse(user, detail.to_owned());
    }
    if !parts.fragment.is_empty() {
        let detail = "fragments are not permitted in the URL";
        refuse(parts.fragment, detail.to_owned());
    }
    if !parts.query.is_empty() {
        let detail = "query parameters are not permitted in the URL";
        refuse(parts.query, detail.to_owned());
    }
}

fn validate_service(service: &ServiceReference, at: &Path, errors: &mut ErrorList) {
    for (field, value) in [("name", &service.name), ("namespace", &service.namespace)] {
        if value.is_empty() {
            errors.push(Error::required(&at.child(field), ""));
        }
    }
    let port = service.port.unwrap_or_default();
    for fault in names::port_number(port) {
        let detail = format!("port is not valid: {fault}");
        errors.push(Error::invalid(&at.child("port"), port, detail));
    }
    validate_path(text(&service.path), &at.child("path"), errors);
}

fn validate_path(path: &str, at: &Path, errors: &mut ErrorList) {
    if path.is_empty() || path == "/" {
        return;
    }
    // The error about each segment shows the whole path.
    let shown = Shown::from(path);
    let mut refuse = |detail: String| errors.push(Error::invalid(at, shown.clone(), detail));
    if path == "//" {
        refuse("segment[0] may not be empty".to_owned());
        return;
    }
    if !path.starts_with('/') {
        refuse("must start with a '/'".to_owned());
    }
    let mut characters = path.chars();
    characters.next();
    let segments = characters.as_str();
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    for (i, segment) in segments.split('/').enumerate() {
        if segment.is_empty() {
            refuse(format!("segment[{i}] may not be empty"));
            continue;
        }
        for fault in names::dns_subdomain(segment) {
            refuse(format!("segment[{i}]: {fault}"));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn clients() {
        let service = |path: &str| json!({"service": {"name": "n", "namespace": "s", "port": 443, "path": path}});
        let table: Vec<(Value, &[&str])> = vec![
            (json!({"url": "https://example.com:8443/a"}), &[]),
            (json!({"url": "https://[::1]:8443"}), &[]),
            (service("/a/b.c/"), &[]),
            (service("/"), &[]),
            (
                json!({}),
                &["c FieldValueRequired exactly one of url or service is required"],
            ),
            (
                json!({"url": "https://a", "service": {"name": "n", "namespace": "s"}}),
                &["c FieldValueRequired exactly one of url or service is required"],
            ),
            (
                json!({"url": "http://u:p@a?b=c#d"}),
                &[
                    "c.url FieldValueInvalid 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                    "c.url FieldValueInvalid user information is not permitted",
                    "c.url FieldValueInvalid fragments are not permitted",
                    "c.url FieldValueInvalid query parameters are not permitted",
                ],
            ),
            (
                json!({"url": "a/b"}),
                &[
                    "c.url FieldValueInvalid 'https' is the only",
                    "c.url FieldValueInvalid host must be specified",
                ],
            ),
            (
                json!({"url": "https://a:b/"}),
                &["c.url FieldValueRequired url must be a valid URL: invalid port"],
            ),
            (
                json!({"url": ":a"}),
                &["c.url FieldValueRequired url must be a valid URL: missing protocol scheme"],
            ),
            (
                json!({"service": {"name": "", "namespace": "", "port": 65536}}),
                &[
                    "c.service.name FieldValueRequired",
                    "c.service.namespace FieldValueRequired",
                    "c.service.port FieldValueInvalid port is not valid: must be between 1 and 65535",
                ],
            ),
            (
                service("//"),
                &["c.service.path FieldValueInvalid segment[0] may not be empty"],
            ),
            (
                service("a/B//c"),
                &[
                    "c.service.path FieldValueInvalid must start with a '/'",
                    "c.service.path FieldValueInvalid segment[0] may not be empty",
                    "c.service.path FieldValueInvalid segment[1]: a lowercase RFC 1123 subdomain",
                    "c.service.path FieldValueInvalid segment[2] may not be empty",
                ],
            ),
        ];
        for (config, want) in table {
            let mut errors = ErrorList::default();
            let config = serde_json::from_value(config).unwrap();
            validate_client_config(&config, &Path::new("c"), &mut errors);
            assert_causes(&errors, want);
        }
    }
}
