//! The API server, as a Pod finds it.
//!
//! Its certificate is checked by the host, against the authority whose certificates lie beside the
//! token: `wasi:http` leaves no other way.

use std::path::Path;

use serde_json::Value;
use wstd::http::{Body, BodyExt, Client, Error, Request};

/// Where a Pod finds what is its service account's.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// One of the files there.
pub fn own(name: &str) -> Result<String, Error> {
    Ok(std::fs::read_to_string(Path::new(FOLDER).join(name))?)
}

/// The server's URL, by the variables that every container has.
pub fn server() -> Result<String, Error> {
    let variable = |name: &str| std::env::var(format!("KUBERNETES_SERVICE_{name}"));
    Ok(format!(
        "https://{}:{}",
        variable("HOST")?,
        variable("PORT")?
    ))
}

/// Posts an object, or gets one.
pub async fn send(url: &str, token: &str, object: Option<&Value>) -> Result<Value, Error> {
    let (method, body) = match object {
        Some(object) => ("POST", Body::from(object.to_string())),
        None => ("GET", Body::empty()),
    };
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(body)?;
    let response = Client::new().send(request).await?;
    let status = response.status();
    let body = response.into_body().into_boxed_body().collect().await?;
    let answer = serde_json::from_slice(&body.to_bytes())?;
    if status.is_success() {
        Ok(answer)
    } else {
        Err(Error::msg(format!("{url}: {status}: {answer}")))
    }
}
