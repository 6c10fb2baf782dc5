//! A client in the cluster, with the token and under the address that every Pod is given.
//!
//! Without arguments it asks the API server as whom it knows this Pod. `whoami FILE` asks with
//! another token. `whoami verify FILE AUDIENCE` asks nobody about a token, but checks it as a
//! relying party does, by what its issuer says of itself.

mod api;
mod issuer;

use serde_json::{Value, json};
use wstd::http::Error;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

#[wstd::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["verify", file, audience] => {
            issuer::verify(&std::fs::read_to_string(file)?, audience).await
        }
        [file] => whoami(&std::fs::read_to_string(file)?).await,
        _ => {
            let certificates = api::own("ca.crt")?.matches("BEGIN CERTIFICATE").count();
            let namespace = api::own("namespace")?;
            println!("namespace {namespace}, certificates {certificates}");
            whoami(&api::own("token")?).await
        }
    }
}

async fn whoami(token: &str) -> Result<(), Error> {
    let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let url = format!("{}{REVIEWS}", api::server()?);
    let answer = api::send(&url, token, Some(&question)).await?;
    let user = &answer["status"]["userInfo"];
    println!("{}", user["username"].as_str().unwrap_or_default());
    let extra: Option<&serde_json::Map<String, Value>> = user["extra"].as_object();
    for (key, values) in extra.into_iter().flatten() {
        println!("{key} {values}");
    }
    Ok(())
}
