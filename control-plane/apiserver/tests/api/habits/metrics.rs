//! The metrics, read as Prometheus reads them.

use std::collections::BTreeMap;

use coracle_store::MemoryStore;
use http::Request;
use serde_json::json;

use super::{Running, tenant};
use crate::harness::{Api, CONFIG_MAPS};

type Labels = BTreeMap<String, String>;

/// An exposition: the types of its metrics, and its samples.
#[derive(Default)]
struct Exposition {
    types: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    /// Reads the form 0.0.4, and complains of what Prometheus would.
    fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let twice = read.types.insert(name.to_owned(), kind.to_owned());
                assert!(twice.is_none(), "{name} has its type twice");
            } else if !line.starts_with("# HELP ") {
                let (name, labels, value) = sample(line);
                assert!(read.type_of(&name).is_some(), "{line} has no type");
                read.samples.push((name, labels, value));
            }
        }
        read
    }

    fn type_of(&self, sample: &str) -> Option<&str> {
        if let Some(kind) = self.types.get(sample) {
            return (kind != "histogram").then_some(kind.as_str());
        }
        let parts = ["_bucket", "_sum", "_count"];
        let name = parts.iter().find_map(|part| sample.strip_suffix(part))?;
        self.types
            .get(name)
            .map(String::as_str)
            .filter(|kind| *kind == "histogram")
    }

    /// The sum of the samples of this name with at least these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = self.samples.iter().filter(|(n, has, _)| {
            n == name
                && labels
                    .iter()
                    .all(|(k, v)| has.get(*k).is_some_and(|h| h == v))
        });
        wanted.map(|(_, _, value)| value).sum()
    }

    /// The names of the labels that the samples of this name have.
    fn labels(&self, name: &str) -> Option<Vec<&str>> {
        let sample = self.samples.iter().find(|(n, ..)| n == name)?;
        Some(sample.1.keys().map(String::as_str).collect())
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, labels)) = head.split_once('{') else {
        return (head.to_owned(), Labels::new(), value);
    };
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    let labels = labels
        .split("\",")
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            (key.to_owned(), value.trim_end_matches('"').to_owned())
        });
    (name.to_owned(), labels.collect(), value)
}

async fn scrape(api: &Api) -> Exposition {
    let answer = api.get("/metrics").await;
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    Exposition::parse(&answer.text)
}

#[tokio::test]
async fn metrics_have_kubernetes_names_types_and_labels() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.storage_size = Some(std::sync::Arc::new(|| 4096));
    });
    let running = Running::start(api.await).await;
    let api = &running.api;
    api.config_map("a").await;
    api.get(CONFIG_MAPS).await.ok(200);
    tenant(api).get(CONFIG_MAPS).await.ok(200);
    api.get(&format!("{CONFIG_MAPS}/none"))
        .await
        .fails(404, "NotFound");
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}});
    let request = Request::patch(format!("{CONFIG_MAPS}/b?fieldManager=m&dryRun=All"))
        .header("content-type", "application/apply-patch+yaml")
        .body(apply.to_string().into())
        .unwrap();
    api.request(request).await.ok(201);
    // Admission refuses it.
    let elsewhere = CONFIG_MAPS.replace("default", "none");
    let refused = json!({"metadata": {"name": "a"}});
    api.post(&elsewhere, &refused).await.fails(404, "NotFound");
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(watch.line().await, "ADDED a");

    let read = scrape(api).await;
    let request = [
        "component",
        "group",
        "resource",
        "scope",
        "subresource",
        "verb",
        "version",
    ];
    let with = |more: &[&'static str]| {
        let mut labels = [&request[..], more].concat();
        labels.sort_unstable();
        labels
    };
    let place = vec!["flow_schema", "priority_level"];
    let table = [
        (
            "apiserver_request_total",
            "counter",
            with(&["code", "dry_run"]),
        ),
        (
            "apiserver_request_duration_seconds",
            "histogram",
            with(&["dry_run", "le"]),
        ),
        (
            "apiserver_request_sli_duration_seconds",
            "histogram",
            with(&["le"]),
        ),
        ("apiserver_response_sizes", "histogram", with(&["le"])),
        (
            "apiserver_current_inflight_requests",
            "gauge",
            vec!["request_kind"],
        ),
        (
            "apiserver_admission_step_admission_duration_seconds",
            "histogram",
            vec!["le", "operation", "rejected", "type"],
        ),
        ("apiserver_longrunning_requests", "gauge", with(&[])),
        (
            "apiserver_watch_events_total",
            "counter",
            vec!["group", "resource", "version"],
        ),
        (
            "apiserver_watch_events_sizes",
            "histogram",
            vec!["group", "le", "resource", "version"],
        ),
        (
            "apiserver_init_events_total",
            "counter",
            vec!["group", "resource"],
        ),
        (
            "apiserver_resource_objects",
            "gauge",
            vec!["group", "resource"],
        ),
        ("apiserver_storage_objects", "gauge", vec!["resource"]),
        (
            "apiserver_storage_size_bytes",
            "gauge",
            vec!["storage_cluster_id"],
        ),
        (
            "etcd_request_duration_seconds",
            "histogram",
            vec!["group", "le", "operation", "resource"],
        ),
        (
            "etcd_requests_total",
            "counter",
            vec!["group", "operation", "resource"],
        ),
        (
            "apiserver_flowcontrol_dispatched_requests_total",
            "counter",
            place.clone(),
        ),
        (
            "apiserver_flowcontrol_current_executing_requests",
            "gauge",
            place.clone(),
        ),
        (
            "apiserver_flowcontrol_current_executing_seats",
            "gauge",
            place,
        ),
        (
            "apiserver_flowcontrol_request_wait_duration_seconds",
            "histogram",
            vec!["execute", "flow_schema", "le", "priority_level"],
        ),
        (
            "apiserver_flowcontrol_request_execution_seconds",
            "histogram",
            vec!["flow_schema", "le", "priority_level", "type"],
        ),
        (
            "apiserver_flowcontrol_nominal_limit_seats",
            "gauge",
            vec!["priority_level"],
        ),
        (
            "apiserver_flowcontrol_lower_limit_seats",
            "gauge",
            vec!["priority_level"],
        ),
        (
            "apiserver_flowcontrol_upper_limit_seats",
            "gauge",
            vec!["priority_level"],
        ),
        (
            "apiserver_flowcontrol_current_limit_seats",
            "gauge",
            vec!["priority_level"],
        ),
        ("apiserver_flowcontrol_seat_fair_frac", "gauge", vec![]),
        ("process_cpu_seconds_total", "counter", vec![]),
        ("process_resident_memory_bytes", "gauge", vec![]),
        ("process_virtual_memory_bytes", "gauge", vec![]),
        ("process_open_fds", "gauge", vec![]),
        ("process_max_fds", "gauge", vec![]),
        ("process_start_time_seconds", "gauge", vec![]),
        ("apiserver_tls_handshake_errors_total", "counter", vec![]),
    ];
    for (name, kind, labels) in table {
        assert_eq!(
            read.types.get(name).map(String::as_str),
            Some(kind),
            "{name}"
        );
        let sample = if kind == "histogram" {
            format!("{name}_bucket")
        } else {
            name.to_owned()
        };
        assert_eq!(read.labels(&sample), Some(labels), "{name}");
    }
    assert!(
        read.labels("kubernetes_build_info")
            .unwrap()
            .contains(&"git_version")
    );

    let maps = [("resource", "configmaps"), ("version", "v1")];
    let of = |name: &str, more: &[(&str, &str)]| read.sum(name, &[&maps[..], more].concat());
    let total = "apiserver_request_total";
    assert_eq!(
        of(
            total,
            &[("verb", "POST"), ("code", "201"), ("scope", "resource")]
        ),
        1.0
    );
    assert_eq!(
        of(
            total,
            &[("verb", "LIST"), ("code", "200"), ("scope", "namespace")]
        ),
        2.0
    );
    assert_eq!(of(total, &[("verb", "GET"), ("code", "404")]), 1.0);
    let step = |kind, rejected| {
        let name = "apiserver_admission_step_admission_duration_seconds_count";
        let labels = [
            ("operation", "CREATE"),
            ("type", kind),
            ("rejected", rejected),
        ];
        read.sum(name, &labels)
    };
    assert_eq!(
        (step("admit", "true"), step("validate", "true")),
        (1.0, 0.0)
    );
    assert!(step("admit", "false") >= step("validate", "false"));
    assert!(step("validate", "false") > 0.0);
    assert_eq!(of(total, &[("verb", "APPLY"), ("dry_run", "All")]), 1.0);
    assert_eq!(
        of("apiserver_longrunning_requests", &[("verb", "WATCH")]),
        1.0
    );
    assert_eq!(
        of("apiserver_response_sizes_count", &[("verb", "LIST")]),
        2.0
    );
    assert_eq!(
        of(
            "apiserver_request_duration_seconds_bucket",
            &[("verb", "LIST"), ("le", "60")]
        ),
        2.0
    );
    assert_eq!(of("apiserver_watch_events_total", &[]), 1.0);
    assert_eq!(of("apiserver_watch_events_sizes_count", &[]), 1.0);
    assert_eq!(
        read.sum("apiserver_init_events_total", &[("resource", "configmaps")]),
        1.0
    );
    assert_eq!(read.sum("apiserver_storage_size_bytes", &[]), 4096.0);
    assert_eq!(
        read.sum("apiserver_resource_objects", &[("resource", "namespaces")]),
        4.0
    );
    assert_eq!(
        read.sum(
            "etcd_requests_total",
            &[("operation", "create"), ("resource", "configmaps")]
        ),
        1.0
    );
    assert_eq!(
        read.sum(
            "apiserver_current_inflight_requests",
            &[("request_kind", "readOnly")]
        ),
        1.0
    );
    // The lists of all levels together are what the server has, rounded up for each.
    let seats = read.sum("apiserver_flowcontrol_nominal_limit_seats", &[]);
    assert!((600.0..=608.0).contains(&seats), "{seats}");
    for positive in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(read.sum(positive, &[]) > 0.0, "{positive}");
    }
    drop(watch);
    let read = scrape(api).await;
    assert_eq!(
        read.sum(
            "apiserver_longrunning_requests",
            &[("verb", "WATCH"), ("resource", "configmaps")]
        ),
        0.0
    );
    running.stop().await;
}

#[tokio::test]
async fn open_metrics_are_for_those_who_ask() {
    let api = Api::new().await;
    api.get("/version").await.ok(200);
    let answer = api.get_as("/metrics", "application/openmetrics-text").await;
    let media_type = answer.headers["content-type"].to_str().unwrap();
    assert!(media_type.starts_with("application/openmetrics-text"));
    assert!(answer.text.ends_with("# EOF\n"));
    assert!(answer.text.contains("# TYPE apiserver_request counter"));
}

#[tokio::test]
async fn clients_make_no_new_series() {
    let api = Api::new().await;
    for i in 0..20 {
        api.get(&format!("/apis/x{i}.example/v1/things{i}")).await;
        api.get(&format!("/nothing{i}")).await;
        api.get(&format!("{CONFIG_MAPS}/a/sub{i}")).await;
    }
    let read = scrape(&api).await;
    let series = read
        .samples
        .iter()
        .filter(|(name, ..)| name == "apiserver_request_total");
    assert!(series.count() <= 4);
}
