//! What a token says: the claims of RFC 7519, and under `kubernetes.io` whose it is and to what it
//! is bound. Made and judged here without any look at the cluster.

use serde::{Deserialize, Deserializer, Serialize};

/// How far the clocks of those who make and who read tokens may differ, in seconds.
pub(super) const LEEWAY: i64 = 60;
/// The life that the ServiceAccount admission plugin asks for: an hour, and a few seconds by which
/// such requests are known.
pub const PROJECTED_SECONDS: i64 = 3607;
/// What becomes of it where only the API server reads the token: clients that never read the
/// token again go on, and are warned of.
pub(super) const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Issuer of the tokens that Secrets hold, whatever issuer a cluster has.
pub(super) const SECRET_ISSUER: &str = "kubernetes/serviceaccount";

/// Annotations of audit events: of a token that is used for longer than was asked for, and of one
/// that a Secret holds.
const STALE: &str = "authentication.k8s.io/stale-token";
const OF_SECRET: &str = "authentication.k8s.io/legacy-token-manual-secret";

/// What who audits is told of a token: an annotation, and its value.
pub(crate) type Remark = (&'static str, String);

/// The claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "one_or_many"
    )]
    pub(super) aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iat: Option<i64>,
    pub(super) iss: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) jti: Option<String>,
    #[serde(
        default,
        rename = "kubernetes.io",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) kubernetes: Option<Kubernetes>,
    /// Of a token that a Secret holds.
    #[serde(flatten)]
    pub(super) held: Option<Held>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<i64>,
    #[serde(default)]
    pub(super) sub: String,
}

/// Whose a token is that a Secret holds, and which Secret. It says no time and no audience.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub(super) namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub(super) secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub(super) account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub(super) account_uid: String,
}

/// Whose a token is, and what must exist for it to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kubernetes {
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Reference>,
    #[serde(default)]
    pub(super) serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) warnafter: Option<i64>,
}

/// An object by its name, and which one of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

/// What a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// To a Pod, with the node that it is on.
    Pod {
        pod: Reference,
        node: Option<Reference>,
    },
    Secret(Reference),
    Node(Reference),
}

/// What is asked for, checked already.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) namespace: String,
    pub(crate) account: Reference,
    pub(crate) bound: Option<Bound>,
    pub(crate) audiences: Vec<String>,
    /// Seconds of life.
    pub(crate) seconds: i64,
}

/// Why claims do not hold at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untimely {
    Expired,
    NotYet,
    FromTheFuture,
}

impl Claims {
    /// The claims of a new token. `own` says that the API server alone is its audience.
    pub(super) fn new(grant: Grant, issuer: &str, own: bool, now: i64, id: String) -> Self {
        let pod_bound = matches!(grant.bound, Some(Bound::Pod { .. }));
        let extended = own && pod_bound && grant.seconds == PROJECTED_SECONDS;
        let seconds = if extended {
            EXTENDED_SECONDS
        } else {
            grant.seconds
        };
        let mut kubernetes = Kubernetes {
            serviceaccount: grant.account,
            warnafter: extended.then(|| now + grant.seconds),
            ..Kubernetes::default()
        };
        match grant.bound {
            Some(Bound::Pod { pod, node }) => {
                (kubernetes.pod, kubernetes.node) = (Some(pod), node);
            }
            Some(Bound::Secret(secret)) => kubernetes.secret = Some(secret),
            Some(Bound::Node(node)) => kubernetes.node = Some(node),
            None => {}
        }
        let sub = super::user_name(&grant.namespace, &kubernetes.serviceaccount.name);
        kubernetes.namespace = grant.namespace;
        Self {
            aud: grant.audiences,
            exp: Some(now.saturating_add(seconds)),
            iat: Some(now),
            iss: issuer.to_owned(),
            jti: Some(id),
            kubernetes: Some(kubernetes),
            held: None,
            nbf: Some(now),
            sub,
        }
    }

    /// The claims of a token that a Secret is to hold.
    pub(super) fn of_secret(namespace: &str, account: Reference, secret: &str) -> Self {
        Self {
            iss: SECRET_ISSUER.to_owned(),
            sub: super::user_name(namespace, &account.name),
            held: Some(Held {
                namespace: namespace.to_owned(),
                secret: secret.to_owned(),
                account: account.name,
                account_uid: account.uid,
            }),
            ..Self::default()
        }
    }

    /// What there is to say of a use of the token at a time, in seconds since 1970.
    pub(super) fn remark(&self, now: i64) -> Option<Remark> {
        if let Some(held) = &self.held {
            return Some((OF_SECRET, held.secret.clone()));
        }
        let after = self.kubernetes.as_ref()?.warnafter?;
        if after == 0 || now <= after {
            return None;
        }
        let late = now.saturating_sub(after);
        let told = format!(
            "subject: {}, seconds after warning threshold: {late}",
            self.sub
        );
        Some((STALE, told))
    }

    /// Whether the claims hold at a time, in seconds since 1970.
    pub(super) fn timely(&self, now: i64) -> Result<(), Untimely> {
        let later = now.saturating_add(LEEWAY);
        let earlier = now.saturating_sub(LEEWAY);
        if self.nbf.is_some_and(|from| later < from) {
            Err(Untimely::NotYet)
        } else if self.exp.is_some_and(|end| earlier > end) {
            Err(Untimely::Expired)
        } else if self.iat.is_some_and(|made| later < made) {
            Err(Untimely::FromTheFuture)
        } else {
            Ok(())
        }
    }
}

/// An audience, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reference(name: &str) -> Reference {
        Reference {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
        }
    }

    fn grant(bound: Option<Bound>, seconds: i64) -> Grant {
        Grant {
            namespace: "ns".to_owned(),
            account: reference("sa"),
            bound,
            audiences: vec!["api".to_owned()],
            seconds,
        }
    }

    #[test]
    fn claims_are_those_of_kubernetes() {
        let pod = Bound::Pod {
            pod: reference("p"),
            node: Some(reference("n")),
        };
        let claims = Claims::new(grant(Some(pod), 600), "https://i", true, 1000, "id".into());
        let want = json!({
            "aud": ["api"], "exp": 1600, "iat": 1000, "nbf": 1000, "iss": "https://i", "jti": "id",
            "sub": "system:serviceaccount:ns:sa",
            "kubernetes.io": {
                "namespace": "ns",
                "node": {"name": "n", "uid": "uid-of-n"},
                "pod": {"name": "p", "uid": "uid-of-p"},
                "serviceaccount": {"name": "sa", "uid": "uid-of-sa"},
            },
        });
        assert_eq!(serde_json::to_value(&claims).unwrap(), want);
        assert_eq!(serde_json::from_value::<Claims>(want).unwrap(), claims);
        let one: Claims = serde_json::from_value(json!({"iss": "i", "aud": "a"})).unwrap();
        assert_eq!(one.aud, ["a"]);
    }

    #[test]
    fn tokens_that_are_used_for_long_are_remarked() {
        let pod = Bound::Pod {
            pod: reference("p"),
            node: None,
        };
        let claims = |bound, seconds| {
            let grant = grant(Some(bound), seconds);
            Claims::new(grant, "https://i", true, 1000, "id".into())
        };
        let extended = claims(pod.clone(), PROJECTED_SECONDS);
        let end = 1000 + PROJECTED_SECONDS;
        assert_eq!(extended.remark(end), None);
        let told = "subject: system:serviceaccount:ns:sa, seconds after warning threshold: 7";
        assert_eq!(extended.remark(end + 7), Some((STALE, told.to_owned())));
        assert_eq!(claims(pod, 600).remark(end + 7), None);
        let held = Claims::of_secret("ns", reference("sa"), "s");
        assert_eq!(held.remark(1000), Some((OF_SECRET, "s".to_owned())));
    }

    #[test]
    fn claims_of_secrets_say_no_time() {
        let claims = Claims::of_secret("ns", reference("sa"), "s");
        let want = json!({
            "iss": "kubernetes/serviceaccount",
            "sub": "system:serviceaccount:ns:sa",
            "kubernetes.io/serviceaccount/namespace": "ns",
            "kubernetes.io/serviceaccount/secret.name": "s",
            "kubernetes.io/serviceaccount/service-account.name": "sa",
            "kubernetes.io/serviceaccount/service-account.uid": "uid-of-sa",
        });
        assert_eq!(serde_json::to_value(&claims).unwrap(), want);
        assert_eq!(serde_json::from_value::<Claims>(want).unwrap(), claims);
    }

    /// Clients that never read their token again live on, for a year and not for ever.
    #[test]
    fn projected_tokens_of_the_api_server_are_extended() {
        let pod = || Bound::Pod {
            pod: reference("p"),
            node: None,
        };
        let secret = Bound::Secret(reference("s"));
        for (bound, seconds, own, warned) in [
            (Some(pod()), PROJECTED_SECONDS, true, true),
            (Some(pod()), PROJECTED_SECONDS, false, false),
            (Some(pod()), 3600, true, false),
            (Some(secret), PROJECTED_SECONDS, true, false),
            (None, PROJECTED_SECONDS, true, false),
        ] {
            let claims = Claims::new(grant(bound, seconds), "i", own, 5, String::new());
            let warn = claims.kubernetes.unwrap().warnafter;
            assert_eq!(warn, warned.then_some(5 + PROJECTED_SECONDS));
            let life = if warned { EXTENDED_SECONDS } else { seconds };
            assert_eq!(claims.exp, Some(5 + life));
        }
    }

    #[test]
    fn times_are_kept_with_some_leeway() {
        let claims = Claims {
            nbf: Some(1000),
            iat: Some(1100),
            exp: Some(2000),
            ..Claims::default()
        };
        for (now, want) in [
            (939, Err(Untimely::NotYet)),
            (940, Err(Untimely::FromTheFuture)),
            (1040, Ok(())),
            (2060, Ok(())),
            (2061, Err(Untimely::Expired)),
            (i64::MAX, Err(Untimely::Expired)),
            (i64::MIN, Err(Untimely::NotYet)),
        ] {
            assert_eq!(claims.timely(now), want, "{now}");
        }
        assert_eq!(Claims::default().timely(0), Ok(()));
    }
}
