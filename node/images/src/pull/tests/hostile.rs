//! Registries that lie, stall or send too much.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::*;
use crate::media_types::{OCI_LAYER_GZIP, OCI_MANIFEST, WASM_CONFIG, WASM_LAYER};

/// A wasm artifact whose manifest can be tampered with, and what its blobs really are.
#[derive(Clone)]
struct Artifact {
    manifest: Value,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn artifact() -> Artifact {
    let config = b"{}".to_vec();
    let layer = b"\0asm\x01\0\0\0".to_vec();
    let descriptor = |media_type: &str, bytes: &[u8]| {
        json!({
            "mediaType": media_type,
            "digest": Digest::of(bytes).to_string(),
            "size": bytes.len(),
        })
    };
    Artifact {
        manifest: json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(WASM_CONFIG, &config),
            "layers": [descriptor(WASM_LAYER, &layer)],
        }),
        config,
        layer,
    }
}

async fn registry_of(artifact: Artifact) -> String {
    let config = Digest::of(&artifact.config).to_string();
    fake(move |path| {
        if path.contains("/manifests/") {
            Response::new(Body::from(artifact.manifest.to_string()))
        } else if path.ends_with(&config) {
            Response::new(Body::from(artifact.config.clone()))
        } else {
            Response::new(Body::from(artifact.layer.clone()))
        }
    })
    .await
}

async fn error_of(artifact: Artifact, limits: Limits) -> String {
    let host = registry_of(artifact).await;
    let node = Node::hasty(limits);
    let error = node.pull(&format!("{host}/app:v1")).await.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::ErrImagePull);
    assert_eq!(node.puller.store().images(), []);
    error.message
}

#[tokio::test]
async fn an_honest_one_is_pulled() {
    let host = registry_of(artifact()).await;
    Node::hasty(Limits::default())
        .pull(&format!("{host}/app:v1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn lies_about_content() {
    type Tamper = fn(&mut Artifact);
    let cases: [(&str, Tamper); 13] = [
        ("has digest", |a| a.layer = b"another!".to_vec()),
        ("ended after 4 of 8 bytes", |a| a.layer.truncate(4)),
        ("more than 8 bytes", |a| a.layer.extend([0; 100])),
        ("malformed", |a| {
            a.manifest["layers"][0]["digest"] = "sha256:../../../etc/passwd".into()
        }),
        ("not supported", |a| {
            a.manifest["layers"][0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e".into()
        }),
        ("negative size", |a| {
            a.manifest["layers"][0]["size"] = (-1).into()
        }),
        ("at most", |a| {
            a.manifest["layers"][0]["size"] = i64::MAX.into()
        }),
        ("501 layers where at most 500", |a| {
            let layer = a.manifest["layers"][0].clone();
            a.manifest["layers"] = vec![layer; 501].into();
        }),
        ("schema version 1", |a| {
            a.manifest["schemaVersion"] = 1.into()
        }),
        ("not valid", |a| a.manifest = json!({"schemaVersion": 2})),
        ("not valid", |a| a.manifest = json!("garbage")),
        ("no layer of type", |a| a.manifest["layers"] = json!([])),
        ("neither a wasm artifact", |a| {
            a.manifest["config"]["mediaType"] = "text/plain".into();
            a.manifest["layers"][0]["mediaType"] = "text/plain".into();
        }),
    ];
    for (cause, tamper) in cases {
        let mut artifact = artifact();
        tamper(&mut artifact);
        let error = error_of(artifact, Limits::default()).await;
        assert!(error.contains(cause), "{error} lacks {cause}");
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_the_one_asked_for() {
    let host = registry_of(artifact()).await;
    let other = Digest::of(b"other");
    let node = Node::hasty(Limits::default());
    let error = node.pull(&format!("{host}/app@{other}")).await.unwrap_err();
    assert!(error.message.contains("was expected"), "{error}");
}

#[tokio::test]
async fn too_much() {
    let limits = Limits {
        manifest_bytes: 100,
        ..Limits::default()
    };
    let error = error_of(artifact(), limits).await;
    assert!(error.contains("manifest is larger than 100"), "{error}");
    let limits = Limits {
        module_bytes: 7,
        ..Limits::default()
    };
    let error = error_of(artifact(), limits).await;
    assert!(error.contains("module has 8 bytes"), "{error}");
    let limits = Limits {
        wasm_image_bytes: 9,
        ..Limits::default()
    };
    let error = error_of(artifact(), limits).await;
    assert!(error.contains("image has 10 bytes"), "{error}");
}

/// An image of a container, of one layer that is said to have so many bytes.
fn container(size: u64) -> Artifact {
    let mut artifact = artifact();
    let diff_id = Digest::of(b"archive").to_string();
    let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    artifact.config = config.to_string().into_bytes();
    artifact.manifest["config"] = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": Digest::of(&artifact.config).to_string(),
        "size": artifact.config.len(),
    });
    artifact.manifest["layers"][0]["mediaType"] = OCI_LAYER_GZIP.into();
    artifact.manifest["layers"][0]["size"] = size.into();
    artifact
}

#[tokio::test]
async fn what_does_not_fit_on_the_disk() {
    let nothing = Reserve {
        bytes: 0,
        ..Reserve::default()
    };
    let all = Reserve {
        bytes: u64::MAX,
        ..nothing
    };
    for (size, reserve, fits) in [
        (8, nothing, true),
        (8, all, false),
        (1 << 62, nothing, false),
    ] {
        let host = registry_of(container(size)).await;
        let config = PullerConfig {
            containers: true,
            limits: Limits {
                // Of those of containers it is no bound.
                wasm_image_bytes: 1,
                ..Limits::default()
            },
            ..PullerConfig::default()
        };
        let node = Node::keeping(config, reserve);
        let pulled = node.pull(&format!("{host}/app:v1")).await;
        let blobs = node.puller.store().root().join("blobs/sha256");
        let left = std::fs::read_dir(blobs).unwrap().count();
        match pulled {
            Ok(_) => assert!(fits && left == 3, "{size} {left}"),
            Err(error) => {
                assert_eq!(error.kind, PullErrorKind::ErrImagePull);
                assert!(error.message.contains("no space left"), "{error}");
                assert!(!fits && left == 0, "{size} {left}");
            }
        }
    }
}

/// It never stalls for as long as would end it, and what it has announced would take it more than a day.
#[tokio::test]
async fn a_registry_that_trickles() {
    let image = container(10_000_000);
    let config = Digest::of(&image.config).to_string();
    let host = fake(move |path| {
        if path.contains("/manifests/") {
            return Response::new(Body::from(image.manifest.to_string()));
        }
        if path.ends_with(&config) {
            return Response::new(Body::from(image.config.clone()));
        }
        let stream = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let byte = bytes::Bytes::from_static(b"x");
            Some((Ok::<_, std::io::Error>(byte), ()))
        });
        Response::new(Body::from_stream(stream))
    })
    .await;
    let node = Node::new(PullerConfig {
        containers: true,
        limits: Limits {
            deadline: Duration::from_secs(1),
            lowest_rate: 10_000,
            ..Limits::default()
        },
        ..PullerConfig::default()
    });
    let error = node.pull(&format!("{host}/app:v1")).await.unwrap_err();
    // The deadline of the whole has moved away by then.
    let cause = "the registry is too slow";
    assert!(error.message.contains(cause), "{error}");
    assert!(error.message.contains("of 10000000 bytes"), "{error}");
}

#[tokio::test]
async fn an_endless_body_and_a_stalled_one() {
    let endless = fake(|_| {
        let zeros = bytes::Bytes::from_static(&[b' '; 4096]);
        let stream = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(zeros.clone()));
        Response::new(Body::from_stream(stream))
    })
    .await;
    let node = Node::hasty(Limits::default());
    let error = node.pull(&format!("{endless}/app:v1")).await.unwrap_err();
    assert!(error.message.contains("larger than"), "{error}");

    let stalled = fake(|_| {
        let stream = futures::stream::pending::<std::io::Result<bytes::Bytes>>();
        Response::new(Body::from_stream(stream))
    })
    .await;
    let node = Node::hasty(Limits {
        read_timeout: Duration::from_millis(50),
        ..Limits::default()
    });
    let error = node.pull(&format!("{stalled}/app:v1")).await.unwrap_err();
    assert!(error.message.contains("timed out"), "{error}");
    let node = Node::hasty(Limits {
        deadline: Duration::from_millis(50),
        ..Limits::default()
    });
    let error = node.pull(&format!("{stalled}/app:v1")).await.unwrap_err();
    assert!(error.message.contains("not done within"), "{error}");
}

#[tokio::test]
async fn answers_that_are_no_registry() {
    for (status, body, cause) in [
        (500, "<html>", "500"),
        (404, "x", "not found"),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"go\u0007away"}]}"#,
            "denied: goaway",
        ),
        (
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#,
            "TOOMANYREQUESTS",
        ),
        (200, "<html>", "not valid"),
        (301, "", "301"),
    ] {
        let host = fake(move |_| {
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            response
        })
        .await;
        let error = Node::hasty(Limits::default())
            .pull(&format!("{host}/app:v1"))
            .await
            .unwrap_err();
        assert!(error.message.contains(cause), "{error} lacks {cause}");
    }
}

#[tokio::test]
async fn a_fault_that_passes_is_retried_once() {
    let artifact = artifact();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let host = {
        let inner = artifact.clone();
        let asked = Arc::clone(&asked);
        fake(move |path| {
            let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            if first {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = http::StatusCode::BAD_GATEWAY;
                return response;
            }
            Response::new(Body::from(if path.contains("/manifests/") {
                inner.manifest.to_string().into_bytes()
            } else if path.ends_with(&Digest::of(b"{}").to_string()) {
                inner.config.clone()
            } else {
                inner.layer.clone()
            }))
        })
        .await
    };
    let node = Node::hasty(Limits::default());
    node.pull(&format!("{host}/app:v1")).await.unwrap();
}

#[tokio::test]
async fn who_keeps_a_registrys_blobs_learns_no_credential() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let keeper = move |request: axum::extract::Request| {
        let with = request.headers().contains_key(http::header::AUTHORIZATION);
        seen.lock().push((request.uri().path().to_owned(), with));
        let host = request.headers()[http::header::HOST].to_str().unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\"");
        let response = Response::builder()
            .status(401)
            .header("www-authenticate", challenge)
            .body(Body::empty());
        async move { response.unwrap() }
    };
    let keeper = serve(Router::new().fallback(keeper)).await;
    let manifest = artifact().manifest;
    let host = fake(move |path| {
        if path.contains("/manifests/") {
            return Response::new(Body::from(manifest.to_string()));
        }
        let elsewhere = Response::builder()
            .status(307)
            .header("location", format!("http://{keeper}/blob"));
        elsewhere.body(Body::empty()).unwrap()
    })
    .await;
    let request = PullRequest {
        reference: format!("{host}/app:v1"),
        auths: vec![RegistryAuth {
            pattern: host,
            username: "node".into(),
            password: "secret".into(),
            secret: None,
        }],
        ..PullRequest::default()
    };
    let node = Node::hasty(Limits::default());
    let error = node.puller.pull(&request, &|_| {}).await.unwrap_err();
    assert!(error.message.contains("access denied"), "{error}");
    assert_eq!(*asked.lock(), [("/blob".to_owned(), false)]);
}
