//! How many seats a request takes: one, and a list one for each 100 kB that are in memory for it,
//! up to what its priority level allows. The estimate is that of Kubernetes, which serves most lists
//! from its cache, a part at a time.

use crate::registry::list::Stored;
use crate::request::info::RequestInfo;
use crate::request::options::Query;

const BYTES_PER_SEAT: usize = 100_000;

/// The most that is in memory for a list that comes from the cache.
const MOST_FROM_CACHE: usize = 1_000_000;

/// Whether what is stored matters for the width of a request: for lists, and for watches that begin
/// with the state.
pub(crate) fn depends_on_stored(info: &RequestInfo, query: &Query) -> bool {
    if !info.is_resource {
        return false;
    }
    match info.verb.as_str() {
        "list" => true,
        "watch" => {
            let version = query.get("resourceVersion").unwrap_or_default();
            matches!(version, "" | "0") || query.flag("sendInitialEvents") == Some(true)
        }
        _ => false,
    }
}

/// The seats of a request that goes through what is stored.
pub(crate) fn of_list(info: &RequestInfo, query: &Query, stored: Stored) -> usize {
    let given = |name: &str| query.get(name).is_some_and(|value| !value.is_empty());
    let Ok(limit) = query.number("limit") else {
        // It will be refused; until then nobody knows what it would have cost.
        return usize::MAX;
    };
    let limit = usize::try_from(limit.unwrap_or(0)).unwrap_or(0);
    let limited = match limit {
        0 => stored.count,
        limit => limit.min(stored.count),
    };
    let from_cache = info.verb == "watch" || is_from_cache(query, limit);
    let objects = if !info.name.is_empty() {
        1
    } else if !from_cache && (given("fieldSelector") || given("labelSelector")) {
        // A selector looks at all of them, however few it returns.
        limited.max(stored.count / 2)
    } else {
        limited
    };
    let mut bytes = objects.saturating_mul(stored.size);
    if from_cache {
        bytes = bytes.min(MOST_FROM_CACHE);
    }
    bytes.div_ceil(BYTES_PER_SEAT).max(1)
}

/// Whether Kubernetes has what a list wants in its cache: not the state of a certain version, to
/// which a continued list belongs too.
fn is_from_cache(query: &Query, limit: usize) -> bool {
    let text = |name: &str| query.get(name).unwrap_or_default();
    let version = text("resourceVersion");
    match text("resourceVersionMatch") {
        "NotOlderThan" => true,
        "" => text("continue").is_empty() && (limit == 0 || matches!(version, "" | "0")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::info::request_info;

    #[test]
    fn lists_cost_by_what_is_in_memory_for_them() {
        let pods = "/api/v1/pods";
        let exact = "resourceVersion=7&resourceVersionMatch=Exact";
        let one = "fieldSelector=metadata.name%3Da";
        let table = [
            (pods, "", (0, 0), Some(1)),
            (pods, "", (100, 1000), Some(1)),
            (pods, "", (101, 1000), Some(2)),
            // A cache sends what it has as it goes.
            (pods, "", (100_000, 1000), Some(10)),
            (pods, "limit=500", (100_000, 1000), Some(5)),
            (pods, "limit=500", (20, 1000), Some(1)),
            (pods, "limit=500&labelSelector=a%3Db", (2000, 1000), Some(5)),
            (pods, "resourceVersion=7", (2000, 1000), Some(10)),
            (pods, "resourceVersion=7&limit=1500", (2000, 1000), Some(15)),
            (pods, "resourceVersion=0&limit=1500", (2000, 1000), Some(10)),
            (pods, "continue=x&limit=1500", (2000, 1000), Some(15)),
            (pods, exact, (2000, 1000), Some(20)),
            (
                pods,
                "continue=x&limit=500&labelSelector=a%3Db",
                (2000, 1000),
                Some(10),
            ),
            (pods, one, (2000, 1000), Some(1)),
            (pods, one, (2000, 250_000), Some(3)),
            (pods, "limit=x", (1, 1), Some(usize::MAX)),
            (pods, "limit=-1", (200, 1000), Some(2)),
            ("/api/v1/namespaces/a/pods/p", "", (2000, 1000), None),
            ("/version", "", (2000, 1000), None),
        ];
        for (path, query, (count, size), want) in table {
            let query = Query::parse(Some(query));
            let info = request_info(&Method::GET, path, false).select(&query);
            let stored = Stored { count, size };
            let depends = depends_on_stored(&info, &query);
            let seats = depends.then(|| of_list(&info, &query, stored));
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
            ("resourceVersion=7&sendInitialEvents=false", false),
            ("sendInitialEvents=false", true),
        ];
        let info = request_info(&Method::GET, "/api/v1/pods", true);
        for (query, want) in table {
            let query = Query::parse(Some(query));
            assert_eq!(depends_on_stored(&info, &query), want, "{query:?}");
        }
    }
}
