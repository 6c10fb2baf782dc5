//! Counts visits: asks the `kv-store` Service, by its name, to add one, and shows the count.

use wstd::http::{Body, BodyExt, Client, Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>, Error> {
    let store = std::env::var("STORE_URL").unwrap_or_else(|_| "http://kv-store:8080/".into());
    match count(&store).await {
        Ok(count) => Ok(Response::new(format!("visit {}\n", count.trim()).into())),
        Err(error) => Ok(Response::builder()
            .status(StatusCode::BAD_GATEWAY)
            .body(format!("no answer from {store}: {error}\n").into())?),
    }
}

async fn count(store: &str) -> Result<String, Error> {
    let request = Request::post(store).body(Body::empty())?;
    let response = Client::new().send(request).await?;
    let body = response.into_body().into_boxed_body().collect().await?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
