//! Lists in chunks.

use coracle_store::MemoryStore;
use serde_json::{Value, json};

use crate::harness::Api;

const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
const ALL: usize = 400;

/// Makes the PodTemplates that are listed.
async fn populate(api: &Api) {
    let spec = json!({"containers": [{"name": "test", "image": "test2"}]});
    for number in 0..ALL {
        let metadata = json!({"name": format!("template-{number:04}")});
        let body = json!({"metadata": metadata, "template": {"spec": spec}});
        api.post(TEMPLATES, &body).await.ok(201);
    }
}

/// A list that is read in chunks.
struct Reader {
    api: Api,
    limit: usize,
    found: usize,
}

impl Reader {
    /// Reads the chunk after a token: no more than the limit, what comes next in order, and how
    /// much remains. Gives the list's version and the next token.
    async fn chunk(&mut self, token: Option<&str>) -> (String, Option<String>) {
        let token = token.map_or(String::new(), |token| format!("&continue={token}"));
        let path = format!("{TEMPLATES}?limit={}{token}", self.limit);
        let list = self.api.get(&path).await.ok(200);
        let items = list["items"].as_array().unwrap();
        assert!(items.len() <= self.limit);
        for item in items {
            let name = format!("template-{:04}", self.found);
            assert_eq!(item["metadata"]["name"], name);
            self.found += 1;
        }
        let metadata = &list["metadata"];
        let next = metadata["continue"].as_str().map(str::to_owned);
        let remaining = match &next {
            Some(_) => json!(ALL - self.found),
            None => Value::Null,
        };
        assert_eq!(metadata["remainingItemCount"], remaining);
        (
            metadata["resourceVersion"].as_str().unwrap().to_owned(),
            next,
        )
    }

    /// Reads all chunks from a token on: each is of one version, which is given.
    async fn rest(&mut self, mut token: Option<String>) -> String {
        let mut version = None;
        loop {
            let (of_chunk, next) = self.chunk(token.as_deref()).await;
            assert_eq!(version.get_or_insert_with(|| of_chunk.clone()), &of_chunk);
            token = next;
            if token.is_none() {
                return of_chunk;
            }
        }
    }
}

/// Must: the first chunk has no more items than the limit, and says how many remain
/// Must: each further chunk has no more than the limit, says how many remain, and is of the first
/// one's version
/// Must: a list without a limit that cuts it has all items at once
#[tokio::test]
async fn servers_with_support_for_api_chunking_should_return_chunks_of_results_for_list_calls() {
    let api = Api::new().await;
    populate(&api).await;
    for _ in 0..3 {
        let mut reader = Reader {
            api: api.clone(),
            limit: 17,
            found: 0,
        };
        reader.rest(None).await;
        assert_eq!(reader.found, ALL);
    }
    for limit in [0, ALL + 1] {
        let list = api.get(&format!("{TEMPLATES}?limit={limit}")).await.ok(200);
        assert_eq!(list["items"].as_array().unwrap().len(), ALL);
        assert!(list["metadata"].get("continue").is_none());
    }
}

/// Must: the first chunk has no more items than the limit, and says how many remain
/// Must: once its version is gone, its token is refused and another comes with the refusal
/// Must: with that the second chunk is read, of another version, with a new token and how many
/// remain
/// Must: the chunks after it are of that version, have no more than the limit, and say how many
/// remain
#[tokio::test]
async fn servers_with_support_for_api_chunking_should_support_continue_listing_from_the_last_key_if_the_original_version_has_been_compacted_away_though_the_list_is_inconsistent()
 {
    // No history is kept but the latest change: every write compacts what was before it.
    let api = Api::over(MemoryStore::with_history(1), |_| {}).await;
    populate(&api).await;
    let mut reader = Reader {
        api: api.clone(),
        limit: ALL / 10,
        found: 0,
    };
    let (first, token) = reader.chunk(None).await;
    let token = token.unwrap();
    for name in ["one", "two"] {
        api.config_map(name).await;
    }
    let path = format!("{TEMPLATES}?limit={}&continue={token}", reader.limit);
    let refused = api.get(&path).await;
    refused.fails(410, "Expired");
    let inconsistent = refused.json()["metadata"]["continue"].clone();

    let (second, token) = reader.chunk(inconsistent.as_str()).await;
    assert_ne!(second, first);
    assert_eq!(reader.found, 2 * reader.limit);
    assert!(token.is_some());
    assert_eq!(reader.rest(token).await, second);
    assert_eq!(reader.found, ALL);
}
