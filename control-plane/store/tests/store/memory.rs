use coracle_store::{MemoryStore, suite};

#[tokio::test]
async fn passes_the_suite() {
    suite::run(MemoryStore::with_history(64 << 20)).await;
}

#[tokio::test]
async fn expires_what_it_does_not_retain() {
    suite::expires(MemoryStore::with_history(10_000)).await;
}
