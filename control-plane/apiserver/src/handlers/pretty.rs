//! JSON for people: indented where the query says `pretty`, or where the client is one that people
//! use by hand.
//!
//! What is sent is stored, and made for programs; line breaks are put in on its way out. Watches
//! are one line for each event, whatever is asked for.

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Response};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::request::options::Query;

/// How clients begin their names that people use by hand.
const PEOPLE: &[&str] = &["curl", "Wget", "Mozilla/5.0"];

/// Whether JSON is to be indented.
pub(crate) fn is_asked(query: &Query, headers: &HeaderMap) -> bool {
    match query.get("pretty").unwrap_or_default() {
        "" => {
            let agent = headers
                .get(USER_AGENT)
                .and_then(|agent| agent.to_str().ok());
            PEOPLE
                .iter()
                .any(|name| agent.is_some_and(|agent| agent.starts_with(name)))
        }
        asked => matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

/// Indents an answer in JSON.
pub(crate) async fn indent(response: Response<Body>) -> Response<Body> {
    let media_type = response.headers().get(CONTENT_TYPE);
    if media_type.is_none_or(|media_type| !media_type.as_bytes().starts_with(b"application/json")) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let mut indenter = Indenter::default();
    // What is there at once has a length.
    let body = if body.size_hint().exact().is_some() {
        match body.collect().await {
            Ok(whole) => Body::from(indenter.indent(&whole.to_bytes())),
            Err(error) => Body::from_stream(futures::stream::iter([Err::<Bytes, _>(error)])),
        }
    } else {
        let chunks = body.into_data_stream();
        Body::from_stream(chunks.map(move |chunk| Ok::<_, axum::Error>(indenter.indent(&chunk?))))
    };
    Response::from_parts(parts, body)
}

/// Where it is in a text of JSON without white space, of which it gets one part after the other.
#[derive(Default)]
struct Indenter {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// An object or a list has been opened, and it may be empty.
    is_open: bool,
}

impl Indenter {
    fn indent(&mut self, json: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(json.len() * 2);
        for &byte in json {
            self.byte(byte, &mut out);
        }
        out.freeze()
    }

    fn byte(&mut self, byte: u8, out: &mut BytesMut) {
        if self.in_string {
            out.put_u8(byte);
            self.in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return;
        }
        let was_open = std::mem::take(&mut self.is_open);
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => self.is_open = was_open,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if !was_open {
                    self.line(out);
                }
                out.put_u8(byte);
            }
            b',' => {
                out.put_u8(byte);
                self.line(out);
            }
            b':' => out.put_slice(b": "),
            _ => {
                if was_open {
                    self.line(out);
                }
                out.put_u8(byte);
                self.in_string = byte == b'"';
                self.is_open = matches!(byte, b'{' | b'[');
                self.depth += usize::from(self.is_open);
            }
        }
    }

    fn line(&self, out: &mut BytesMut) {
        out.put_u8(b'\n');
        for _ in 0..self.depth {
            out.put_slice(b"  ");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_indented_in_whatever_parts_it_comes() {
        let value = json!({
            "a": [], "b": {}, "c": [1, "x,y:{}[]", {"d": null}],
            "e": {"f\"\\": "\\\"", "g": [[true]]},
        });
        let (short, want) = (
            value.to_string(),
            serde_json::to_string_pretty(&value).unwrap(),
        );
        for size in 1..short.len() {
            let mut indenter = Indenter::default();
            let parts = short.as_bytes().chunks(size);
            let got: Vec<u8> = parts.flat_map(|part| indenter.indent(part)).collect();
            assert_eq!(String::from_utf8(got).unwrap(), want, "in parts of {size}");
        }
        // What is indented already stays as it is.
        let again = Indenter::default().indent(want.as_bytes());
        assert_eq!(again, want.as_bytes());
    }

    #[test]
    fn people_and_those_who_ask_get_it() {
        for (query, agent, want) in [
            ("", "curl/8.5.0", true),
            ("", "Mozilla/5.0 (X11)", true),
            ("", "kubectl/v1.37.2", false),
            ("", "", false),
            ("pretty=true", "kubectl/v1.37.2", true),
            ("pretty=1", "", true),
            ("pretty=false", "curl/8.5.0", false),
            ("pretty=", "Wget/1.21", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_static(agent));
            let query_of = Query::parse(Some(query));
            assert_eq!(is_asked(&query_of, &headers), want, "{query} {agent}");
        }
    }

    #[tokio::test]
    async fn only_json_is_indented() {
        let response = |media_type: &'static str, body: Body| {
            let mut response = Response::new(body);
            let media_type = HeaderValue::from_static(media_type);
            response.headers_mut().insert(CONTENT_TYPE, media_type);
            response
        };
        let parts = || {
            let parts = ["{\"a\"", ":1}"].map(Ok::<_, std::convert::Infallible>);
            Body::from_stream(futures::stream::iter(parts))
        };
        for (media_type, body, want) in [
            (
                "application/json",
                Body::from("{\"a\":1}"),
                "{\n  \"a\": 1\n}",
            ),
            ("application/json;g=x", parts(), "{\n  \"a\": 1\n}"),
            ("application/yaml", Body::from("a: {}"), "a: {}"),
        ] {
            let indented = indent(response(media_type, body)).await;
            let bytes = indented.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(bytes, want.as_bytes(), "{media_type}");
        }
    }
}
