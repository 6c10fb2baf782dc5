//! test/e2e/common/node/sysctl.go: which names of sysctls a Pod may have.

use serde_json::json;

use crate::harness::{Api, PODS, pod};

/// Must: a Pod with sysctls of which two have invalid names is refused for these two only.
#[tokio::test]
async fn sysctls_should_reject_invalid_sysctls() {
    let api = Api::new().await;
    let mut body = pod("sysctl");
    let names = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."];
    let sysctls = names.map(|name| json!({"name": name, "value": "42"}));
    body["spec"]["securityContext"] = json!({"sysctls": sysctls});
    let message = api.post(PODS, &body).await.fails(422, "Invalid");
    for invalid in ["Invalid value: \"foo-\"", "Invalid value: \"bar..\""] {
        assert!(message.contains(invalid), "{message}");
    }
    for valid in ["safe-and-unsafe", "kernel.shmmax"] {
        assert!(!message.contains(valid), "{message}");
    }
}
