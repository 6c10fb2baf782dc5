//! The Service by which Pods reach the API server.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::Api;

const CORE: &str = "/api/v1/namespaces/default";

/// Must: there is a Service `kubernetes` in the default namespace
#[tokio::test]
async fn api_server_should_provide_secure_master_service() {
    let api = Api::new().await;
    let path = format!("{CORE}/services/kubernetes");
    let service = api.get(&path).await.ok(200);
    assert_eq!(service["spec"]["ports"][0]["name"], "https");
}

/// Values of one field of all items of several lists.
fn all<'a>(lists: impl IntoIterator<Item = &'a Value>, field: &str) -> BTreeSet<String> {
    let items = lists
        .into_iter()
        .flat_map(|list| list.as_array().into_iter().flatten());
    items.map(|item| item[field].to_string()).collect()
}

/// Must: the Service `kubernetes` has Endpoints and EndpointSlices, with the same addresses and
/// ports, which are those of the API server
#[tokio::test]
async fn api_server_should_have_endpoints_and_endpointslices_pointing_to_api_server() {
    let api = Api::new().await;
    api.get(&format!("{CORE}/services/kubernetes"))
        .await
        .ok(200);
    let endpoints = api
        .get(&format!("{CORE}/endpoints/kubernetes"))
        .await
        .ok(200);
    let subsets = endpoints["subsets"].as_array().unwrap();
    let addresses = all(subsets.iter().map(|subset| &subset["addresses"]), "ip");
    let ports = all(subsets.iter().map(|subset| &subset["ports"]), "port");
    assert_eq!(addresses, BTreeSet::from(["\"192.0.2.1\"".to_owned()]));
    assert_eq!(ports, BTreeSet::from(["6443".to_owned()]));

    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let selector = "labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes";
    let slices = api.get(&format!("{path}?{selector}")).await.ok(200);
    let slices: Vec<&Value> = slices["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|slice| slice["addressType"] == "IPv4")
        .collect();
    let of_slices: BTreeSet<String> = slices
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().unwrap())
        .flat_map(|endpoint| endpoint["addresses"].as_array().unwrap())
        .map(Value::to_string)
        .collect();
    assert_eq!(of_slices, addresses);
    assert_eq!(
        all(slices.iter().map(|slice| &slice["ports"]), "port"),
        ports
    );
}
