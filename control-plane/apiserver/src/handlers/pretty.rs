//! JSON for people: indented, where a request asks for it, and for clients that show what they get.

use axum::body::Body;
use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, USER_AGENT};
use http::{HeaderValue, Response};

use crate::request::options::Query;

/// How the names of clients begin whose users read what comes.
const READ_BY_PEOPLE: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// Indents an answer, where it is JSON and somebody is to read it.
pub(crate) fn indented(
    headers: &HeaderMap,
    query: &Query,
    response: Response<Body>,
) -> Response<Body> {
    if !is_json(response.headers()) || !is_wanted(headers, query) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let mut indenter = Indenter::default();
    let chunks = body.into_data_stream();
    let chunks = chunks.map_ok(move |chunk| indenter.indent(&chunk));
    Response::from_parts(parts, Body::from_stream(chunks))
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    media_type.is_some_and(|media_type| media_type.starts_with(b"application/json"))
        && !headers.contains_key(CONTENT_ENCODING)
}

fn is_wanted(headers: &HeaderMap, query: &Query) -> bool {
    match query.get("pretty").unwrap_or_default() {
        "" => {
            let agent = headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
            let agent = agent.unwrap_or_default();
            READ_BY_PEOPLE.iter().any(|known| agent.starts_with(known))
        }
        asked => matches!(asked, "1" | "t" | "T" | "true" | "True" | "TRUE"),
    }
}

/// Where in a document it is between two chunks.
#[derive(Default)]
struct Indenter {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether an object or a list has just begun: an empty one stays in its line.
    begun: bool,
}

impl Indenter {
    fn indent(&mut self, json: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(json.len() * 2);
        for byte in json {
            self.push(*byte, &mut out);
        }
        out.into()
    }

    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            out.push(byte);
            return;
        }
        if byte.is_ascii_whitespace() {
            return;
        }
        let ends = matches!(byte, b'}' | b']');
        if ends {
            self.depth = self.depth.saturating_sub(1);
        }
        // What ends is on a line of its own unless it has just begun, and what has just begun is
        // followed by a line unless it ends.
        if std::mem::take(&mut self.begun) != ends {
            self.line(out);
        }
        out.push(byte);
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                self.begun = true;
            }
            b',' => self.line(out),
            b':' => out.push(b' '),
            b'"' => self.in_string = true,
            _ => {}
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_is_indented_alike_in_whatever_chunks_it_comes() {
        for value in [
            json!({}),
            json!([]),
            json!("a\"b\\"),
            json!({"a": [1, -2.5e3, null, true], "b": {}, "c": [], "d": [[], {}]}),
            json!({"a, b": ": {\"x\": [1]}", "c": {"d\\": {"e": "\\\""}}}),
        ] {
            let compact = value.to_string();
            let want = serde_json::to_string_pretty::<Value>(&value).unwrap();
            for size in 1..=compact.len() {
                let mut indenter = Indenter::default();
                let chunks = compact.as_bytes().chunks(size);
                let got: Vec<u8> = chunks.flat_map(|chunk| indenter.indent(chunk)).collect();
                assert_eq!(String::from_utf8(got).unwrap(), want, "chunks of {size}");
            }
        }
    }

    #[test]
    fn who_reads_is_asked_for_or_known() {
        for (agent, query, want) in [
            ("kubectl/v1.37.0", "", false),
            ("kubectl/v1.37.0", "pretty=true", true),
            ("kubectl/v1.37.0", "pretty=1", true),
            ("kubectl/v1.37.0", "pretty=yes", false),
            ("curl/8.0", "", true),
            ("curl/8.0", "pretty=", true),
            ("curl/8.0", "pretty=false", false),
            ("Mozilla/5.0 (X11)", "", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_static(agent));
            let query = Query::parse(Some(query));
            assert_eq!(is_wanted(&headers, &query), want, "{agent} {query:?}");
        }
    }
}
