//! Answers every request with a greeting and the name of the Pod that served it.

use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let pod = std::env::var("POD_NAME").unwrap_or_else(|_| "a Pod".into());
    let body = format!("Hello from {pod}, you asked for {}\n", request.uri().path());
    Ok(Response::builder()
        .header("content-type", "text/plain; charset=utf-8")
        .body(body.into())?)
}
