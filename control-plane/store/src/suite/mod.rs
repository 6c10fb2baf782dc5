//! What every [`Store`] must do, as tests that are run over each of them.
//!
//! [`run`] takes any store and asks of it all that can be asked without knowing what it is;
//! [`expires`] wants one that retains little. [`Switchboard`] is a transport in memory that can
//! be cut, for clusters of several members in one process.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod mutations;
mod reads;
mod switchboard;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};

use crate::types::{
    Attributes, Error, Event, ListOptions, Precondition, Read, Record, Result, Store, Value, Watch,
};
pub use switchboard::Switchboard;

/// How long anything in the suite may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the whole suite; panics with what is wrong.
pub async fn run(store: Arc<dyn Store>) {
    let cases = [
        ("creates", mutations::creates(store.clone()).boxed()),
        ("swaps", mutations::swaps(store.clone()).boxed()),
        ("deletes", mutations::deletes(store.clone()).boxed()),
        ("counts", mutations::counts(store.clone()).boxed()),
        ("sizes", mutations::sizes(store.clone()).boxed()),
        ("cancels", mutations::cancels(store.clone()).boxed()),
        ("gets", reads::gets(store.clone()).boxed()),
        ("lists", reads::lists(store.clone()).boxed()),
        ("pages", reads::pages(store.clone()).boxed()),
        ("future", reads::future(store.clone()).boxed()),
        ("follows", watches::follows(store.clone()).boxed()),
        (
            "misses nothing",
            watches::misses_nothing(store.clone()).boxed(),
        ),
        ("progresses", watches::progresses(store.clone()).boxed()),
    ];
    // Together: each keeps to its own prefix, and must not mind the others.
    let cases = cases.map(async |(name, case)| {
        let done = tokio::time::timeout(DEADLINE, case).await;
        assert!(done.is_ok(), "case {name:?} did not end");
    });
    futures::future::join_all(cases).await;
    let slow = tokio::time::timeout(DEADLINE, watches::slow(store)).await;
    assert!(slow.is_ok(), "case \"slow\" did not end");
}

/// What a store that retains less than a thousand changes does when they are passed.
pub async fn expires(store: Arc<dyn Store>) {
    reads::expires(store).await;
}

/// A value that carries a text, with a uid and a label to match.
#[must_use]
pub fn value(text: &str) -> Value {
    let attributes = Attributes {
        uid: format!("uid of {text}"),
        labels: [("text".to_owned(), text.to_owned())].into(),
        fields: [("spec.text".to_owned(), text.to_owned())].into(),
        schema: 1,
        splice: 0,
    };
    Value::new(text.as_bytes(), &attributes)
}

/// The text that a record carries.
#[must_use]
pub fn text(record: &Record) -> &str {
    std::str::from_utf8(record.value().json()).unwrap()
}

/// All records under a prefix, as they are now.
pub async fn all(store: &dyn Store, prefix: &str) -> Vec<Record> {
    let options = ListOptions {
        read: Read::Latest,
        limit: 0,
        start_after: None,
    };
    store.list(prefix, options).await.unwrap().records
}

/// The next event of a watch that is no progress.
async fn change(watch: &mut Watch) -> Result<Event> {
    loop {
        match watch.next().await.expect("a watch ends with an error") {
            Ok(Event::Progress(_)) => {}
            other => return other,
        }
    }
}

fn any() -> Precondition {
    Precondition::default()
}

fn at(record: &Record) -> Precondition {
    Precondition {
        uid: None,
        revision: Some(record.revision()),
    }
}

/// Puts whatever is at the key.
async fn put(store: &dyn Store, key: &str, text: &str) -> Record {
    match store.create(key, value(text)).await {
        Err(Error::Exists { .. }) => store
            .compare_and_swap(key, any(), value(text))
            .await
            .unwrap(),
        other => other.unwrap(),
    }
}
