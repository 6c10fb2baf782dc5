//! Keeps a count in a file: `POST` adds one, `GET` reads. Each request is an instance of its
//! own, so whatever is to be remembered stands in the volume.

use std::fs::{self, OpenOptions};
use std::io::Write;

use wstd::http::{Body, Error, Method, Request, Response, StatusCode};

/// One byte is appended for each count: an append needs no lock between instances.
const FILE: &str = "/data/count";

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let answer = |status, text: String| Ok(Response::builder().status(status).body(text.into())?);
    if request.method() == Method::POST {
        let added = OpenOptions::new()
            .create(true)
            .append(true)
            .open(FILE)
            .and_then(|mut file| file.write_all(b"."));
        if let Err(error) = added {
            return answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot count in {FILE}: {error}\n"),
            );
        }
    } else if request.method() != Method::GET {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "GET or POST\n".into());
    }
    let count = fs::metadata(FILE).map_or(0, |file| file.len());
    answer(StatusCode::OK, format!("{count}\n"))
}
