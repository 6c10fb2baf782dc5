//! Paths: what of a request's is the proxy's, and what the other side is asked for.
//!
//! The client's escapes stay as they are, so that a `%2F` is no slash to the other side either.

use percent_encoding::percent_decode_str;

/// The first segments of a path, and what follows them: empty, or from a slash on.
pub(super) fn split(path: &str, segments: usize) -> (String, &str) {
    let path = path.trim_start_matches('/');
    let mut slashes = path.match_indices('/').map(|(at, _)| at);
    let end = slashes.nth(segments.saturating_sub(1));
    let (prefix, rest) = path.split_at(end.unwrap_or(path.len()));
    (format!("/{prefix}"), rest)
}

/// A path from its root on without empty segments and dots, none of which leads above the root. One
/// that ends with a slash still does.
pub(super) fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match &*percent_decode_str(segment).decode_utf8_lossy() {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut cleaned = format!("/{}", kept.join("/"));
    if path.ends_with('/') && !kept.is_empty() {
        cleaned.push('/');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_proxys_up_to_its_name() {
        for (path, segments, want) in [
            ("/api/v1/nodes/n/proxy", 5, ("/api/v1/nodes/n/proxy", "")),
            ("/api/v1/nodes/n/proxy/", 5, ("/api/v1/nodes/n/proxy", "/")),
            (
                "//api/v1/nodes/n/proxy//a/",
                5,
                ("/api/v1/nodes/n/proxy", "//a/"),
            ),
            (
                "/api/v1/namespaces/a/pods/http%3Ap:80/proxy/x/proxy",
                7,
                ("/api/v1/namespaces/a/pods/http%3Ap:80/proxy", "/x/proxy"),
            ),
            ("/a", 5, ("/a", "")),
        ] {
            let (prefix, rest) = split(path, segments);
            assert_eq!((&*prefix, rest), want, "{path}");
        }
    }

    #[test]
    fn no_path_leads_above_its_root() {
        for (path, want) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b/.", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b/", "/b/"),
            ("/%2e%2E/%2e/b", "/b"),
            ("/a/../", "/"),
            ("/a%2Fb/%20", "/a%2Fb/%20"),
            ("/..a/b..", "/..a/b.."),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
    }
}
