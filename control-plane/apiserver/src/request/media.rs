//! Media types: what a client accepts and what it sends.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

/// Encodings that are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
}

impl Format {
    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What is made of an object before it is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The object as it is.
    #[default]
    Whole,
    /// `meta.k8s.io/v1 Table`, for people.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata` or its list.
    Metadata,
}

/// A media type that the client accepts and that is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Encoding.
    pub format: Format,
    /// Transformation.
    pub shape: Shape,
}

/// A clause of an Accept header, or a Content-Type.
#[derive(Debug, Default)]
pub struct MediaType<'a> {
    /// Type and subtype.
    pub essence: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    /// Reads one clause. There is no malformed one: what is not understood matches nothing.
    #[must_use]
    pub fn parse(clause: &'a str) -> Self {
        let mut parts = clause.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        Self {
            essence,
            parameters,
        }
    }

    /// A parameter, or the empty string.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &'a str {
        self.parameters
            .iter()
            .find(|(n, _)| *n == name)
            .map_or("", |(_, value)| value)
    }

    fn quality(&self) -> f32 {
        self.parameter("q").parse().unwrap_or(1.0)
    }
}

/// The clauses of the Accept header, the preferred ones first.
#[must_use]
pub fn accept_clauses(headers: &HeaderMap) -> Vec<MediaType<'_>> {
    let mut clauses: Vec<MediaType<'_>> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(MediaType::parse)
        .filter(|clause| !clause.essence.is_empty())
        .collect();
    clauses.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    clauses
}

/// Chooses what to answer with; `None` is 406.
#[must_use]
pub fn negotiate(headers: &HeaderMap) -> Option<Accepted> {
    let clauses = accept_clauses(headers);
    if clauses.is_empty() {
        return Some(Accepted::default());
    }
    clauses.iter().find_map(|clause| {
        let format = match clause.essence {
            "application/json" | "application/*" | "*/*" => Format::Json,
            "application/yaml" | "application/x-yaml" => Format::Yaml,
            _ => return None,
        };
        let meta_v1 = clause.parameter("g") == "meta.k8s.io" && clause.parameter("v") == "v1";
        let shape = match clause.parameter("as") {
            "" => Shape::Whole,
            "Table" if meta_v1 => Shape::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" if meta_v1 => Shape::Metadata,
            _ => return None,
        };
        Some(Accepted { format, shape })
    })
}

/// The type and subtype of the request's body; empty when the client does not say.
#[must_use]
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    MediaType::parse(value.unwrap_or_default()).essence
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn accepted(header: &'static str) -> Option<Accepted> {
        let mut headers = HeaderMap::new();
        if !header.is_empty() {
            headers.insert(ACCEPT, HeaderValue::from_static(header));
        }
        negotiate(&headers)
    }

    #[test]
    fn negotiation() {
        let plain = Some(Accepted::default());
        let yaml = Some(Accepted {
            format: Format::Yaml,
            shape: Shape::Whole,
        });
        let table = Some(Accepted {
            format: Format::Json,
            shape: Shape::Table,
        });
        let partial = Some(Accepted {
            format: Format::Json,
            shape: Shape::Metadata,
        });
        let cases = [
            ("", plain),
            ("*/*", plain),
            (
                "application/vnd.kubernetes.protobuf, application/json",
                plain,
            ),
            ("application/yaml", yaml),
            ("application/json;q=0.5, application/yaml", yaml),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                table,
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
                plain,
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                partial,
            ),
            ("application/json;stream=watch", plain),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
        ];
        for (header, want) in cases {
            assert_eq!(accepted(header), want, "{header}");
        }
    }
}
