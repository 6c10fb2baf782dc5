//! The version that a server says it is.

use crate::harness::Api;

/// Must: the server tells its version, and both the major and the minor one are numbers alone
#[tokio::test]
async fn server_version_should_find_the_server_version() {
    let version = Api::new().await.get("/version").await.ok(200);
    for part in ["major", "minor"] {
        let number = version[part].as_str().unwrap();
        assert!(number.parse::<u32>().is_ok(), "{part}: {number}");
    }
}
