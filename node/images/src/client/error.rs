//! What a registry answers instead of what was asked, and whether it is worth asking again.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;
use serde::Deserialize;

use super::{SMALL_BODY, bounded};

/// How long a pull waits for a registry that asks for it. What takes longer is the business of whoever
/// tries again later.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the registry did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("not found{0}")]
    NotFound(String),
    #[error("access denied{0}")]
    Denied(String),
    #[error("registry answered {status}{message}")]
    Status {
        status: StatusCode,
        message: String,
        /// How long the registry asks to be left alone.
        retry_after: Option<Duration>,
    },
    #[error("{0}")]
    Connect(String),
    #[error("{0}")]
    Transport(String),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ClientError {
    /// How long to wait, `least` or longer, before the same request may succeed; none where it would
    /// not, or not soon.
    pub(crate) fn pause(&self, least: Duration) -> Option<Duration> {
        match self {
            Self::Status {
                status,
                retry_after,
                ..
            } => {
                let passes = status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS;
                let asked = retry_after.unwrap_or_default();
                (passes && asked <= PATIENCE).then_some(asked.max(least))
            }
            Self::Connect(_) | Self::Transport(_) => Some(least),
            Self::Io(error) => (error.kind() == io::ErrorKind::UnexpectedEof).then_some(least),
            Self::NotFound(_) | Self::Denied(_) | Self::Invalid(_) => None,
        }
    }
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        // reqwest's own text leaves the cause out; the innermost one is what helps a user.
        let mut text = String::new();
        let mut source: Option<&dyn std::error::Error> = error.source();
        while let Some(cause) = source {
            text = cause.to_string();
            source = cause.source();
        }
        let host = error
            .url()
            .map(|url| url[..url::Position::BeforePath].to_owned())
            .unwrap_or_default();
        if error.is_timeout() {
            Self::Transport(format!("{host}: timed out"))
        } else if error.is_connect() {
            Self::Connect(format!("{host}: {text}"))
        } else if error.is_redirect() {
            Self::Invalid(format!("{host}: {error}: {text}"))
        } else {
            Self::Transport(format!("{host}: {error}: {text}"))
        }
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Makes an error of a response, with what the registry says of it.
pub(super) async fn refused(
    status: StatusCode,
    method: &Method,
    response: Response,
) -> ClientError {
    let retry_after = retry_after(response.headers());
    let mut message = String::new();
    if method != Method::HEAD
        && let Ok(body) = bounded(response, SMALL_BODY, "error").await
        && let Ok(errors) = serde_json::from_slice::<Errors>(&body)
        && let Some(first) = errors.errors.into_iter().next()
    {
        let text = if first.message.is_empty() {
            first.code
        } else {
            first.message
        };
        let printable = text.chars().filter(|c| !c.is_control());
        message = format!(": {}", printable.take(300).collect::<String>());
    }
    match status {
        StatusCode::NOT_FOUND => ClientError::NotFound(message),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ClientError::Denied(message),
        status => {
            if let Some(wait) = retry_after {
                message += &format!(" (it asks to wait {} seconds)", wait.as_secs());
            }
            ClientError::Status {
                status,
                message,
                retry_after,
            }
        }
    }
}

/// How long a registry asks to be left alone (RFC 9110, 10.2.3). A date is not read: it would be
/// compared with a clock that may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    seconds.ok().map(Duration::from_secs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn how_long_to_wait() {
        type Case = (u16, Option<&'static str>, Option<u64>);
        let cases: [Case; 8] = [
            (429, None, Some(1)),
            (429, Some("0"), Some(1)),
            (429, Some("7"), Some(7)),
            (503, Some(" 30 "), Some(30)),
            (429, Some("31"), None),
            (429, Some("99999999999999999999999"), Some(1)),
            (503, Some("Fri, 31 Dec 1999 23:59:59 GMT"), Some(1)),
            (400, Some("7"), None),
        ];
        for (status, asked, expected) in cases {
            let asked = asked.map(|asked| (RETRY_AFTER, HeaderValue::from_static(asked)));
            let headers: HeaderMap = asked.into_iter().collect();
            let error = ClientError::Status {
                status: StatusCode::from_u16(status).unwrap(),
                message: String::new(),
                retry_after: retry_after(&headers),
            };
            let pause = error.pause(Duration::from_secs(1));
            assert_eq!(
                pause,
                expected.map(Duration::from_secs),
                "{status} {headers:?}"
            );
        }
    }
}
