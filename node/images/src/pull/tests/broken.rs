//! Transfers that break off, and registries that want to be left alone.

use axum::body::Body;
use axum::extract::Request;
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_RANGE, HOST, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::*;
use crate::media_types::{OCI_MANIFEST, WASM_CONFIG, WASM_LAYER};

/// A registry of one image, whose layer comes in as many answers as it takes.
#[derive(Clone)]
struct Flaky {
    layer: bytes::Bytes,
    /// Bytes after which an answer breaks off.
    most: usize,
    /// What it makes of a range: where it begins with what it is asked for.
    begin: fn(usize) -> Option<usize>,
    /// The ranges that it was asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Flaky {
    fn new(size: usize, most: usize, begin: fn(usize) -> Option<usize>) -> Self {
        Self {
            layer: (0..size).map(|n| (n % 251) as u8).collect(),
            most,
            begin,
            asked: Arc::default(),
        }
    }

    fn answer(&self, request: &Request) -> Response<Body> {
        let descriptor = |media_type: &str, bytes: &[u8]| {
            json!({
                "mediaType": media_type,
                "digest": Digest::of(bytes).to_string(),
                "size": bytes.len(),
            })
        };
        let path = request.uri().path();
        if path.contains("/manifests/") {
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": descriptor(WASM_CONFIG, b"{}"),
                "layers": [descriptor(WASM_LAYER, &self.layer)],
            });
            return Response::new(Body::from(manifest.to_string()));
        }
        if path.ends_with(&Digest::of(b"{}").to_string()) {
            return Response::new(Body::from("{}"));
        }
        let range = request.headers().get(RANGE);
        let range = range.map_or("", |range| range.to_str().unwrap());
        self.asked.lock().push(range.to_owned());
        let first = range.strip_prefix("bytes=").map(|range| {
            let first = range.strip_suffix('-').unwrap();
            first.parse::<usize>().unwrap()
        });
        let first = first.and_then(self.begin);
        let begin = first.unwrap_or(0);
        let end = self.layer.len().min(begin + self.most);
        let part = self.layer.slice(begin..end);
        let whole = end == self.layer.len();
        let part = futures::stream::iter([Ok::<_, io::Error>(part)]);
        let broken = futures::stream::once(async {
            // What is before it is sent by then.
            tokio::task::yield_now().await;
            Err(io::Error::other("the line broke"))
        });
        let mut response = Response::new(match whole {
            true => Body::from_stream(part),
            false => Body::from_stream(part.chain(broken)),
        });
        if first.is_some() {
            let (last, all) = (self.layer.len() - 1, self.layer.len());
            let range = format!("bytes {begin}-{last}/{all}");
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let headers = response.headers_mut();
            headers.insert(CONTENT_RANGE, range.try_into().unwrap());
        }
        response
    }
}

fn patient() -> Node {
    Node::hasty(Limits {
        pause: Duration::from_millis(1),
        ..Limits::default()
    })
}

#[tokio::test]
async fn a_transfer_that_breaks_off_goes_on() {
    type Case = (Flaky, Option<&'static str>, &'static [&'static str]);
    const MIB: usize = 1 << 20;
    let cases: [Case; 6] = [
        (
            Flaky::new(1000, 300, Some),
            None,
            &["", "bytes=300-", "bytes=600-", "bytes=900-"],
        ),
        // It knows no ranges, and breaks off no more.
        (Flaky::new(1000, 1000, |_| None), None, &[""]),
        // It begins before what it was asked for.
        (
            Flaky::new(1000, 600, |first| Some(first - 100)),
            None,
            &["", "bytes=600-"],
        ),
        // A long line may break often, if each time something has come.
        (
            Flaky::new(7 * MIB, MIB, Some),
            None,
            &[
                "",
                "bytes=1048576-",
                "bytes=2097152-",
                "bytes=3145728-",
                "bytes=4194304-",
                "bytes=5242880-",
                "bytes=6291456-",
            ],
        ),
        // It gives up, tries all of it once more, and gives up.
        (
            Flaky::new(1000, 300, |_| None),
            Some("error"),
            &[
                "",
                "bytes=300-",
                "bytes=300-",
                "bytes=300-",
                "bytes=300-",
                "",
                "bytes=300-",
                "bytes=300-",
                "bytes=300-",
                "bytes=300-",
            ],
        ),
        (
            Flaky::new(1000, 300, |first| Some(first + 1)),
            Some("goes on at byte 301"),
            &["", "bytes=300-"],
        ),
    ];
    for (registry, error, asked) in cases {
        let served = registry.clone();
        let answer = move |request: Request| {
            let response = served.answer(&request);
            async move { response }
        };
        let host = serve(Router::new().fallback(answer)).await;
        let node = patient();
        let pulled = node.pull(&format!("{host}/app:v1")).await;
        assert_eq!(*registry.asked.lock(), asked);
        match (pulled, error) {
            (Ok(image), None) => assert!(node.module(&image) == registry.layer, "{asked:?}"),
            (Err(found), Some(cause)) => {
                assert!(found.message.contains(cause), "{found} lacks {cause}");
            }
            (pulled, _) => panic!("{asked:?}: {pulled:?}"),
        }
    }
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_for_all_again() {
    let registry = Flaky::new(1000, 300, |_| None);
    let served = registry.clone();
    let answer = move |request: Request| {
        let mut registry = served.clone();
        if registry.asked.lock().len() == 1 {
            registry.most = 1000;
        }
        let response = registry.answer(&request);
        async move { response }
    };
    let host = serve(Router::new().fallback(answer)).await;
    let node = patient();
    let image = node.pull(&format!("{host}/app:v1")).await.unwrap();
    assert!(node.module(&image) == registry.layer);
    assert_eq!(*registry.asked.lock(), ["", "bytes=300-"]);
}

/// A token may end between two requests, also within a blob.
#[tokio::test]
async fn a_token_that_ends_midway_is_renewed() {
    let registry = Flaky::new(1000, 400, Some);
    let (served, token) = (registry.clone(), Arc::new(Mutex::new(0)));
    let scopes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&scopes);
    let answer = move |request: Request| {
        let mut token = token.lock();
        let sent = request.headers().get(AUTHORIZATION);
        let response = if request.uri().path() == "/token" {
            seen.lock().push(request.uri().query().unwrap().to_owned());
            Response::new(Body::from(
                json!({"token": format!("t{token}")}).to_string(),
            ))
        } else if sent.is_some_and(|sent| *sent == format!("Bearer t{token}")) {
            // It holds for one request.
            *token += 1;
            served.answer(&request)
        } else {
            let host = request.headers()[HOST].to_str().unwrap();
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let headers = response.headers_mut();
            headers.insert(WWW_AUTHENTICATE, challenge.try_into().unwrap());
            response
        };
        async move { response }
    };
    let host = serve(Router::new().fallback(answer)).await;
    let node = patient();
    let image = node.pull(&format!("{host}/team/app:v1")).await.unwrap();
    assert!(node.module(&image) == registry.layer);
    assert_eq!(*registry.asked.lock(), ["", "bytes=400-", "bytes=800-"]);
    let scopes = scopes.lock();
    let scope = "service=s&scope=repository%3Ateam%2Fapp%3Apull";
    assert!(
        scopes.len() == 5 && scopes.iter().all(|s| s == scope),
        "{scopes:?}"
    );
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_for_long_is() {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let host = fake(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("3600"));
        response
    })
    .await;
    let error = patient().pull(&format!("{host}/app:v1")).await.unwrap_err();
    assert!(
        error.message.contains("asks to wait 3600 seconds"),
        "{error}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
