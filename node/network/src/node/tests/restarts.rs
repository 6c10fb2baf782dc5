//! What is known from before.

use super::*;

#[test]
fn guests_know_after_a_restart_what_they_knew_before() {
    let folder = tempfile::tempdir().unwrap();
    let network = open(folder.path());
    let contents = || network.contents(&Rules::default(), &Zone::unknown("cluster.local"));
    let socket = ("10.43.0.9".parse().unwrap(), 80, Protocol::Tcp);
    let service = crate::snapshot::Virtual {
        affinity: false,
        endpoints: vec!["10.42.3.2:8080".parse().unwrap()],
        elsewhere: false,
    };
    let mut told = contents();
    told.services.insert(socket, service.clone());
    told.publish(&network.snapshot_path()).unwrap();
    // The control plane is out of reach for the next one, and for the one after it.
    for _ in 0..2 {
        let next = open(folder.path());
        let file = File::open(next.snapshot_path()).unwrap();
        let snapshot = crate::snapshot::Snapshot::open(&file).unwrap();
        assert_eq!(snapshot.service(socket), Some(service.clone()));
    }
    // Once it has heard from it, it is believed.
    let next = open(folder.path());
    *next.kept.lock() = None;
    assert_eq!(next.with_kept(contents()), contents());
}

#[tokio::test]
async fn what_pods_listen_on_is_told_before_the_control_plane_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let network = open(folder.path());
    let address: SocketAddr = "10.42.3.2:8080".parse().unwrap();
    let actual: SocketAddr = "127.0.0.1:40001".parse().unwrap();
    network.set_listeners(vec![Listener {
        sandbox: coracle_runtime::SandboxId("s".into()),
        pod_ips: vec![address.ip()],
        protocol: Protocol::Tcp,
        address,
        actual,
    }]);
    let told = async {
        loop {
            let file = File::open(network.snapshot_path()).unwrap();
            let snapshot = crate::snapshot::Snapshot::open(&file).unwrap();
            let key = (address.ip(), address.port(), Protocol::Tcp);
            if snapshot.listener(key) == Some(actual) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = network.publish_own() => {}
        told = tokio::time::timeout(Duration::from_secs(20), told) => told.unwrap(),
    }
}
