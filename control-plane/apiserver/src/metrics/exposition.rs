//! The text of the metrics: the Prometheus form 0.0.4, which is the default, or OpenMetrics for
//! those who ask for it.

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::request::media::MediaType;

/// A form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `text/plain; version=0.0.4`.
    Plain,
    /// `application/openmetrics-text`.
    OpenMetrics,
}

impl Form {
    /// The form that a client prefers. One that names neither gets the plain one.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let clauses = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(MediaType::parse);
        let mut best = (0.0, Self::Plain);
        for clause in clauses {
            let form = match clause.essence {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Plain,
                _ => continue,
            };
            let quality = clause.quality();
            if quality > best.0 {
                best = (quality, form);
            }
        }
        best.1
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    pub(crate) fn encode(self, registry: &Registry) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, registry);
        match self {
            Self::Plain => plain(&text),
            Self::OpenMetrics => text,
        }
    }
}

/// OpenMetrics as the older form: counters are named with their `_total`, there is no end mark,
/// and numbers are written as Go writes them, by which dashboards select buckets.
fn plain(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            push_sample(&mut text, line);
        }
    }
    text
}

fn push_sample(text: &mut String, line: &str) {
    const BOUND: &str = "le=\"";
    match line.find(BOUND).map(|at| at + BOUND.len()) {
        Some(start) if line.contains("_bucket{") => {
            let end = line[start..]
                .find('"')
                .map_or(line.len(), |end| start + end);
            text.push_str(&line[..start]);
            text.push_str(&go_number(&line[start..end]));
            text.push_str(&line[end..]);
        }
        _ => text.push_str(line),
    }
    text.push('\n');
}

/// A number in the shortest form of Go: `1`, `0.5`, `1e+06`.
fn go_number(number: &str) -> String {
    let Ok(value) = number.parse::<f64>() else {
        return number.to_owned();
    };
    if !value.is_finite() {
        return number.to_owned();
    }
    if value.abs() < 1e6 {
        return value.to_string();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let magnitude: usize = exponent.parse().unwrap_or(0);
    format!("{mantissa}e+{magnitude:02}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_negotiated() {
        let open = "application/openmetrics-text;version=1.0.0";
        let table = [
            ("", Form::Plain),
            ("*/*", Form::Plain),
            ("application/json", Form::Plain),
            (open, Form::OpenMetrics),
            (
                "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.75,*/*;q=0.1",
                Form::OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.3,text/plain;version=0.0.4",
                Form::Plain,
            ),
        ];
        for (accept, want) in table {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(Form::accepted(&headers), want, "{accept}");
        }
    }

    #[test]
    fn counters_have_their_names_and_bounds_their_form() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"le=\\\"1.0\\\"\"} 1\n\
            # HELP s Sizes.\n# TYPE s histogram\ns_sum 3.0\ns_bucket{v=\"x\",le=\"1.0\"} 1\n\
            s_bucket{le=\"1000000.0\"} 2\ns_bucket{le=\"+Inf\"} 2\n# EOF\n";
        let want = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"le=\\\"1.0\\\"\"} 1\n\
            # HELP s Sizes.\n# TYPE s histogram\ns_sum 3.0\ns_bucket{v=\"x\",le=\"1\"} 1\n\
            s_bucket{le=\"1e+06\"} 2\ns_bucket{le=\"+Inf\"} 2\n";
        assert_eq!(plain(open), want);
    }

    #[test]
    fn numbers_are_as_in_go() {
        for (number, want) in [
            ("0.005", "0.005"),
            ("131072.0", "131072"),
            ("1048576.0", "1.048576e+06"),
            ("1000000000.0", "1e+09"),
            ("+Inf", "+Inf"),
        ] {
            assert_eq!(go_number(number), want);
        }
    }
}
