//! How many seats a request takes: one, and a list one for each hundred objects that it goes
//! through, up to what its priority level allows.

use crate::request::info::RequestInfo;
use crate::request::options::Query;

const OBJECTS_PER_SEAT: usize = 100;

/// Whether the number of stored objects matters for the width of a request: for lists, and for
/// watches that begin with the state.
pub(crate) fn depends_on_count(info: &RequestInfo, query: &Query) -> bool {
    if !info.is_resource || !info.name.is_empty() {
        return false;
    }
    match info.verb.as_str() {
        "list" => true,
        "watch" => {
            let from_now = !matches!(query.get("resourceVersion").unwrap_or_default(), "" | "0");
            query.flag("sendInitialEvents").unwrap_or(!from_now)
        }
        _ => false,
    }
}

/// The seats of a request that goes through objects of which `stored` exist.
pub(crate) fn of_list(query: &Query, stored: usize) -> usize {
    let given = |name: &str| query.get(name).is_some_and(|value| !value.is_empty());
    let limit = query.number("limit").ok().flatten().unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(0);
    // A selector looks at all of them, however few it returns.
    let selects = given("labelSelector") || given("fieldSelector");
    let seen = if limit > 0 && !selects {
        limit.min(stored)
    } else {
        stored
    };
    seen.div_ceil(OBJECTS_PER_SEAT).max(1)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::info::request_info;

    #[test]
    fn lists_cost_by_what_they_go_through() {
        let pods = "/api/v1/pods";
        let table = [
            (pods, "", 0, Some(1)),
            (pods, "", 1000, Some(10)),
            (pods, "", 1001, Some(11)),
            (pods, "limit=500", 1_000_000, Some(5)),
            (pods, "limit=500", 20, Some(1)),
            (pods, "limit=500&labelSelector=a%3Db", 2000, Some(20)),
            (pods, "fieldSelector=metadata.name%3Da", 2000, None),
            ("/api/v1/namespaces/a/pods/p", "", 2000, None),
            ("/version", "", 2000, None),
        ];
        for (path, query, stored, want) in table {
            let query = Query::parse(Some(query));
            let info = request_info(&Method::GET, path, false).select(&query);
            let seats = depends_on_count(&info, &query).then(|| of_list(&query, stored));
            assert_eq!(seats, want, "{path} {query:?}");
        }
    }

    #[test]
    fn watches_cost_when_they_begin_with_the_state() {
        let table = [
            ("", true),
            ("resourceVersion=0", true),
            ("resourceVersion=7", false),
            ("resourceVersion=7&sendInitialEvents=true", true),
            ("sendInitialEvents=false", false),
        ];
        let info = request_info(&Method::GET, "/api/v1/pods", true);
        for (query, want) in table {
            let query = Query::parse(Some(query));
            assert_eq!(depends_on_count(&info, &query), want, "{query:?}");
        }
    }
}
