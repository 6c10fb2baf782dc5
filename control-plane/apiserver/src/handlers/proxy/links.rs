//! Links of what the other side answers, so that they lead through the proxy again: those to itself,
//! and those that name no host.

use super::path::clean;

/// Where pages come from, and where their links lead instead.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// Path of the proxy, without a slash at its end.
    pub(super) prefix: String,
    /// Host, and port where it has one, of the other side.
    pub(super) origin: String,
    /// The host that the client asked, by which the other side may call itself.
    pub(super) asked: String,
}

impl Links {
    /// A link as it is to be instead; none where it stays as it is.
    pub(super) fn rewrite(&self, link: &str) -> Option<String> {
        let Parts {
            origin,
            host,
            rest: path,
        } = parts(link)?;
        let is_own = host.is_empty() || host == self.origin || host == self.asked;
        if !is_own || !path.starts_with('/') {
            return None;
        }
        // What begins with the host that was asked still does.
        let origin = if host == self.asked { origin } else { "" };
        let end = path.find(['?', '#']).unwrap_or(path.len());
        let (path, more) = path.split_at(end);
        let rewritten = if path.starts_with(&self.prefix) {
            format!("{origin}{path}{more}")
        } else {
            format!("{origin}{}{}{more}", self.prefix, clean(path))
        };
        (rewritten != link).then_some(rewritten)
    }
}

struct Parts<'a> {
    /// Scheme and host, with what is around them; empty where no host is named.
    origin: &'a str,
    host: &'a str,
    rest: &'a str,
}

/// Takes a link apart; none where it is of another scheme than HTTP.
fn parts(link: &str) -> Option<Parts<'_>> {
    let before = link.split(['/', '?', '#']).next().unwrap_or_default();
    let scheme = match before.split_once(':') {
        None => 0,
        Some((scheme, _)) => {
            let known = ["http", "https"];
            if !known.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
                return None;
            }
            scheme.len() + 1
        }
    };
    let rest = &link[scheme..];
    let Some(after) = rest.strip_prefix("//") else {
        return Some(Parts {
            origin: "",
            host: "",
            rest,
        });
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (host, rest) = after.split_at(end);
    Some(Parts {
        origin: &link[..link.len() - rest.len()],
        host,
        rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/a/pods/p:80/proxy";

    #[test]
    fn links_lead_through_the_proxy() {
        let links = Links {
            prefix: PREFIX.to_owned(),
            origin: "10.42.0.5:80".to_owned(),
            asked: "localhost:8001".to_owned(),
        };
        let through = |path: &str| Some(format!("{PREFIX}{path}"));
        for (link, want) in [
            ("/", through("/")),
            ("/rewriteme", through("/rewriteme")),
            ("/a/", through("/a/")),
            ("/a//b/../c?x=/y#/z", through("/a/c?x=/y#/z")),
            ("/?x", through("/?x")),
            ("/a:b", through("/a:b")),
            ("http://10.42.0.5:80/a", through("/a")),
            ("https://10.42.0.5:80/a", through("/a")),
            ("//10.42.0.5:80/a", through("/a")),
            ("http:/a", through("/a")),
            (
                "http://localhost:8001/a",
                Some(format!("http://localhost:8001{PREFIX}/a")),
            ),
            // These lead there already, or somewhere else.
            (format!("{PREFIX}/a").as_str(), None),
            (format!("http://localhost:8001{PREFIX}/a").as_str(), None),
            ("http://10.42.0.5:81/a", None),
            ("http://10.42.0.5/a", None),
            ("https://example.com/a", None),
            ("//example.com/a", None),
            ("http://10.42.0.5:80", None),
            ("http://u@10.42.0.5:80/a", None),
            ("a/b", None),
            ("?a=/b", None),
            ("#/a", None),
            ("", None),
            ("mailto:a@b", None),
            ("javascript:/a/", None),
            ("data:text/html,/a", None),
            (" /a", None),
        ] {
            assert_eq!(links.rewrite(link), want, "{link}");
        }
        let absolute = format!("http://10.42.0.5:80{PREFIX}/a");
        assert_eq!(links.rewrite(&absolute), through("/a"));
    }
}
