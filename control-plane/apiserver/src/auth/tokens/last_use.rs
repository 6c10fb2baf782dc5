//! When a token was last used that a Secret holds. It never expires: by this day, which the Secret
//! has as a label, people find those that nobody needs any more, and by another label they end
//! them.
//!
//! It is written while who uses the token waits to be known: for a short time only. A store without a
//! quorum still answers many reads, and these must not wait for what it cannot write.

use std::time::Duration;

use coracle_apimachinery::status::Status;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::auth::{MASTERS, UserInfo};
use crate::registry::erased::Object;
use crate::registry::update::Part;
use crate::registry::{Caller, FieldManager, Registry, Target, typed};
use crate::validation::text;

/// The label with the day on which the token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The label of a Secret whose token is not to be believed any more.
pub(super) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const DAY: i64 = 24 * 60 * 60;

/// How long who uses a token waits for the day to be written.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long nothing is written after the store did not answer in that time.
const PAUSE: Duration = Duration::from_secs(30);

/// Whether the Secret says that its token is none any more.
pub(super) fn is_invalid(secret: &Secret) -> bool {
    label(&secret.metadata, INVALID_SINCE).is_some_and(|since| !since.is_empty())
}

/// Notes the uses of tokens.
#[derive(Default)]
pub(super) struct LastUse {
    /// Until when nothing is written, because the store did not answer.
    quiet: Mutex<Option<Instant>>,
}

impl LastUse {
    /// Writes the day of this time, in seconds since 1970, to the Secret, if it has another. Who uses
    /// the token is served whether that succeeds or not.
    pub(super) async fn note(&self, registry: &Registry, secret: &Secret, now: i64) {
        let (Some(today), Some(tomorrow)) = (day_of(now), day_of(now.saturating_add(DAY))) else {
            return;
        };
        let meta = &secret.metadata;
        // Another server's clock may be ahead.
        let told = label(meta, LAST_USED);
        if told.is_some_and(|told| told == today || told == tomorrow) || self.is_quiet() {
            return;
        }
        // It is rare, and large: all other requests are spared its size.
        let written = Box::pin(write(registry, meta, &today));
        let why = match timeout(PATIENCE, written).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => {
                *self.quiet.lock() = Some(Instant::now() + PAUSE);
                "the store did not answer in time".to_owned()
            }
        };
        let (namespace, name) = (text(&meta.namespace), text(&meta.name));
        tracing::warn!(why, namespace, name, "the use of a token cannot be noted");
    }

    fn is_quiet(&self) -> bool {
        let until = *self.quiet.lock();
        until.is_some_and(|until| Instant::now() < until)
    }
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn day_of(seconds: i64) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?;
    Some(time.strftime("%Y-%m-%d").to_string())
}

async fn write(registry: &Registry, seen: &ObjectMeta, today: &str) -> Result<(), Status> {
    let target = Target {
        kind: registry.kind_of::<Secret>()?,
        namespace: text(&seen.namespace),
        name: text(&seen.name),
    };
    let user = UserInfo::new("system:apiserver", &[MASTERS]);
    let caller = Caller {
        user: &user,
        dry_run: false,
        manager: FieldManager::Update("kube-apiserver"),
        noted: None,
    };
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let mut secret: Secret = typed(current.boxed())?;
        // Another one of that name is refused.
        secret.metadata.uid.clone_from(&seen.uid);
        let labels = secret.metadata.labels.get_or_insert_default();
        labels.insert(LAST_USED.to_owned(), today.to_owned());
        Ok(Box::new(secret))
    };
    registry.update(target, Part::Main, &change, caller).await?;
    Ok(())
}
