//! What a reader of logs may ask for: `PodLogOptions` of the API, as query parameters.

use k8s_openapi::jiff::{Span, Timestamp};

/// The options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Goes on until the container ends.
    pub(crate) follow: bool,
    /// The container before the last restart.
    pub(crate) previous: bool,
    /// Each line begins with its time.
    pub(crate) timestamps: bool,
    /// Only lines from then on.
    pub(crate) since: Option<Timestamp>,
    /// Only that many lines from the end.
    pub(crate) tail_lines: Option<u64>,
    /// No more than that many bytes.
    pub(crate) limit_bytes: Option<u64>,
    /// Only that stream.
    pub(crate) stream: Option<&'static str>,
}

/// Why the options are refused, with 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OptionsError {
    #[error("{parameter}: {value:?} is not valid: {expected}")]
    Invalid {
        parameter: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("at most one of sinceTime or sinceSeconds may be specified")]
    TwoStarts,
}

impl LogOptions {
    /// Reads the query's pairs; unknown ones are ignored.
    pub(crate) fn parse<'a>(
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
        now: Timestamp,
    ) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        let (mut seconds, mut time) = (None, None);
        for (name, value) in pairs {
            match name {
                "follow" => options.follow = boolean("follow", value)?,
                "previous" => options.previous = boolean("previous", value)?,
                "timestamps" => options.timestamps = boolean("timestamps", value)?,
                "tailLines" => options.tail_lines = number("tailLines", value, 0)?,
                "limitBytes" => options.limit_bytes = number("limitBytes", value, 1)?,
                "sinceSeconds" => seconds = number("sinceSeconds", value, 1)?,
                "sinceTime" if !value.is_empty() => {
                    let parsed = value.parse::<Timestamp>();
                    let expected = "an RFC 3339 time";
                    time = Some(parsed.map_err(|_| invalid("sinceTime", value, expected))?);
                }
                "stream" => {
                    options.stream = match value {
                        "" | "All" => None,
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        _ => return Err(invalid("stream", value, "All, Stdout or Stderr")),
                    }
                }
                _ => {}
            }
        }
        options.since = match (seconds, time) {
            (Some(_), Some(_)) => return Err(OptionsError::TwoStarts),
            (None, time) => time,
            (Some(seconds), None) => {
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                let span = Span::new().try_seconds(seconds).ok();
                span.and_then(|span| now.checked_sub(span).ok())
            }
        };
        Ok(options)
    }
}

fn invalid(parameter: &'static str, value: &str, expected: &'static str) -> OptionsError {
    OptionsError::Invalid {
        parameter,
        value: value.to_owned(),
        expected,
    }
}

fn boolean(parameter: &'static str, value: &str) -> Result<bool, OptionsError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(invalid(parameter, value, "true or false")),
    }
}

fn number(parameter: &'static str, value: &str, least: u64) -> Result<Option<u64>, OptionsError> {
    if value.is_empty() {
        return Ok(None);
    }
    let number = value.parse().ok().filter(|number| *number >= least);
    let expected = match least {
        0 => "must be a number greater than or equal to 0",
        _ => "must be a number greater than 0",
    };
    number
        .map(Some)
        .ok_or_else(|| invalid(parameter, value, expected))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_of_queries() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let parse = |pairs: &[(&str, &str)]| LogOptions::parse(pairs.iter().copied(), now);
        assert_eq!(parse(&[]).unwrap(), LogOptions::default());
        let all = parse(&[
            ("follow", "true"),
            ("timestamps", ""),
            ("tailLines", "0"),
            ("limitBytes", "7"),
            ("sinceSeconds", "65"),
            ("stream", "Stderr"),
            ("other", "x"),
        ])
        .unwrap();
        assert!(all.follow && all.timestamps && !all.previous);
        assert_eq!((all.tail_lines, all.limit_bytes), (Some(0), Some(7)));
        assert_eq!(all.since.unwrap().to_string(), "2026-01-02T03:03:00Z");
        assert_eq!(all.stream, Some("stderr"));
        for bad in [
            ("tailLines", "-1"),
            ("limitBytes", "0"),
            ("sinceSeconds", "x"),
            ("sinceTime", "yesterday"),
            ("follow", "maybe"),
            ("stream", "Both"),
        ] {
            assert!(parse(&[bad]).is_err(), "{bad:?}");
        }
        let both = [("sinceSeconds", "1"), ("sinceTime", "2026-01-02T03:04:05Z")];
        assert_eq!(parse(&both).unwrap_err(), OptionsError::TwoStarts);
    }
}
