//! Requests for certificates: who asks is who the server knows, whatever the request says,
//! conditions say since when they hold, and nobody becomes an administrator by a certificate of a
//! client.

use std::collections::BTreeMap;

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Admission, Operation, Review};
use crate::auth::MASTERS;
use crate::registry::erased::Object;
use crate::registry::{Registry, meta};
use crate::validation::certificates::organizations;
use crate::validation::conditions::YEAR_ONE;
use crate::validation::text;

/// Who signs certificates of clients of the API.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

pub(super) struct CertificateSigningRequest;

#[async_trait]
impl Admission for CertificateSigningRequest {
    async fn admit(
        &self,
        _registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(request) = object.and_then(|object| object.as_any_mut().downcast_mut::<Request>())
        else {
            return Ok(());
        };
        if review.operation == Operation::Create {
            let user = review.caller.user;
            let spec = &mut request.spec;
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            spec.username = some(&user.name);
            spec.uid = some(&user.uid);
            spec.groups = (!user.groups.is_empty()).then(|| user.groups.clone());
            spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
        } else if !review.subresource.is_empty() {
            let old = old.and_then(|old| old.as_any().downcast_ref::<Request>());
            date_conditions(request, old, &meta::now());
        }
        Ok(())
    }

    async fn validate(
        &self,
        _registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let request = object.and_then(|object| object.as_any().downcast_ref::<Request>());
        let Some(request) = request.filter(|_| review.operation == Operation::Create) else {
            return Ok(());
        };
        if makes_administrator(request) {
            let name = text(&request.metadata.name);
            let cause = format!("use of {CLIENT} signer with {MASTERS} group is not allowed");
            return Err(review.forbidden(name, cause));
        }
        Ok(())
    }
}

fn makes_administrator(request: &Request) -> bool {
    let spec = &request.spec;
    let is_master = |group: &String| group == MASTERS;
    spec.signer_name == CLIENT && organizations(&spec.request.0).iter().any(is_master)
}

/// Gives conditions without times the present one; one that holds already keeps its time:
/// `populateConditionTimestamps` of Kubernetes.
fn date_conditions(new: &mut Request, old: Option<&Request>, now: &Time) {
    let before = old
        .and_then(|old| old.status.as_ref())
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    // The first of each that has a time: the last that is collected stays.
    let since = before.iter().rev().filter_map(|condition| {
        let time = condition.last_transition_time.as_ref();
        let time = time.filter(|time| !is_zero(time))?;
        Some(((&*condition.type_, &*condition.status), time))
    });
    let since: BTreeMap<(&str, &str), &Time> = since.collect();
    let conditions = new
        .status
        .iter_mut()
        .filter_map(|status| status.conditions.as_mut());
    for condition in conditions.flatten() {
        if condition.last_update_time.as_ref().is_none_or(is_zero) {
            condition.last_update_time = Some(now.clone());
        }
        if condition.last_transition_time.as_ref().is_none_or(is_zero) {
            let same = since.get(&(&*condition.type_, &*condition.status));
            condition.last_transition_time = Some(same.copied().unwrap_or(now).clone());
        }
    }
}

/// Whether a time is that of Go which stands for none.
fn is_zero(time: &Time) -> bool {
    time.0.as_second() == YEAR_ONE
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    };
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::validation::testing::many;

    #[test]
    fn nobody_becomes_an_administrator() {
        let asks = |signer: &str, organization: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            let name = &mut params.distinguished_name;
            name.push(DnType::OrganizationName, organization);
            let pem = params.serialize_request(&key).unwrap().pem().unwrap();
            let spec = json!({"request": ByteString(pem.into_bytes()), "signerName": signer, "usages": []});
            let request: Request =
                serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            makes_administrator(&request)
        };
        assert!(asks(CLIENT, MASTERS));
        assert!(!asks(CLIENT, "developers"));
        assert!(!asks("example.com/other", MASTERS));
    }

    /// Times are seconds, and `None` is none; so is the first moment of the year 1.
    #[test]
    fn conditions_are_dated() {
        type Condition<'a> = (&'a str, &'a str, Option<i64>);
        const NOW: Option<i64> = Some(9);
        const ZERO: Option<i64> = Some(YEAR_ONE);
        let time = |second: i64| Time(jiff::Timestamp::from_second(second).unwrap());
        let with = |conditions: &[Condition<'_>]| {
            let conditions = conditions.iter().map(|(type_, status, since)| {
                CertificateSigningRequestCondition {
                    type_: (*type_).to_owned(),
                    status: (*status).to_owned(),
                    last_transition_time: since.map(time),
                    last_update_time: since.map(time),
                    ..CertificateSigningRequestCondition::default()
                }
            });
            Request {
                status: Some(CertificateSigningRequestStatus {
                    conditions: Some(conditions.collect()),
                    ..CertificateSigningRequestStatus::default()
                }),
                ..Request::default()
            }
        };
        // What was there, what is written, and since when that holds and is updated.
        type Case<'a> = (&'a [Condition<'a>], Condition<'a>, [Option<i64>; 2]);
        let table: [Case<'_>; 9] = [
            (&[], ("Failed", "True", None), [NOW, NOW]),
            (&[], ("Failed", "True", ZERO), [NOW, NOW]),
            (&[], ("Failed", "True", Some(5)), [Some(5), Some(5)]),
            (
                &[("Failed", "True", Some(3))],
                ("Failed", "True", Some(5)),
                [Some(5), Some(5)],
            ),
            (
                &[("Failed", "True", Some(3))],
                ("Failed", "True", None),
                [Some(3), NOW],
            ),
            (
                &[("Failed", "True", Some(3))],
                ("Failed", "Unknown", None),
                [NOW, NOW],
            ),
            (
                &[("Denied", "True", Some(3))],
                ("Failed", "True", None),
                [NOW, NOW],
            ),
            (
                &[("Failed", "True", ZERO)],
                ("Failed", "True", None),
                [NOW, NOW],
            ),
            // The first of several counts that has a time.
            (
                &[
                    ("Failed", "True", None),
                    ("Failed", "True", Some(4)),
                    ("Failed", "True", Some(3)),
                ],
                ("Failed", "True", None),
                [Some(4), NOW],
            ),
        ];
        for (old, new, want) in table {
            let mut request = with(&[new]);
            date_conditions(&mut request, Some(&with(old)), &time(9));
            let conditions = request.status.unwrap().conditions.unwrap();
            let second = |time: &Option<Time>| time.as_ref().map(|time| time.0.as_second());
            let got = [
                second(&conditions[0].last_transition_time),
                second(&conditions[0].last_update_time),
            ];
            assert_eq!(got, want, "{old:?} {new:?}");
        }
    }

    /// As many conditions as a body can have: to look each up in the list would be minutes.
    #[test]
    fn what_holds_already_keeps_its_time() {
        let with = |status: &str, time: Option<Time>| {
            let conditions = many(|type_| CertificateSigningRequestCondition {
                type_,
                status: status.to_owned(),
                last_transition_time: time.clone(),
                ..CertificateSigningRequestCondition::default()
            });
            Request {
                status: Some(CertificateSigningRequestStatus {
                    conditions: Some(conditions),
                    ..CertificateSigningRequestStatus::default()
                }),
                ..Request::default()
            }
        };
        let began = Time(jiff::Timestamp::UNIX_EPOCH);
        let old = with("True", Some(began.clone()));
        for (status, keeps) in [("True", true), ("False", false)] {
            let mut new = with(status, None);
            date_conditions(&mut new, Some(&old), &meta::now());
            let conditions = new.status.unwrap().conditions.unwrap();
            let kept = |condition: &CertificateSigningRequestCondition| {
                condition.last_transition_time.as_ref() == Some(&began)
            };
            assert_eq!(conditions.iter().all(kept), keeps, "{status}");
            let dated = conditions.iter().all(|c| c.last_transition_time.is_some());
            assert!(dated, "{status}");
        }
    }
}
