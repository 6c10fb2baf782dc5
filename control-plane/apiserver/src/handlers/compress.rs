//! Large answers are compressed, for clients that say they read gzip (APIResponseCompression):
//! objects and lists beyond a size, watches and logs never.

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, Response};
use http_body::Body as _;
use std::io::Write;

/// Smaller answers are sent as they are.
const THRESHOLD: u64 = 128 * 1024;

/// Speed before size: most clients are near.
const LEVEL: u32 = 1;

/// Compresses an answer, where it is large and the client reads that.
pub(crate) async fn compress(headers: &HeaderMap, response: Response<Body>) -> Response<Body> {
    let known = response.body().size_hint().exact();
    if response.headers().contains_key(CONTENT_ENCODING) {
        // It is kept so.
        return response;
    }
    if known.is_some_and(|size| size <= THRESHOLD) || !accepts_gzip(headers) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The end of a short answer is met here, and asked for once more by whoever sends it.
    let mut rest = body.into_data_stream().fuse();
    let (mut begin, mut size) = (Vec::new(), 0);
    while size <= THRESHOLD {
        match rest.next().await {
            Some(Ok(chunk)) => {
                size += chunk.len() as u64;
                begin.push(Ok(chunk));
            }
            Some(Err(error)) => {
                begin.push(Err(error));
                break;
            }
            None => break,
        }
    }
    let whole = stream::iter(begin).chain(rest);
    if size <= THRESHOLD {
        return Response::from_parts(parts, Body::from_stream(whole));
    }
    parts.headers.remove(CONTENT_LENGTH);
    parts
        .headers
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts
        .headers
        .append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Body::from_stream(gzip(whole)))
}

/// Whether the client reads gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let quality = parameters.trim().strip_prefix("q=");
            let refused = quality.is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
}

fn gzip(
    body: impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
    let encoder = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
    let state = Some((Box::pin(body), encoder));
    let chunks = stream::try_unfold(state, |state| async {
        let Some((mut body, mut encoder)) = state else {
            return Ok(None);
        };
        match body.try_next().await? {
            Some(chunk) => {
                encoder.write_all(&chunk).map_err(axum::Error::new)?;
                let ready = std::mem::take(encoder.get_mut());
                Ok(Some((Bytes::from(ready), Some((body, encoder)))))
            }
            None => {
                let end = encoder.finish().map_err(axum::Error::new)?;
                Ok(Some((Bytes::from(end), None)))
            }
        }
    });
    chunks.try_filter(|chunk| std::future::ready(!chunk.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;

    use super::*;

    async fn answer(accept: &'static str, body: Body) -> (bool, Vec<u8>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
        let response = compress(&headers, Response::new(body)).await;
        let compressed = response.headers().get(CONTENT_ENCODING).is_some();
        assert_eq!(compressed, response.headers().get(VARY).is_some());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (compressed, bytes.to_vec())
    }

    #[tokio::test]
    async fn large_answers_are_compressed_for_those_who_ask() {
        let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let small = &large[..128 * 1024];
        // As lists are sent: a stream that must not be polled after its end.
        let parts = |bytes: &[u8]| {
            let chunks: Vec<_> = bytes.chunks(10_000).map(Bytes::copy_from_slice).collect();
            Body::from_stream(stream::unfold(chunks.into_iter(), |mut chunks| async {
                Some((Ok::<_, axum::Error>(chunks.next()?), chunks))
            }))
        };
        for (accept, body, bytes, want) in [
            ("gzip", Body::from(large.clone()), &large[..], true),
            ("deflate, GZIP;q=0.5", parts(&large), &large, true),
            ("gzip", Body::from(small.to_vec()), small, false),
            ("gzip", parts(small), small, false),
            ("gzip;q=0", parts(&large), &large, false),
            ("br", Body::from(large.clone()), &large, false),
        ] {
            let (compressed, mut got) = answer(accept, body).await;
            assert_eq!(compressed, want, "{accept}");
            if compressed {
                assert!(got.len() < bytes.len());
                let mut plain = Vec::new();
                GzDecoder::new(&got[..]).read_to_end(&mut plain).unwrap();
                got = plain;
            }
            assert!(got == bytes, "{accept}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_does_so_when_compressed() {
        let chunks = [
            Ok(Bytes::from(vec![7; 200_000])),
            Err(axum::Error::new(std::io::Error::other("broken"))),
        ];
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let body = Body::from_stream(stream::iter(chunks));
        let response = compress(&headers, Response::new(body)).await;
        assert!(response.into_body().collect().await.is_err());
    }
}
