//! Fuzz targets for what the server itself reads of requests: continue tokens, paths, queries and
//! headers. Those of the formats and of patches are with the code that reads them.

#[path = "../../../apimachinery/tests/fuzz/drawn.rs"]
mod drawn;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_apiserver::registry::continuation::Continuation;
use coracle_apiserver::request::info::request_info;
use coracle_apiserver::request::media::{MediaType, Offer, negotiate};
use coracle_apiserver::request::options::{DeleteRequest, ListOptions, Query, WriteOptions};
use http::{HeaderMap, HeaderValue, Method};

/// Runs a target over its corpus and over random inputs.
macro_rules! fuzz {
    ($target:expr) => {
        let target = $target;
        bolero::check!()
            .with_iterations(0)
            .for_each(|bytes: &[u8]| target(bytes));
        drawn::inputs(target);
    };
}

/// A text of words, chosen by the bytes, where they are no text themselves.
fn text_of(bytes: &[u8], words: &[&str]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes
            .iter()
            .take(64)
            .map(|byte| words[usize::from(*byte) % words.len()])
            .collect(),
    }
}

#[test]
fn continue_tokens() {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "\"v\":",
        "\"coracle/v1\"",
        ",",
        "\"rv\":",
        "1",
        "-1",
        "9e9",
        "\"start\":",
        "\"a\"",
        "null",
        "[",
        "\"\\u0000\"",
    ];
    fuzz!(|bytes: &[u8]| {
        let text = text_of(bytes, WORDS);
        for token in [text.clone(), URL_SAFE_NO_PAD.encode(&text)] {
            match Continuation::parse(&token) {
                Ok(read) => assert_eq!(Continuation::parse(&read.token()).unwrap(), read),
                Err(status) => assert_eq!(status.code(), 400),
            }
        }
        let revision = text.len() as u64 * 0x0101_0101_0101;
        for made in [
            Continuation::at(revision, &text),
            Continuation::inconsistent(&text),
        ] {
            let read = Continuation::parse(&made.token()).unwrap();
            assert_eq!((&read, read.start()), (&made, text.as_str()));
        }
    });
}

#[test]
fn paths_and_queries() {
    const WORDS: &[&str] = &[
        "/",
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "default",
        "pods",
        "status",
        "log",
        "%2f",
        "%2e%2e",
        "%00",
        "%ff",
        "%",
        "..",
        "?",
        "&",
        "=",
        "labelSelector=",
        "a in (b)",
        "limit=",
        "1",
        "-1",
        "continue=",
        "resourceVersion=",
        "0",
        "resourceVersionMatch=Exact",
        "watch=true",
        "sendInitialEvents=",
        "dryRun=All",
        "fieldValidation=Strict",
        "gracePeriodSeconds=",
        "propagationPolicy=Orphan",
        "+",
    ];
    fuzz!(|bytes: &[u8]| {
        let text = text_of(bytes, WORDS);
        let (path, query) = text.split_once('?').unwrap_or((&text, ""));
        let query = Query::parse(Some(query));
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            let info = request_info(&method, path, query.flag("watch").unwrap_or(false));
            assert_eq!(info.path, path);
            // What is authorized as a path is no resource, and what is one has a name.
            assert!(!info.is_resource || path.contains("pi"), "{path}");
            assert!(
                info.is_resource || info.resource.is_empty() && info.name.is_empty(),
                "{path}"
            );
        }
        let refused = [
            ListOptions::parse(&query, false).err(),
            ListOptions::parse(&query, true).err(),
            WriteOptions::parse(&query, "create").err(),
            DeleteRequest::parse(&query, None).err(),
        ];
        for status in refused.into_iter().flatten() {
            assert!(matches!(status.code(), 400 | 422), "{text}");
        }
    });
}

#[test]
fn media_types() {
    const WORDS: &[&str] = &[
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/cbor",
        "application/cbor-seq",
        "*/*",
        "application/*",
        "text/html",
        ",",
        ";",
        "q=",
        "0",
        "0.5",
        "1",
        "nan",
        "-inf",
        "1e999",
        "as=Table",
        "as=PartialObjectMetadata",
        "g=meta.k8s.io",
        "v=v1",
        "stream=watch",
        "\"",
        " ",
        "=",
    ];
    fuzz!(|bytes: &[u8]| {
        let text = text_of(bytes, WORDS);
        let _ = MediaType::parse(&text).parameter("q");
        let Ok(value) = HeaderValue::from_str(&text) else {
            return;
        };
        let headers = HeaderMap::from_iter([(http::header::ACCEPT, value)]);
        for (protobuf, watch) in [(false, false), (true, false), (true, true)] {
            if let Some(accepted) = negotiate(&headers, Offer { protobuf, watch }) {
                let wanted = accepted.format.media_type();
                // JSON is what is meant by anything; the others are asked for by name.
                assert!(
                    wanted == "application/json" || text.contains(&wanted[..16]),
                    "{text}: {wanted}"
                );
            }
        }
    });
}
