//! What the name in a proxy's path says: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.

/// How the other side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    /// Over TLS, with whatever certificate.
    Https,
}

impl Scheme {
    /// The port where none is named.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A name in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) scheme: Scheme,
    /// Of the object; not empty.
    pub(super) name: &'a str,
    /// A number or a name; empty where none is named.
    pub(super) port: &'a str,
}

impl<'a> Name<'a> {
    /// Takes it apart; none where it has other parts.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let scheme = match scheme {
            "" | "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_up_to_three_parts() {
        use Scheme::{Http, Https};
        for (text, want) in [
            ("web", Some((Http, "web", ""))),
            ("web:80", Some((Http, "web", "80"))),
            ("web:", Some((Http, "web", ""))),
            ("web:metrics", Some((Http, "web", "metrics"))),
            (":web:80", Some((Http, "web", "80"))),
            ("http:web:80", Some((Http, "web", "80"))),
            ("https:web:", Some((Https, "web", ""))),
            ("https:web:443", Some((Https, "web", "443"))),
            ("", None),
            (":80", None),
            ("https::443", None),
            ("ftp:web:21", None),
            ("HTTPS:web:443", None),
            ("https:web:443:x", None),
        ] {
            let parsed = Name::parse(text).map(|of| (of.scheme, of.name, of.port));
            assert_eq!(parsed, want, "{text}");
        }
    }
}
