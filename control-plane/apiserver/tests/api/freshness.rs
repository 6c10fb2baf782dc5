//! Which state a get, a list and a watch show: every combination of `resourceVersion`,
//! `resourceVersionMatch`, `limit` and `continue` that the Kubernetes documentation tabulates.

use coracle_store::{MemoryStore, RaftConfig, RaftStore};
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS};

/// A collection with a past: `a` and `b` were there then, `b` and `c` are now.
struct Past {
    api: Api,
    then: u64,
    now: u64,
}

impl Past {
    async fn new() -> Self {
        let api = Api::new().await;
        api.config_map("a").await;
        api.config_map("b").await;
        let then = version(&api.get(CONFIG_MAPS).await.ok(200));
        api.delete(&format!("{CONFIG_MAPS}/a")).await.ok(200);
        api.config_map("c").await;
        let now = version(&api.get(CONFIG_MAPS).await.ok(200));
        Self { api, then, now }
    }

    /// A query, with the versions put in.
    fn query(&self, query: &str) -> String {
        let soon = (self.now + 1000).to_string();
        query
            .replace("THEN", &self.then.to_string())
            .replace("NOW", &self.now.to_string())
            .replace("SOON", &soon)
    }
}

fn version(list: &Value) -> u64 {
    let text = list["metadata"]["resourceVersion"].as_str();
    text.unwrap().parse().unwrap()
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    items.map(name).collect()
}

/// What a read is expected to show.
#[derive(Clone, Copy, Debug)]
enum Want {
    Now,
    Then,
    Refused(u16, &'static str),
}

use Want::{Now, Refused, Then};

const INVALID: Want = Refused(422, "Invalid");

#[tokio::test]
async fn a_list_is_as_fresh_as_was_asked_for() {
    let past = Past::new().await;
    let table = [
        ("", Now, Now),
        ("resourceVersion=", Now, Now),
        ("resourceVersion=0", Now, Now),
        // Without a limit at least as new, with one exactly.
        ("resourceVersion=THEN", Now, Then),
        ("resourceVersion=NOW", Now, Now),
        ("resourceVersionMatch=NotOlderThan", INVALID, INVALID),
        ("resourceVersionMatch=Exact", INVALID, INVALID),
        (
            "resourceVersion=0&resourceVersionMatch=NotOlderThan",
            Now,
            Now,
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            INVALID,
            INVALID,
        ),
        (
            "resourceVersion=THEN&resourceVersionMatch=NotOlderThan",
            Now,
            Now,
        ),
        (
            "resourceVersion=THEN&resourceVersionMatch=Exact",
            Then,
            Then,
        ),
        ("resourceVersion=NOW&resourceVersionMatch=Exact", Now, Now),
        (
            "resourceVersion=NOW&resourceVersionMatch=Newest",
            INVALID,
            INVALID,
        ),
        (
            "resourceVersion=x",
            Refused(400, "BadRequest"),
            Refused(400, "BadRequest"),
        ),
        (
            "resourceVersion=-1",
            Refused(400, "BadRequest"),
            Refused(400, "BadRequest"),
        ),
        ("sendInitialEvents=true", INVALID, INVALID),
    ];
    for (query, unlimited, limited) in table {
        let query = past.query(query);
        for (query, want) in [
            (query.clone(), unlimited),
            (format!("{query}&limit=500"), limited),
            (format!("{query}&limit=1"), limited),
        ] {
            shows(&past, &query, want).await;
        }
    }
}

/// Follows the pages of a list to the end: all are of one state, the wanted one.
async fn shows(past: &Past, query: &str, want: Want) {
    let path = format!("{CONFIG_MAPS}?{query}");
    let first = past.api.get(&path).await;
    let (found, revision) = match want {
        Refused(code, reason) => {
            first.fails(code, reason);
            return;
        }
        Now => (["b", "c"], past.now),
        Then => (["a", "b"], past.then),
    };
    let mut list = first.ok(200);
    let mut all = names(&list);
    assert_eq!(version(&list), revision, "{query}");
    while let Some(token) = list["metadata"]["continue"].as_str() {
        let limit = if query.contains("limit=1") { 1 } else { 500 };
        let next = format!("{CONFIG_MAPS}?limit={limit}&continue={token}");
        list = past.api.get(&next).await.ok(200);
        assert_eq!(version(&list), revision, "{query}");
        all.extend(names(&list));
    }
    assert_eq!(all, found, "{query}");
}

#[tokio::test]
async fn a_continue_token_says_the_version_itself() {
    let past = Past::new().await;
    let first = past
        .api
        .get(&format!("{CONFIG_MAPS}?limit=1"))
        .await
        .ok(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let table = [
        ("resourceVersion=", Now),
        ("resourceVersion=0", Now),
        ("resourceVersion=NOW", Refused(400, "BadRequest")),
        (
            "resourceVersion=0&resourceVersionMatch=NotOlderThan",
            INVALID,
        ),
        ("resourceVersionMatch=NotOlderThan", INVALID),
        ("resourceVersion=NOW&resourceVersionMatch=Exact", INVALID),
    ];
    for (query, want) in table {
        let query = past.query(query);
        let answer = past
            .api
            .get(&format!("{CONFIG_MAPS}?limit=1&continue={token}&{query}"))
            .await;
        match want {
            Refused(code, reason) => {
                answer.fails(code, reason);
            }
            _ => assert_eq!(names(&answer.ok(200)), ["c"], "{query}"),
        }
    }
    for broken in ["x", "e30", &token[1..]] {
        let path = format!("{CONFIG_MAPS}?continue={broken}");
        past.api.get(&path).await.fails(400, "BadRequest");
    }
}

#[tokio::test]
async fn a_get_is_as_fresh_as_was_asked_for() {
    let past = Past::new().await;
    let b = past.api.get(&format!("{CONFIG_MAPS}/b")).await.ok(200);
    // A get has no other options: what else is in the query is not read.
    for query in [
        "",
        "resourceVersion=",
        "resourceVersion=0",
        "resourceVersion=THEN",
        "resourceVersion=NOW",
        "resourceVersionMatch=Exact",
        "limit=x",
    ] {
        let query = past.query(query);
        let read = past.api.get(&format!("{CONFIG_MAPS}/b?{query}")).await;
        assert_eq!(read.ok(200), b, "{query}");
        let gone = past.api.get(&format!("{CONFIG_MAPS}/a?{query}")).await;
        gone.fails(404, "NotFound");
    }
    let wrong = format!("{CONFIG_MAPS}/b?resourceVersion=x");
    past.api.get(&wrong).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn a_watch_begins_where_it_was_asked_to() {
    let past = Past::new().await;
    let state = ["ADDED b", "ADDED c"];
    let since = ["DELETED a", "ADDED c"];
    let list = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents";
    let whole = ["ADDED b", "ADDED c", "BOOKMARK -"];
    let table: [(&str, &[&str]); 13] = [
        ("", &state),
        ("allowWatchBookmarks=true", &whole),
        ("allowWatchBookmarks=true&resourceVersion=0", &whole),
        ("resourceVersion=0", &state),
        ("resourceVersion=THEN", &since),
        ("resourceVersion=NOW", &[]),
        (&format!("{list}=true"), &whole),
        (&format!("{list}=true&resourceVersion=0"), &whole),
        (&format!("{list}=true&resourceVersion=THEN"), &whole),
        (&format!("{list}=false"), &[]),
        (&format!("{list}=false&resourceVersion=0"), &[]),
        (&format!("{list}=false&resourceVersion=THEN"), &since),
        // Who wants no bookmarks is sent none.
        (
            "resourceVersionMatch=NotOlderThan&sendInitialEvents=true",
            &state,
        ),
    ];
    let mut watches = Vec::new();
    for (query, want) in table {
        let query = past.query(query);
        let mut watch = past
            .api
            .watch(&format!("{CONFIG_MAPS}?watch=true&{query}"))
            .await;
        for line in want {
            assert_eq!(watch.line().await, *line, "{query}");
        }
        watches.push((query, watch));
    }
    past.api.config_map("d").await;
    for (query, mut watch) in watches {
        assert_eq!(watch.line().await, "ADDED d", "{query}");
    }
}

#[tokio::test]
async fn a_watch_with_options_that_make_no_sense_is_refused() {
    let past = Past::new().await;
    let table = [
        ("sendInitialEvents=true", 422, "Invalid"),
        ("sendInitialEvents=false", 422, "Invalid"),
        ("resourceVersionMatch=Exact", 422, "Invalid"),
        ("resourceVersionMatch=NotOlderThan", 422, "Invalid"),
        (
            "sendInitialEvents=true&resourceVersion=NOW&resourceVersionMatch=Exact",
            422,
            "Invalid",
        ),
        ("resourceVersion=x", 400, "BadRequest"),
    ];
    for (query, code, reason) in table {
        let query = past.query(query);
        let path = format!("{CONFIG_MAPS}?watch=true&{query}");
        past.api.get(&path).await.fails(code, reason);
    }
}

#[tokio::test]
async fn what_has_not_happened_yet_is_waited_for_and_then_refused() {
    let past = Past::new().await;
    let paths = [
        format!("{CONFIG_MAPS}/b?resourceVersion=SOON"),
        format!("{CONFIG_MAPS}?resourceVersion=SOON"),
        format!("{CONFIG_MAPS}?resourceVersion=SOON&resourceVersionMatch=Exact"),
        format!("{CONFIG_MAPS}?resourceVersion=SOON&limit=1"),
        format!("{CONFIG_MAPS}?watch=true&resourceVersion=SOON"),
    ];
    let asked = paths.iter().map(|path| past.query(path));
    let reads = asked.map(|path| {
        let api = past.api.clone();
        async move { api.get(&path).await }
    });
    for answer in futures::future::join_all(reads).await {
        let message = answer.fails(504, "Timeout");
        assert!(message.contains("Too large resource version"), "{message}");
        let details = &answer.json()["details"];
        assert_eq!(details["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert_eq!(details["retryAfterSeconds"], 1);
        assert_eq!(answer.headers["retry-after"], "1");
    }

    // What comes within the time is shown.
    let next = past.now + 1;
    let path = format!("{CONFIG_MAPS}?resourceVersion={next}");
    let (list, _) = tokio::join!(past.api.get(&path), past.api.config_map("d"));
    assert_eq!(names(&list.ok(200)), ["b", "c", "d"]);
}

#[tokio::test]
async fn a_state_that_is_no_longer_kept_cannot_be_listed_exactly() {
    let api = Api::over(MemoryStore::with_history(1), |_| {}).await;
    api.config_map("a").await;
    api.config_map("b").await;
    let table = [
        ("resourceVersion=1&resourceVersionMatch=Exact", 410),
        ("resourceVersion=1&limit=1", 410),
        ("resourceVersion=1", 200),
        (
            "resourceVersion=1&resourceVersionMatch=NotOlderThan&limit=1",
            200,
        ),
    ];
    for (query, code) in table {
        let answer = api.get(&format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(answer.code, code, "{query}: {}", answer.text);
        if code == 410 {
            answer.fails(410, "Expired");
        }
    }
}

#[tokio::test]
async fn what_remains_is_counted_unless_something_is_selected() {
    let api = Api::new().await;
    for name in ["a", "b", "c", "d"] {
        api.config_map(name).await;
    }
    let table = [
        ("limit=1", json!(3)),
        ("limit=3", json!(1)),
        ("limit=4", Value::Null),
        ("", Value::Null),
        ("limit=1&labelSelector=name", Value::Null),
        ("limit=1&fieldSelector=metadata.name!%3Da", Value::Null),
    ];
    for (query, want) in table {
        let list = api.get(&format!("{CONFIG_MAPS}?{query}")).await.ok(200);
        assert_eq!(list["metadata"]["remainingItemCount"], want, "{query}");
        let whole = matches!(query, "" | "limit=4");
        assert_eq!(list["metadata"].get("continue").is_none(), whole, "{query}");
    }
}

/// The store of a process that starts over in the same directory.
async fn opened(folder: &std::path::Path) -> std::sync::Arc<RaftStore> {
    let config = RaftConfig {
        segment_bytes: 1 << 20,
        reserve_bytes: 1 << 20,
        ..RaftConfig::single(folder, 1)
    };
    RaftStore::open(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_continue_token_outlives_the_server_that_gave_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path()).await;
    let api = Api::over(store.clone(), |_| {}).await;
    for name in ["a", "b", "c", "d"] {
        api.config_map(name).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok(200);
    assert_eq!(names(&first), ["a", "b"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    api.config_map("bb").await;
    api.delete(&format!("{CONFIG_MAPS}/c")).await.ok(200);
    drop(api);
    store.shutdown().await;
    drop(store);

    let store = opened(folder.path()).await;
    let api = Api::over(store.clone(), |_| {}).await;
    let rest = format!("{CONFIG_MAPS}?limit=2&continue={token}");
    let rest = api.get(&rest).await.ok(200);
    assert_eq!(names(&rest), ["c", "d"]);
    assert_eq!(version(&rest), version(&first));
    assert!(rest["metadata"].get("continue").is_none());
    drop(api);
    store.shutdown().await;
}
