//! Pods that ask for a profile of AppArmor.

use coracle_runtime::AppArmor;
use serde_json::{Value, json};

use super::world::{World, is_ready, path};

#[tokio::test]
async fn a_pod_is_refused_whose_profile_of_apparmor_is_not_loaded() {
    let world = World::with_containers();
    let kubelet = world.start();
    let profile = json!({"type": "Localhost", "localhostProfile": "own"});
    let container = json!({
        "image": "container:v1", "securityContext": {"appArmorProfile": profile},
    });
    let refused = async |name: &str| {
        world.pod(name, container.clone(), json!({}));
        let failed = |pod: &Value| pod["status"]["phase"] == "Failed";
        let pod = world.api.object(&path(name), "it is refused", failed).await;
        assert_eq!(pod["status"]["reason"], "AppArmor");
        pod["status"]["message"].as_str().unwrap().to_owned()
    };
    let rejected = "Pod was rejected: Cannot enforce AppArmor: ";
    assert_eq!(
        refused("a").await,
        format!("{rejected}AppArmor is not enabled on the host")
    );
    let write = |path: &str, text: &str| {
        let path = world.root.path().join("machine").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("sys/module/apparmor/parameters/enabled", "Y\n");
    write("sys/kernel/security/apparmor/profiles", "other (enforce)\n");
    assert_eq!(
        refused("b").await,
        format!("{rejected}profile \"own\" is not loaded")
    );
    write("sys/kernel/security/apparmor/profiles", "own (enforce)\n");
    world.pod("c", container.clone(), json!({}));
    world.api.object(&path("c"), "it is ready", is_ready).await;
    let made = world
        .containers
        .as_ref()
        .unwrap()
        .container("main")
        .unwrap();
    let expected = Some(AppArmor::Localhost("own".to_owned()));
    assert_eq!(made.config.security.app_armor, expected);
    kubelet.stop().await;
}
