//! `--kubelet-arg`: flags of the kubelet in the form in which k3s passes them on, `KEY=VALUE`.
//!
//! Keys are those of the kubelet's command line. `image-maximum-gc-age`, who may use images and the
//! periods of shutdowns are there fields of the configuration file alone (`imageMaximumGCAge`,
//! `imagePullCredentialsVerificationPolicy`, `preloadedImagesVerificationAllowlist`,
//! `shutdownGracePeriod`, `shutdownGracePeriodCriticalPods`, `shutdownGracePeriodByPodPriority`). A key
//! that is not known is refused with those that are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use coracle_apimachinery::duration;
use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{EPHEMERAL_STORAGE, ResourceList};
use coracle_images::Reserve;
use coracle_kubelet::{
    Amount, EvictionPolicy, NodePolicy, Signal, parse_amounts, parse_periods, parse_thresholds,
};

/// Puts a value into a policy.
type Set = fn(&mut NodePolicy, &str) -> Result<()>;

/// The keys, with what they set.
const KEYS: [(&str, Set); 20] = [
    ("image-gc-high-threshold", |policy, value| {
        policy.images.high_threshold_percent = percent(value)?;
        Ok(())
    }),
    ("image-gc-low-threshold", |policy, value| {
        policy.images.low_threshold_percent = percent(value)?;
        Ok(())
    }),
    ("minimum-image-ttl-duration", |policy, value| {
        policy.images.minimum_age = time(value)?;
        Ok(())
    }),
    ("image-maximum-gc-age", |policy, value| {
        policy.images.maximum_age = time(value)?;
        Ok(())
    }),
    (
        "image-pull-credentials-verification-policy",
        |policy, value| {
            policy.access.verification = value.parse().map_err(Error::msg)?;
            Ok(())
        },
    ),
    (
        "preloaded-images-verification-allowlist",
        |policy, value| {
            let patterns = value.split(',').filter(|pattern| !pattern.is_empty());
            policy.access.allowlist = patterns.map(str::to_owned).collect();
            Ok(())
        },
    ),
    ("eviction-hard", |policy, value| {
        policy.eviction.hard = parse_thresholds(value).map_err(Error::msg)?;
        Ok(())
    }),
    ("eviction-soft", |policy, value| {
        policy.eviction.soft = parse_thresholds(value).map_err(Error::msg)?;
        Ok(())
    }),
    ("eviction-soft-grace-period", |policy, value| {
        policy.eviction.soft_grace = parse_periods(value).map_err(Error::msg)?;
        Ok(())
    }),
    ("eviction-minimum-reclaim", |policy, value| {
        policy.eviction.minimum_reclaim = parse_amounts(value).map_err(Error::msg)?;
        Ok(())
    }),
    ("eviction-pressure-transition-period", |policy, value| {
        policy.eviction.transition = time(value)?;
        Ok(())
    }),
    ("eviction-max-pod-grace-period", |policy, value| {
        let seconds = value.parse();
        let seconds = seconds.with_context(|| format!("{value:?} is no number of seconds"))?;
        policy.eviction.max_pod_grace = Duration::from_secs(seconds);
        Ok(())
    }),
    ("pod-manifest-path", |policy, value| {
        policy.pod_manifests = Some(path(value)?);
        Ok(())
    }),
    ("shutdown-grace-period", |policy, value| {
        policy.shutdown.grace = time(value)?;
        Ok(())
    }),
    ("shutdown-grace-period-critical-pods", |policy, value| {
        policy.shutdown.critical = time(value)?;
        Ok(())
    }),
    ("shutdown-grace-period-by-pod-priority", |policy, value| {
        policy.shutdown.by_priority = priorities(value)?;
        Ok(())
    }),
    ("image-credential-provider-config", |policy, value| {
        policy.credentials.config = Some(path(value)?);
        Ok(())
    }),
    ("image-credential-provider-bin-dir", |policy, value| {
        policy.credentials.bin_dir = Some(path(value)?);
        Ok(())
    }),
    ("kube-reserved", |policy, value| {
        policy.reserved.kube = reserved(value)?;
        Ok(())
    }),
    ("system-reserved", |policy, value| {
        policy.reserved.system = reserved(value)?;
        Ok(())
    }),
];

/// One flag of the kubelet.
#[derive(Clone, Debug)]
pub(crate) struct KubeletArg {
    key: &'static str,
    value: String,
    set: Set,
}

impl FromStr for KubeletArg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("{text:?} is not of the form KEY=VALUE"))?;
        let Some((key, set)) = KEYS.iter().find(|(known, _)| *known == key) else {
            let known: Vec<&str> = KEYS.iter().map(|(known, _)| *known).collect();
            bail!(
                "{key:?} is no flag of the kubelet here; those are {}",
                known.join(", ")
            );
        };
        let arg = Self {
            key: *key,
            value: value.to_owned(),
            set: *set,
        };
        // The command line shows one line of an error.
        arg.apply(&mut NodePolicy::default())
            .map_err(|error| anyhow!("{error:#}"))?;
        Ok(arg)
    }
}

impl KubeletArg {
    fn apply(&self, policy: &mut NodePolicy) -> Result<()> {
        (self.set)(policy, &self.value).with_context(|| format!("{}={}", self.key, self.value))
    }
}

/// What all flags make of the defaults; of a flag that is repeated the last counts.
pub(crate) fn policy(mut policy: NodePolicy, args: &[KubeletArg]) -> Result<NodePolicy> {
    for arg in args {
        arg.apply(&mut policy)?;
    }
    let images = &policy.images;
    if images.low_threshold_percent >= images.high_threshold_percent {
        bail!(
            "image-gc-low-threshold ({}) must be below image-gc-high-threshold ({})",
            images.low_threshold_percent,
            images.high_threshold_percent
        );
    }
    policy.access.check().map_err(Error::msg)?;
    policy.eviction.check().map_err(Error::msg)?;
    policy.credentials.load().map_err(Error::msg)?;
    policy.shutdown.check().map_err(Error::msg)?;
    Ok(policy)
}

/// What images leave free of the node's disk, which is that of its Pods too: what Pods would be ended
/// for. Where nothing says when that is, it is a little.
pub(crate) fn kept_from_images(eviction: &EvictionPolicy) -> Reserve {
    // Of an amount and a percentage the larger counts.
    let of = |signals: [Signal; 2]| {
        let thresholds = signals.iter().filter_map(|of| eviction.hard.get(of));
        thresholds.fold(None, |kept: Option<(u64, f64)>, threshold| {
            let (amount, percent) = kept.unwrap_or_default();
            Some(match threshold {
                Amount::Quantity(more) => {
                    let more = u64::try_from(more.value()).unwrap_or(0);
                    (amount.max(more), percent)
                }
                Amount::Percent(more) => (amount, percent.max(*more)),
            })
        })
    };
    let mut reserve = Reserve::default();
    if let Some(of) = of([Signal::ImageFsAvailable, Signal::NodeFsAvailable]) {
        (reserve.bytes, reserve.percent) = of;
    }
    if let Some(of) = of([Signal::ImageFsInodesFree, Signal::NodeFsInodesFree]) {
        (reserve.files, reserve.files_percent) = of;
    }
    reserve
}

/// What is kept from Pods, as `cpu=100m,memory=256Mi`.
fn reserved(text: &str) -> Result<ResourceList> {
    let mut all = ResourceList::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, amount) = part
            .split_once('=')
            .with_context(|| format!("{part:?} is not of the form RESOURCE=AMOUNT"))?;
        if !["cpu", "memory", EPHEMERAL_STORAGE, "pid"].contains(&name) {
            bail!("cannot reserve {name:?}: only cpu, memory, ephemeral-storage and pid");
        }
        let amount: Quantity = amount
            .parse()
            .with_context(|| format!("{amount:?} is no amount, as 100m or 256Mi"))?;
        if amount.is_negative() {
            bail!("cannot reserve less than nothing: {part}");
        }
        all.insert(name.to_owned(), amount);
    }
    Ok(all)
}

/// Periods by priority, as `0=60s,100000=10s`.
fn priorities(text: &str) -> Result<BTreeMap<i32, Duration>> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    let periods = parts.map(|part| {
        let (priority, period) = part
            .split_once('=')
            .with_context(|| format!("{part:?} is not of the form PRIORITY=DURATION"))?;
        let priority = priority.trim().parse();
        let priority = priority.with_context(|| format!("{part:?} has no number as priority"))?;
        Ok((priority, time(period)?))
    });
    periods.collect()
}

/// A path; what is relative is so to where the command was given.
fn path(text: &str) -> Result<PathBuf> {
    std::path::absolute(text).with_context(|| format!("{text:?} is no path"))
}

fn percent(text: &str) -> Result<u8> {
    match text.parse() {
        Ok(percent) if percent <= 100 => Ok(percent),
        _ => bail!("{text:?} is no percentage from 0 to 100"),
    }
}

fn time(text: &str) -> Result<Duration> {
    let nanos = duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok());
    let nanos = nanos.with_context(|| format!("{text:?} is no duration, as 30s or 5m"))?;
    Ok(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use coracle_kubelet::Verification;

    use super::*;

    fn parsed(args: &[&str]) -> Result<NodePolicy> {
        let args = args.iter().map(|arg| arg.parse());
        policy(NodePolicy::default(), &args.collect::<Result<Vec<_>>>()?)
    }

    #[test]
    fn flags_are_those_of_the_kubelet() {
        assert_eq!(parsed(&[]).unwrap(), NodePolicy::default());
        let images = parsed(&[
            "image-gc-high-threshold=70",
            "image-gc-high-threshold=60",
            "image-gc-low-threshold=50",
            "minimum-image-ttl-duration=90s",
            "image-maximum-gc-age=24h",
        ]);
        let images = images.unwrap().images;
        assert_eq!(
            (images.high_threshold_percent, images.low_threshold_percent),
            (60, 50)
        );
        assert_eq!(images.minimum_age, Duration::from_secs(90));
        assert_eq!(images.maximum_age, Duration::from_secs(86400));
        let policy = parsed(&[
            "eviction-hard=nodefs.available<7%",
            "eviction-soft=memory.available<1Gi",
            "eviction-soft-grace-period=memory.available=1m30s",
            "eviction-minimum-reclaim=nodefs.available=1Gi",
            "eviction-pressure-transition-period=30s",
            "eviction-max-pod-grace-period=5",
            "kube-reserved=cpu=100m,memory=1Gi",
            "system-reserved=pid=500",
            "pod-manifest-path=/etc/kubernetes/manifests",
            "image-pull-credentials-verification-policy=NeverVerifyAllowlistedImages",
            "preloaded-images-verification-allowlist=r.example/team/*,app",
            "shutdown-grace-period-by-pod-priority=0=60s,100000=10s",
        ]);
        let NodePolicy {
            eviction,
            reserved,
            pod_manifests,
            shutdown,
            access,
            ..
        } = policy.unwrap();
        assert_eq!(access.verification, Verification::NeverAllowlisted);
        assert_eq!(access.allowlist, ["r.example/team/*", "app"]);
        assert_eq!(shutdown.by_priority[&100_000], Duration::from_secs(10));
        let folder = Path::new("/etc/kubernetes/manifests");
        assert_eq!(pod_manifests.as_deref(), Some(folder));
        assert_eq!((reserved.kube.len(), reserved.system.len()), (2, 1));
        // What a flag names is all that holds.
        assert_eq!((eviction.hard.len(), eviction.soft.len()), (1, 1));
        assert_eq!(eviction.max_pod_grace, Duration::from_secs(5));
        assert_eq!(eviction.transition, Duration::from_secs(30));
    }

    #[test]
    fn images_leave_free_what_pods_would_be_ended_for() {
        let usual = Reserve::default();
        for (thresholds, bytes, percent) in [
            ("", usual.bytes, usual.percent),
            ("memory.available<1Gi", usual.bytes, usual.percent),
            ("imagefs.available<7%", 0, 7.0),
            ("nodefs.available<1Gi", 1 << 30, 0.0),
            ("imagefs.available<7%,nodefs.available<10%", 0, 10.0),
            ("imagefs.available<2Gi,nodefs.available<1Gi", 2 << 30, 0.0),
            ("imagefs.available<2Gi,nodefs.available<5%", 2 << 30, 5.0),
        ] {
            let eviction = EvictionPolicy {
                hard: parse_thresholds(thresholds).unwrap(),
                ..EvictionPolicy::default()
            };
            let expected = Reserve {
                bytes,
                percent,
                ..usual
            };
            assert_eq!(kept_from_images(&eviction), expected, "{thresholds}");
        }
        for (thresholds, files, files_percent) in [
            ("imagefs.inodesFree<5%", 0, 5.0),
            ("imagefs.inodesFree<5%,nodefs.inodesFree<2k", 2000, 5.0),
        ] {
            let eviction = EvictionPolicy {
                hard: parse_thresholds(thresholds).unwrap(),
                ..EvictionPolicy::default()
            };
            let expected = Reserve {
                files,
                files_percent,
                ..usual
            };
            assert_eq!(kept_from_images(&eviction), expected, "{thresholds}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for (args, named) in [
            (&["pod-manifest-path="][..], "is no path"),
            (&["image-credential-provider-bin-dir=/x"], "go together"),
            (&["shutdown-grace-period-critical-pods=5s"], "must be <="),
            (
                &["shutdown-grace-period-by-pod-priority=high=5s"],
                "no number as priority",
            ),
            (&["image-gc-high-threshold"][..], "KEY=VALUE"),
            (&["cgroup-driver=systemd"], "minimum-image-ttl-duration"),
            (
                &["image-gc-high-threshold=101"],
                "image-gc-high-threshold=101",
            ),
            (&["image-gc-low-threshold=90"], "must be below"),
            (
                &["image-pull-credentials-verification-policy=Sometimes"],
                "AlwaysVerify",
            ),
            (
                &["preloaded-images-verification-allowlist=app"],
                "NeverVerifyAllowlistedImages alone",
            ),
            (&["minimum-image-ttl-duration=soon"], "no duration"),
            (&["eviction-hard=memory.available=1Gi"], "SIGNAL<VALUE"),
            (
                &["eviction-soft=memory.available<1Gi"],
                "grace period must be specified",
            ),
            (&["kube-reserved=gpu=1"], "ephemeral-storage and pid"),
            (&["system-reserved=cpu=-1"], "less than nothing"),
        ] {
            let error = format!("{:#}", parsed(args).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
