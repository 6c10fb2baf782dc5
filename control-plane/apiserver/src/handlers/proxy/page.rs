//! The body of a page while its links are rewritten: it is read and sent on piece by piece, also where
//! it comes compressed.

use std::io::{self, Write};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use futures::StreamExt;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};

use super::html::Rewriter;
use super::links::Links;

/// Compressed bytes that are unpacked at once. Each may become a thousand.
const UNPACKED: usize = 1 << 10;

/// In which form a page comes whose links can be rewritten; none for what is no such page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
}

impl Coding {
    /// By the headers of an answer.
    pub(super) fn of_page(headers: &HeaderMap) -> Option<Self> {
        // What cannot be read is nothing that is known.
        let text = |name: HeaderName| match headers.get(name) {
            Some(value) => value.to_str().ok(),
            None => Some(""),
        };
        let kind = text(CONTENT_TYPE)?.split(';').next()?.trim();
        if !kind.eq_ignore_ascii_case("text/html") {
            return None;
        }
        match text(CONTENT_ENCODING)? {
            "" | "identity" => Some(Self::Plain),
            "gzip" => Some(Self::Gzip),
            _ => None,
        }
    }
}

/// A page while it is rewritten.
struct Page {
    rewriter: Rewriter,
    gzip: Option<Gzip>,
}

struct Gzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    encoder: GzEncoder<Vec<u8>>,
    /// Whether anything has come: nothing at all is no gzip, and is answered by nothing.
    begun: bool,
}

impl Page {
    fn new(links: Links, coding: Coding) -> Self {
        let gzip = (coding == Coding::Gzip).then(|| Gzip {
            decoder: MultiGzDecoder::new(Vec::new()),
            encoder: GzEncoder::new(Vec::new(), Compression::fast()),
            begun: false,
        });
        Self {
            rewriter: Rewriter::new(links),
            gzip,
        }
    }

    fn feed(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let Some(Gzip {
            decoder,
            encoder,
            begun,
        }) = &mut self.gzip
        else {
            self.rewriter.feed(piece, &mut out);
            return Ok(out);
        };
        *begun |= !piece.is_empty();
        for part in piece.chunks(UNPACKED) {
            decoder.write_all(part)?;
            decoder.flush()?;
            self.rewriter.feed(decoder.get_ref(), &mut out);
            decoder.get_mut().clear();
            encoder.write_all(&out)?;
            out.clear();
        }
        if !piece.is_empty() {
            encoder.flush()?;
        }
        Ok(std::mem::take(encoder.get_mut()))
    }

    fn end(mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let Some(Gzip {
            mut decoder,
            mut encoder,
            begun,
        }) = self.gzip
        else {
            self.rewriter.end(&mut out);
            return Ok(out);
        };
        if !begun {
            return Ok(out);
        }
        decoder.try_finish()?;
        self.rewriter.feed(decoder.get_ref(), &mut out);
        self.rewriter.end(&mut out);
        encoder.write_all(&out)?;
        encoder.finish()
    }
}

/// The body with its links rewritten. One that breaks off does so still.
pub(super) fn rewritten(body: Body, links: Links, coding: Coding) -> Body {
    let start = Some((body.into_data_stream(), Page::new(links, coding)));
    let pieces = futures::stream::unfold(start, |state| async move {
        let (mut pieces, mut page) = state?;
        loop {
            let piece = match pieces.next().await {
                Some(piece) => piece.map_err(io::Error::other),
                None => return Some((page.end(), None)),
            };
            match piece.and_then(|piece| page.feed(&piece)) {
                // A tag that is held.
                Ok(out) if out.is_empty() => {}
                Ok(out) => return Some((Ok(out), Some((pieces, page)))),
                Err(error) => return Some((Err(error), None)),
            }
        }
    });
    Body::from_stream(pieces.map(|piece| piece.map(Bytes::from)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http::HeaderValue;
    use http_body_util::BodyExt;

    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/P".to_owned(),
            origin: String::new(),
            asked: String::new(),
        }
    }

    async fn whole(pieces: Vec<io::Result<Vec<u8>>>, coding: Coding) -> Option<Vec<u8>> {
        let body = Body::from_stream(futures::stream::iter(pieces));
        let collected = rewritten(body, links(), coding).collect().await.ok()?;
        Some(collected.to_bytes().to_vec())
    }

    fn in_pieces(bytes: &[u8]) -> Vec<io::Result<Vec<u8>>> {
        bytes.chunks(7).map(|piece| Ok(piece.to_vec())).collect()
    }

    #[test]
    fn pages_are_html_in_a_form_that_is_known() {
        for (kind, coding, want) in [
            ("text/html", None, Some(Coding::Plain)),
            (
                "Text/HTML ; charset=utf-8",
                Some("identity"),
                Some(Coding::Plain),
            ),
            ("text/html", Some("gzip"), Some(Coding::Gzip)),
            ("text/html", Some("br"), None),
            ("text/html", Some("deflate"), None),
            ("text/htmlx", None, None),
            ("application/json", None, None),
            ("", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Some(coding) = coding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            assert_eq!(Coding::of_page(&headers), want, "{kind} {coding:?}");
        }
        assert_eq!(Coding::of_page(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn pages_are_rewritten_in_either_form() {
        let page = "<p><a href='/a'>a</a>".repeat(100);
        let want = page.replace("/a'", "/P/a'");
        let plain = whole(in_pieces(page.as_bytes()), Coding::Plain).await;
        assert_eq!(String::from_utf8(plain.unwrap()).unwrap(), want);

        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(page.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let answered = whole(in_pieces(&packed), Coding::Gzip).await.unwrap();
        let mut unpacked = String::new();
        GzDecoder::new(&*answered)
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, want);

        for coding in [Coding::Plain, Coding::Gzip] {
            assert_eq!(whole(Vec::new(), coding).await, Some(Vec::new()));
        }
    }

    #[tokio::test]
    async fn a_page_that_breaks_off_is_not_whole() {
        let broken = vec![
            Ok(b"<a href='/a'>".to_vec()),
            Err(io::ErrorKind::ConnectionReset.into()),
        ];
        assert_eq!(whole(broken, Coding::Plain).await, None);
        let nonsense = in_pieces(b"this is not what it says it is, and longer than a header");
        assert_eq!(whole(nonsense, Coding::Gzip).await, None);
    }
}
