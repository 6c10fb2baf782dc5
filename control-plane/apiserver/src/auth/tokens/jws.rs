//! Signed text in the compact form of RFC 7515: `header.payload.signature`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::keys::{KeyError, SigningKey};

/// What a token says of its signature.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kid: Option<String>,
    /// Extensions that must be understood; none is.
    #[serde(default, skip_serializing)]
    crit: Option<IgnoredAny>,
}

/// A token that has been taken apart, and not been checked.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) header: Header,
    /// What is signed.
    pub(super) message: &'a str,
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// Takes a token apart; `None` for what is none.
pub(super) fn parse(token: &str) -> Option<Parts<'_>> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    // A dot is no letter of base64: there are three parts, or this fails.
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
    if header.crit.is_some() {
        return None;
    }
    Some(Parts {
        header,
        message,
        payload: decode(payload)?,
        signature: decode(signature)?,
    })
}

/// Signs a payload.
pub(super) fn sign(key: &SigningKey, payload: &[u8]) -> Result<String, KeyError> {
    let header = Header {
        alg: key.public().algorithm().to_owned(),
        kid: Some(key.public().id().to_owned()),
        crit: None,
    };
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(&header), encode(payload));
    let signature = encode(&key.sign(message.as_bytes())?);
    Ok(format!("{message}.{signature}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::keys::tests::signing_key;
    use super::*;

    #[test]
    fn what_is_signed_reads_back() {
        let key = signing_key();
        let token = sign(&key, b"{}").unwrap();
        let parts = parse(&token).unwrap();
        assert_eq!(parts.payload, b"{}");
        assert_eq!(parts.header.kid.as_deref(), Some(key.public().id()));
        let message = parts.message.as_bytes();
        let algorithm = &parts.header.alg;
        assert!(key.public().verifies(algorithm, message, &parts.signature));
    }

    #[test]
    fn what_is_no_token_is_none() {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let critical = format!("{}.e30.AA", encode(r#"{"alg":"ES256","crit":["x"]}"#));
        let plain = format!("{}.e30.AA", encode(r#"{"alg":"ES256"}"#));
        assert!(parse(&plain).is_some());
        for text in [
            "",
            "a",
            "..",
            "a.b",
            "e30.e30.AA",
            &critical,
            &format!("{plain}.AA"),
            &format!("{plain}="),
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
