//! Checks a token as OpenID Connect has it: the issuer that it names says where its keys are, and
//! one of them has signed it for the audience that is expected.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::EncodedPoint;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use serde_json::{Value, json};
use wstd::http::Error;

use crate::api;

pub async fn verify(token: &str, audience: &str) -> Result<(), Error> {
    let parts: Vec<&str> = token.trim().split('.').collect();
    let [header, payload, signature] = parts[..] else {
        return Err(Error::msg("this is no token"));
    };
    let message = format!("{header}.{payload}");
    let (header, claims): (Value, Value) = (read(header)?, read(payload)?);
    let issuer = claims["iss"].as_str().unwrap_or_default();

    let own = api::own("token")?;
    let configuration = format!("{issuer}/.well-known/openid-configuration");
    let configuration = api::send(&configuration, &own, None).await?;
    if configuration["issuer"] != issuer {
        return Err(Error::msg("the issuer calls itself by another name"));
    }
    let keys = configuration["jwks_uri"].as_str().unwrap_or_default();
    let keys = api::send(keys, &own, None).await?;
    let mut keys = keys["keys"].as_array().into_iter().flatten();
    let key = keys
        .find(|key| key["kid"] == header["kid"] && key["alg"] == header["alg"])
        .ok_or_else(|| Error::msg("the issuer has no such key"))?;
    let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature)?)?;
    public(key)?.verify(message.as_bytes(), &signature)?;
    let meant = claims["aud"]
        .as_array()
        .is_some_and(|audiences| audiences.contains(&json!(audience)));
    if !meant {
        return Err(Error::msg(format!("the token is for {}", claims["aud"])));
    }
    println!("verified {} for {audience} by {issuer}", claims["sub"]);
    Ok(())
}

fn read(part: &str) -> Result<Value, Error> {
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

fn public(key: &Value) -> Result<VerifyingKey, Error> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        point.extend(URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap_or_default())?);
    }
    let point = EncodedPoint::from_bytes(&point)?;
    Ok(VerifyingKey::from_encoded_point(&point)?)
}
