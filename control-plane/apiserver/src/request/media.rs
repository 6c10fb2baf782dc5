//! Media types: what a client accepts and what it sends.

use std::cmp::Reverse;

use coracle_apimachinery::{cbor, protobuf};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

/// Encodings that are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
    /// `application/cbor`.
    Cbor,
}

impl Format {
    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA_TYPE,
            Self::Cbor => cbor::MEDIA_TYPE,
        }
    }

    /// The media type of a watch. There is none in YAML.
    #[must_use]
    pub fn watch_media_type(self) -> &'static str {
        match self {
            Self::Protobuf => protobuf::WATCH_MEDIA_TYPE,
            Self::Cbor => cbor::WATCH_MEDIA_TYPE,
            _ => self.media_type(),
        }
    }
}

/// What can be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whether the kind has a protobuf form: custom resources have none.
    pub protobuf: bool,
    /// Whether the answer is a stream of events.
    pub watch: bool,
}

/// A version of `meta.k8s.io`. Shapes are the same in both, but for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    /// `v1`.
    V1,
    /// `v1beta1`, for clients older than 1.15.
    V1beta1,
}

impl MetaVersion {
    /// As objects say it.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What is made of an object before it is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The object as it is.
    #[default]
    Whole,
    /// `meta.k8s.io Table`, for people.
    Table(MetaVersion),
    /// `meta.k8s.io PartialObjectMetadata`, of one object or of what is watched.
    Metadata(MetaVersion),
    /// `meta.k8s.io PartialObjectMetadataList`, of a list.
    MetadataList(MetaVersion),
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

    /// How much the client wants it; 1 where it does not say.
    #[must_use]
    pub fn quality(&self) -> f32 {
        self.parameter("q").parse().unwrap_or(1.0)
    }

    /// 0: names all types; 1: all of a type; 2: one.
    fn precision(&self) -> u8 {
        match self.essence {
            "*/*" => 0,
            essence if essence.ends_with("/*") => 1,
            _ => 2,
        }
    }
}

/// The clauses of the Accept header, the preferred ones first: those of a higher quality, then
/// those that say more, then those that come first.
#[must_use]
pub fn accept_clauses(headers: &HeaderMap) -> Vec<MediaType<'_>> {
    // A clause may have tens of thousands of parameters: its quality is looked for once.
    let mut clauses: Vec<(f32, MediaType<'_>)> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(MediaType::parse)
        .map(|clause| (clause.quality(), clause))
        .filter(|(quality, clause)| !clause.essence.is_empty() && *quality > 0.0)
        .collect();
    clauses.sort_by(|(a_quality, a), (b_quality, b)| {
        let precision = |clause: &MediaType<'_>| Reverse(clause.precision());
        b_quality
            .total_cmp(a_quality)
            .then(precision(a).cmp(&precision(b)))
    });
    clauses.into_iter().map(|(_, clause)| clause).collect()
}

/// Chooses what to answer with; `None` is 406.
#[must_use]
pub fn negotiate(headers: &HeaderMap, offer: Offer) -> Option<Accepted> {
    if headers.get_all(ACCEPT).iter().all(HeaderValue::is_empty) {
        return Some(Accepted::default());
    }
    let clauses = accept_clauses(headers);
    clauses.iter().find_map(|clause| accept(clause, offer))
}

fn accept(clause: &MediaType<'_>, offer: Offer) -> Option<Accepted> {
    let format = match clause.essence {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" | "application/x-yaml" if !offer.watch => Format::Yaml,
        protobuf::MEDIA_TYPE if offer.protobuf => Format::Protobuf,
        cbor::MEDIA_TYPE => Format::Cbor,
        cbor::WATCH_MEDIA_TYPE if offer.watch => Format::Cbor,
        _ => return None,
    };
    let shape = shape(clause, format)?;
    let stream = clause.parameter("stream");
    let streams = stream.is_empty() || (stream == "watch" && format != Format::Yaml);
    streams.then_some(Accepted { format, shape })
}

/// What a clause wants to be made of an object, if that is served. One that names a group or a
/// version says of what kind.
fn shape(clause: &MediaType<'_>, format: Format) -> Option<Shape> {
    let [kind, group, version] = ["as", "g", "v"].map(|name| clause.parameter(name));
    if kind.is_empty() && group.is_empty() && version.is_empty() {
        return Some(Shape::Whole);
    }
    let version = match (group, version) {
        ("meta.k8s.io", "v1") => MetaVersion::V1,
        ("meta.k8s.io", "v1beta1") => MetaVersion::V1beta1,
        _ => return None,
    };
    match kind {
        // Tables are for people, and have no other forms.
        "Table" if matches!(format, Format::Json | Format::Yaml) => Some(Shape::Table(version)),
        "PartialObjectMetadata" => Some(Shape::Metadata(version)),
        "PartialObjectMetadataList" => Some(Shape::MetadataList(version)),
        _ => None,
    }
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
    use super::*;

    fn accepted(header: &'static str, offer: Offer) -> Option<Accepted> {
        let mut headers = HeaderMap::new();
        if header != "-" {
            headers.insert(ACCEPT, HeaderValue::from_static(header));
        }
        negotiate(&headers, offer)
    }

    #[test]
    fn negotiation() {
        use Format::{Cbor, Json, Protobuf, Yaml};
        use MetaVersion::{V1, V1beta1};
        use Shape::{Metadata, MetadataList, Table, Whole};
        let object = Offer {
            protobuf: true,
            watch: false,
        };
        let custom = Offer {
            protobuf: false,
            ..object
        };
        let watch = Offer {
            watch: true,
            ..object
        };
        let cases = [
            ("-", object, Some((Json, Whole))),
            ("", object, Some((Json, Whole))),
            ("*/*", object, Some((Json, Whole))),
            (
                "application/vnd.kubernetes.protobuf, application/json",
                object,
                Some((Protobuf, Whole)),
            ),
            (
                "application/vnd.kubernetes.protobuf, application/json",
                custom,
                Some((Json, Whole)),
            ),
            ("application/vnd.kubernetes.protobuf", custom, None),
            (
                "application/vnd.kubernetes.protobuf;stream=watch",
                watch,
                Some((Protobuf, Whole)),
            ),
            ("application/cbor", object, Some((Cbor, Whole))),
            ("application/cbor", watch, Some((Cbor, Whole))),
            ("application/cbor-seq", watch, Some((Cbor, Whole))),
            ("application/cbor-seq", object, None),
            ("application/yaml", object, Some((Yaml, Whole))),
            ("application/yaml", watch, None),
            (
                "application/yaml, application/json;q=0.1",
                watch,
                Some((Json, Whole)),
            ),
            (
                "application/json;q=0.5, application/yaml",
                object,
                Some((Yaml, Whole)),
            ),
            ("*/*, application/yaml", object, Some((Yaml, Whole))),
            ("application/json;q=0, text/html", object, None),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                object,
                Some((Json, Table(V1))),
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
                object,
                Some((Json, Whole)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
                object,
                None,
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                object,
                Some((Protobuf, MetadataList(V1))),
            ),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                object,
                Some((Json, Metadata(V1))),
            ),
            (
                "application/json;as=Table;g=meta.k8s.io;v=v1beta1",
                object,
                Some((Json, Table(V1beta1))),
            ),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1",
                watch,
                Some((Json, Metadata(V1beta1))),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1beta1",
                object,
                Some((Protobuf, MetadataList(V1beta1))),
            ),
            // Neither is any of these a form of what is asked for.
            (
                "application/json;as=Status;g=meta.k8s.io;v=v1",
                object,
                None,
            ),
            ("application/json;as=Table;v=v1", object, None),
            (
                "application/json;as=Table;g=meta.k8s.io;v=v1alpha1",
                object,
                None,
            ),
            ("application/json;g=meta.k8s.io;v=v1", object, None),
            ("application/json;stream=watch", watch, Some((Json, Whole))),
            ("application/json;stream=other", watch, None),
            ("text/html", object, None),
        ];
        for (header, offer, want) in cases {
            let want = want.map(|(format, shape)| Accepted { format, shape });
            assert_eq!(accepted(header, offer), want, "{header} {offer:?}");
        }
    }

    #[test]
    fn a_clause_of_many_parameters_is_read_once() {
        let many = |quality: &str| format!(",text/html;q={quality}").repeat(10_000);
        // It stands behind all that follow, and is compared with each of them.
        let long = format!("application/json{};q=0.5", ";a=".repeat(40_000));
        let header = format!("{long}{}{}", many("0.4"), many("0.9"));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::try_from(header).expect("a header"));
        let clauses = accept_clauses(&headers);
        assert_eq!(clauses.len(), 20_001);
        assert_eq!(clauses[10_000].essence, "application/json");
    }
}
