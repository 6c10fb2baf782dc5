//! Reading bodies: bounded in size; JSON, YAML or protobuf.

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::{media, protobuf};

/// The largest body that is read.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

const ACCEPTED: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// Brackets of YAML are nested at most so deep: the scanner's work grows with the depth at
/// every token, and what is deeper could not be decoded anyway.
const MAX_YAML_DEPTH: usize = 128;

/// Reads a body whole.
///
/// # Errors
/// 413 where it is too large, 400 where the client broke off.
pub async fn read(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Status::request_entity_too_large(MAX_BODY))
        }
        Err(error) => Err(Status::bad_request(format!(
            "the body could not be read: {error}"
        ))),
    }
}

/// Turns a body of a served media type into JSON.
///
/// # Errors
/// 415 for another media type, 400 for YAML that does not parse.
pub fn to_json(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Status> {
    match media::content_type(headers) {
        "" | "application/json" | "*/*" => Ok(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml_to_json(&body),
        protobuf::MEDIA_TYPE => protobuf::to_json(&body).map(Bytes::from),
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

/// Turns YAML into JSON.
///
/// # Errors
/// 400 with the position of what does not parse.
pub fn yaml_to_json(yaml: &[u8]) -> Result<Bytes, Status> {
    let malformed = |error: &dyn std::error::Error| {
        Status::bad_request(format!("error converting YAML to JSON: {error}"))
    };
    if flow_depth(yaml) > MAX_YAML_DEPTH {
        return Err(Status::bad_request(format!(
            "error converting YAML to JSON: brackets are nested more than {MAX_YAML_DEPTH} deep"
        )));
    }
    let value: serde_json::Value =
        serde_yaml::from_slice(yaml).map_err(|error| malformed(&error))?;
    let json = serde_json::to_vec(&value).map_err(|error| malformed(&error))?;
    Ok(json.into())
}

/// How deep `[` and `{` are nested, counting those that can begin a collection: not the ones in
/// the middle of a word, as text in a block scalar has them.
fn flow_depth(yaml: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut before = b' ';
    for &byte in yaml {
        match byte {
            b'[' | b'{' if before.is_ascii_whitespace() || b"[{,:-?\"'!&".contains(&before) => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = byte;
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_collections() {
        for (yaml, want) in [
            ("a: [1, {b: [2]}]", 3),
            ("[[[", 3),
            ("[a] [b]", 1),
            ("a: |\n  \\e[31m x[1 y[2\n", 0),
        ] {
            assert_eq!(flow_depth(yaml.as_bytes()), want, "{yaml}");
        }
    }
}
