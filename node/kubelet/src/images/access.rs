//! Whether a Pod may use an image that the node has without asking its registry (KEP-2535).
//!
//! With whose credentials an image was pulled is kept beside it by the content store
//! ([`coracle_images::StoredImage::pulled`]); here is decided, purely, what that means for a Pod.
//! One that may not use an image is not told that it is here: with `IfNotPresent` it pulls, with its
//! own credentials, and with `Never` it is as if there were none.
//!
//! Preloaded is what no pull of the kubelet's has brought, as far as is remembered: what others have
//! put into a container runtime of the machine, and what was pulled by a release that remembered
//! nothing. An image that was pushed into the cluster's own registry is pulled from there like any
//! other, but since the node's own credential suffices for that, it is for everybody; and so is what
//! took no credentials, or those of the node's plugins.
//!
//! Deliberately absent: ServiceAccounts as those who have pulled, as there are no plugins that are
//! given their tokens. Their `imagePullSecrets` are Secrets as a Pod's are.

use std::str::FromStr;

use coracle_images::{Access, PullSecret, Reference};

/// Secrets of an image up to which those that are as good as a known one are noted too, so that what
/// is only read is not written all the time.
pub(super) const NOTED: usize = 100;

/// What is verified of Pods that want an image which is here
/// (`imagePullCredentialsVerificationPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// Nothing.
    Never,
    /// Whether they had access to what the kubelet has pulled.
    #[default]
    NeverPreloaded,
    /// Whether they had access to what is not on a list.
    NeverAllowlisted,
    /// Whether they had access to it.
    Always,
}

const NAMES: [(&str, Verification); 4] = [
    ("NeverVerify", Verification::Never),
    ("NeverVerifyPreloadedImages", Verification::NeverPreloaded),
    (
        "NeverVerifyAllowlistedImages",
        Verification::NeverAllowlisted,
    ),
    ("AlwaysVerify", Verification::Always),
];

impl FromStr for Verification {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, of)| *of).ok_or_else(|| {
            let names = NAMES.map(|(name, _)| name);
            format!("{text:?} is no policy; those are {}", names.join(", "))
        })
    }
}

/// Who may use images that are here, as in `KubeletConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessPolicy {
    /// What is verified.
    pub verification: Verification,
    /// Images that are for everybody where [`Verification::NeverAllowlisted`] says so: names without
    /// tag and digest, or the beginnings of names with `/*` (`preloadedImagesVerificationAllowlist`).
    pub allowlist: Vec<String>,
}

impl AccessPolicy {
    /// Refuses what contradicts itself.
    pub fn check(&self) -> Result<(), String> {
        let listed = self.verification == Verification::NeverAllowlisted;
        if !listed && !self.allowlist.is_empty() {
            return Err("preloaded-images-verification-allowlist goes with \
                 image-pull-credentials-verification-policy=NeverVerifyAllowlistedImages alone"
                .to_owned());
        }
        self.allowlist
            .iter()
            .try_for_each(|pattern| check_pattern(pattern))
    }

    fn verifies(&self, reference: &str, pulled: bool) -> bool {
        match self.verification {
            Verification::Never => false,
            Verification::NeverPreloaded => pulled,
            Verification::NeverAllowlisted => !self.lists(reference),
            Verification::Always => true,
        }
    }

    fn lists(&self, reference: &str) -> bool {
        let name = without_version(reference);
        let mut patterns = self.allowlist.iter();
        patterns.any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        })
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    let why = match pattern.strip_suffix("/*") {
        _ if pattern.trim() != pattern => "it has spaces around it",
        Some("") => "it names no registry",
        Some(beginning) if beginning.contains('*') => "only a /* at its end stands for something",
        Some(_) => return Ok(()),
        None if pattern.contains('*') => "only a /* at its end stands for something",
        None if without_version(pattern) != pattern => "it has a tag or a digest",
        None if Reference::parse(pattern).is_err() => "it is no name of an image",
        None => return Ok(()),
    };
    Err(format!("{pattern:?} is no pattern of images: {why}"))
}

/// A reference as a Pod has it, without tag and digest.
fn without_version(reference: &str) -> &str {
    let name = reference.split_once('@');
    let name = name.map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        // A port has a path behind it.
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// How an image came to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By no pull that is remembered.
    Preloaded,
    /// By a pull; from where its reference leads by those, or from elsewhere alone.
    Pulled(Option<Access>),
}

/// What a Pod may do that wants an image which is here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement<'a> {
    /// Use it.
    Allowed,
    /// Ask the registry.
    Refused,
    /// Use it if it has one of these.
    OfSecrets(&'a [PullSecret]),
}

pub(crate) fn judge<'a>(
    policy: &AccessPolicy,
    reference: &str,
    origin: &'a Origin,
) -> Judgement<'a> {
    let pulled = *origin != Origin::Preloaded;
    match origin {
        _ if !policy.verifies(reference, pulled) => Judgement::Allowed,
        Origin::Pulled(Some(Access::Everybody)) => Judgement::Allowed,
        Origin::Pulled(Some(Access::Secrets(secrets))) => Judgement::OfSecrets(secrets),
        Origin::Preloaded | Origin::Pulled(None) => Judgement::Refused,
    }
}

/// The first of a Pod's Secrets that is one of those: it holds the same credential, or it is the same
/// Secret, whatever it holds by now.
pub(crate) fn fitting<'a>(known: &[PullSecret], own: &'a [PullSecret]) -> Option<&'a PullSecret> {
    own.iter().find(|own| {
        let mut known = known.iter();
        known.any(|known| known.hash == own.hash || known.secret == own.secret)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_images::SecretId;

    use super::*;

    fn secret(name: &str, hash: &str) -> PullSecret {
        PullSecret {
            secret: SecretId {
                namespace: "ns".to_owned(),
                name: name.to_owned(),
                uid: format!("uid-{name}"),
            },
            hash: hash.to_owned(),
        }
    }

    #[test]
    fn the_policy_and_the_record_decide() {
        use Judgement::{Allowed, OfSecrets, Refused};
        let secrets = [secret("a", "1")];
        let everybody = Origin::Pulled(Some(Access::Everybody));
        let some = Origin::Pulled(Some(Access::Secrets(secrets.to_vec())));
        let elsewhere = Origin::Pulled(None);
        let preloaded = Origin::Preloaded;
        let of_some = || OfSecrets(&secrets);
        for (policy, image, origin, expected) in [
            ("NeverVerify", "r/app:v1", &elsewhere, Allowed),
            ("NeverVerify", "r/app:v1", &some, Allowed),
            ("NeverVerifyPreloadedImages", "r/app", &preloaded, Allowed),
            ("NeverVerifyPreloadedImages", "r/app", &everybody, Allowed),
            ("NeverVerifyPreloadedImages", "r/app", &some, of_some()),
            ("NeverVerifyPreloadedImages", "r/app", &elsewhere, Refused),
            ("NeverVerifyAllowlistedImages", "r/one:v1", &some, Allowed),
            ("NeverVerifyAllowlistedImages", "r/one/x", &some, of_some()),
            (
                "NeverVerifyAllowlistedImages",
                "r:5000/all/x@sha256:00",
                &preloaded,
                Allowed,
            ),
            (
                "NeverVerifyAllowlistedImages",
                "r:5000/all",
                &preloaded,
                Refused,
            ),
            ("NeverVerifyAllowlistedImages", "r/app", &preloaded, Refused),
            ("NeverVerifyAllowlistedImages", "r/app", &everybody, Allowed),
            ("AlwaysVerify", "r/one", &preloaded, Refused),
            ("AlwaysVerify", "r/one", &everybody, Allowed),
            ("AlwaysVerify", "r/one", &some, of_some()),
        ] {
            let verification: Verification = policy.parse().unwrap();
            let listed = verification == Verification::NeverAllowlisted;
            let allowlist = ["r/one", "r:5000/all/*"].map(str::to_owned);
            let of = AccessPolicy {
                verification,
                allowlist: allowlist.into_iter().filter(|_| listed).collect(),
            };
            assert_eq!(of.check(), Ok(()));
            let judged = judge(&of, image, origin);
            assert_eq!(judged, expected, "{policy} {image} {origin:?}");
        }
    }

    #[test]
    fn a_secret_is_known_by_what_it_is_or_holds() {
        let known = [secret("a", "1"), secret("b", "2")];
        for (own, expected) in [
            (vec![secret("a", "1")], Some("a")),
            // Another with the same credential.
            (vec![secret("c", "3"), secret("d", "2")], Some("d")),
            // It was changed since.
            (vec![secret("b", "4")], Some("b")),
            (vec![secret("c", "3")], None),
            (vec![], None),
        ] {
            let found = fitting(&known, &own).map(|of| &*of.secret.name);
            assert_eq!(found, expected, "{own:?}");
        }
        // A name that was given anew is another Secret.
        let mut anew = secret("a", "5");
        anew.secret.uid = "other".to_owned();
        assert_eq!(fitting(&known, &[anew]), None);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let policy = |verification, pattern: &str| AccessPolicy {
            verification,
            allowlist: vec![pattern.to_owned()],
        };
        let listed = |pattern| policy(Verification::NeverAllowlisted, pattern).check();
        for fine in ["app", "r.example/team/app", "r.example:5000/*", "r/team/*"] {
            assert_eq!(listed(fine), Ok(()));
        }
        for (pattern, why) in [
            (" app", "spaces"),
            ("/*", "names no registry"),
            ("*", "only a /*"),
            ("r/*/app", "only a /*"),
            ("r/app*", "only a /*"),
            ("r/*/*", "only a /*"),
            ("r/app:v1", "tag or a digest"),
            ("r/app@sha256:00", "tag or a digest"),
            ("R/APP", "no name"),
            ("", "no name"),
        ] {
            let error = listed(pattern).unwrap_err();
            assert!(error.contains(why), "{pattern}: {error}");
        }
        let error = policy(Verification::Always, "app").check().unwrap_err();
        assert!(error.contains("NeverVerifyAllowlistedImages"), "{error}");
        let error = "Sometimes".parse::<Verification>().unwrap_err();
        assert!(error.contains("NeverVerifyPreloadedImages"), "{error}");
    }
}
