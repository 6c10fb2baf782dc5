#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use super::*;
use crate::validation::testing::assert_causes;

const STRATEGY: PodCertificateRequestStrategy = PodCertificateRequestStrategy;
/// 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600;
const DAY: i64 = 24 * 60 * 60;

fn stub(key: &KeyPair) -> ByteString {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    ByteString(request.der().to_vec())
}

/// A request for the key, of which some fields of the spec are others.
fn request(key: &KeyPair, change: &Value) -> PodCertificateRequest {
    let mut spec = json!({
        "signerName": "example.com/s",
        "podName": "p", "podUID": "1",
        "serviceAccountName": "default", "serviceAccountUID": "2",
        "nodeName": "n", "nodeUID": "3",
        "stubPKCS10Request": stub(key),
    });
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let metadata = json!({"name": "r", "namespace": "default"});
    let mut object = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    STRATEGY.set_defaults(&mut object);
    object
}

/// The request with an answer.
fn answered(object: &PodCertificateRequest, kind: &str, fields: &Value) -> PodCertificateRequest {
    let since = "2026-01-01T00:00:00Z";
    let condition = json!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": since});
    let mut status = json!({ "conditions": [condition] });
    for (field, value) in fields.as_object().unwrap() {
        status[field] = value.clone();
    }
    let mut object = object.clone();
    object.status = serde_json::from_value(status).unwrap();
    object
}

/// A certificate of the key that is valid for so many seconds, and the status of which it is.
fn issued(key: &KeyPair, seconds: i64) -> Value {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = params.not_before + Duration::from_secs(seconds.try_into().unwrap());
    let chain = params.self_signed(key).unwrap().pem();
    let at = |second: i64| Timestamp::from_second(BEGIN + second).unwrap().to_string();
    json!({"certificateChain": chain, "notBefore": at(0), "notAfter": at(seconds), "beginRefreshAt": at(seconds / 2)})
}

#[test]
fn specs() {
    let key = KeyPair::generate().unwrap();
    let long = "x".repeat(129);
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![]),
        (
            json!({"signerName": "example.com/s", "maxExpirationSeconds": 7_862_400, "unverifiedUserAnnotations": {"Example.com/A": "b"}}),
            vec![],
        ),
        (
            json!({"podName": "P", "podUID": "", "serviceAccountUID": long, "unverifiedUserAnnotations": {"a": "b"}}),
            vec![
                "spec.unverifiedUserAnnotations FieldValueInvalid must be a domain-prefixed key",
                "spec.podName FieldValueInvalid",
                "spec.podUID FieldValueInvalid must not be empty",
                "spec.serviceAccountUID FieldValueTooLong",
            ],
        ),
        (
            json!({"maxExpirationSeconds": 3599}),
            vec![
                "spec.maxExpirationSeconds FieldValueInvalid must be in the range [3600, 7862400]",
            ],
        ),
        (
            json!({"signerName": "kubernetes.io/kube-apiserver-client-pod", "maxExpirationSeconds": 86_401}),
            vec!["spec.maxExpirationSeconds FieldValueInvalid must be in the range [3600, 86400]"],
        ),
        (
            json!({"stubPKCS10Request": ""}),
            vec!["spec FieldValueInvalid exactly one of (stubPKCS10Request) or"],
        ),
        (
            json!({"stubPKCS10Request": "eA=="}),
            vec!["spec.stubPKCS10Request FieldValueInvalid must be a valid PKCS#10 CSR"],
        ),
    ];
    for (change, want) in table {
        assert_causes(&STRATEGY.validate(&request(&key, &change)), &want);
    }
    let mut forged = stub(&key);
    let last = forged.0.len() - 1;
    forged.0[last] ^= 1;
    let forged = request(&key, &json!({ "stubPKCS10Request": forged }));
    assert_causes(
        &STRATEGY.validate(&forged),
        &["spec.stubPKCS10Request FieldValueInvalid invalid signature"],
    );
}

#[test]
fn requests_last_a_day_and_do_not_change() {
    let key = KeyPair::generate().unwrap();
    let old = request(&key, &json!({}));
    assert_eq!(old.spec.max_expiration_seconds, Some(86_400));
    let new = request(&key, &json!({"podName": "other"}));
    assert_causes(
        &STRATEGY.validate_update(&new, &old),
        &["spec FieldValueInvalid field is immutable"],
    );
    let mut new = answered(&old, "Denied", &json!({}));
    STRATEGY.prepare_for_update(&mut new, &old);
    assert_eq!(new, old);
}

#[test]
fn answers() {
    let key = KeyPair::generate().unwrap();
    let old = request(&key, &json!({}));
    let verdict = |new: &PodCertificateRequest, want: &[&str]| {
        assert_causes(&STRATEGY.validate_status_update(new, &old), want);
    };
    verdict(&old, &[]);
    let denied = answered(&old, "Denied", &json!({}));
    verdict(&denied, &[]);
    verdict(
        &answered(&old, "Pending", &json!({})),
        &["status.conditions[0].type FieldValueNotSupported"],
    );
    let fields = json!({"notBefore": "2026-01-01T00:00:00Z"});
    verdict(
        &answered(&old, "Failed", &fields),
        &["status FieldValueInvalid non-condition status fields must be empty"],
    );
    let mut early = old.clone();
    early.status = serde_json::from_value(fields).unwrap();
    verdict(
        &early,
        &["status FieldValueInvalid status is immutable unless transitioning to"],
    );
    let mut both = answered(&old, "Issued", &json!({}));
    let conditions = |object: &PodCertificateRequest| {
        let status = object.status.clone().unwrap();
        status.conditions.unwrap()
    };
    both.status.as_mut().unwrap().conditions =
        Some([conditions(&both), conditions(&denied)].concat());
    verdict(
        &both,
        &["status.conditions[1].type FieldValueInvalid There may be at most one condition"],
    );
    assert_causes(
        &STRATEGY.validate_status_update(&answered(&old, "Failed", &json!({})), &denied),
        &["status FieldValueInvalid immutable after PodCertificateRequest is issued"],
    );
    assert_causes(&STRATEGY.validate_status_update(&denied, &denied), &[]);
    let state = |object: &PodCertificateRequest| {
        let row = STRATEGY.row(object, Timestamp::UNIX_EPOCH);
        row[5].clone()
    };
    assert_eq!(state(&old), Cell::from("Pending"));
    assert_eq!(state(&denied), Cell::from("Denied"));
}

#[test]
fn certificates() {
    let key = KeyPair::generate().unwrap();
    let old = request(&key, &json!({}));
    let good = issued(&key, DAY);
    let with = |field: &str, value: Value| {
        let mut status = good.clone();
        status[field] = value;
        status
    };
    let other = issued(&KeyPair::generate().unwrap(), DAY);
    let chain = good["certificateChain"].as_str().unwrap();
    let garbage = "-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n";
    let table: Vec<(Value, Vec<&str>)> = vec![
        (good.clone(), vec![]),
        (
            json!({}),
            vec![
                "status.certificateChain FieldValueInvalid issued certificate chain must contain at least one",
            ],
        ),
        (
            with("certificateChain", json!(garbage)),
            vec!["status.certificateChain FieldValueInvalid leaf certificate does not parse"],
        ),
        (
            with("certificateChain", json!(format!("{chain}{garbage}"))),
            vec![
                "status.certificateChain FieldValueInvalid intermediate certificate does not parse",
            ],
        ),
        (
            with(
                "certificateChain",
                json!(chain.replace("CERTIFICATE", "PUBLIC KEY")),
            ),
            vec![
                "status.certificateChain FieldValueInvalid issued certificate chain must consist entirely",
            ],
        ),
        (
            other,
            vec![
                "status.certificateChain FieldValueInvalid leaf certificate was not issued to the requested",
            ],
        ),
        (
            with("beginRefreshAt", Value::Null),
            vec!["status.beginRefreshAt FieldValueRequired"],
        ),
        (
            with("notBefore", json!("2026-01-01T00:00:01Z")),
            vec!["status.notBefore FieldValueInvalid must be set to the NotBefore time"],
        ),
        (
            with("notAfter", json!("2026-01-01T00:00:01Z")),
            vec!["status.notAfter FieldValueInvalid must be set to the NotAfter time"],
        ),
        (
            with("beginRefreshAt", json!("2026-01-01T00:09:59Z")),
            vec!["status.beginRefreshAt FieldValueInvalid must be at least 10 minutes after"],
        ),
        (
            with("beginRefreshAt", json!("2026-01-01T23:50:01Z")),
            vec!["status.beginRefreshAt FieldValueInvalid must be at least 10 minutes before"],
        ),
        (
            issued(&key, 3599),
            vec!["status.certificateChain FieldValueInvalid leaf certificate lifetime must be >="],
        ),
        (
            issued(&key, DAY + 1),
            vec!["status.certificateChain FieldValueInvalid leaf certificate lifetime must be <="],
        ),
    ];
    for (status, want) in table {
        let new = answered(&old, "Issued", &status);
        assert_causes(&STRATEGY.validate_status_update(&new, &old), &want);
    }
}
