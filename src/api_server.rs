//! The options of the API server: its limits and times, what it audits, and how it ends. The flags
//! are those of kube-apiserver.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use coracle_apimachinery::duration;
use coracle_apiserver::audit::{Audit, AuditLog, LogOptions, Policy};
use coracle_apiserver::serving::Shutdown;
use coracle_apiserver::{Config, FlowLimits, Verbosity};

#[derive(Clone, Debug, Args)]
pub(crate) struct ApiOptions {
    /// Reads that are served at once; with --max-mutating-requests-inflight it is what the
    /// priority levels share
    #[arg(long, value_name = "N", default_value_t = 400)]
    max_requests_inflight: u32,
    /// Writes that are served at once
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_mutating_requests_inflight: u32,
    /// How long a request may take that is no watch
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = positive)]
    request_timeout: Duration,
    /// Seconds after which watches end that do not say when; each after up to twice as long
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    min_request_timeout: u32,
    /// How long all is served as before when the server is to end, while /readyz fails already
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    shutdown_delay_duration: Duration,
    /// What is audited: a file with a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    audit_policy_file: Option<PathBuf>,
    /// Where audit events are written; - is standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// Days for which rotated audit logs are kept; 0 is for ever
    #[arg(long, value_name = "DAYS", default_value_t = 366)]
    audit_log_maxage: u32,
    /// Rotated audit logs that are kept; 0 is all
    #[arg(long, value_name = "N", default_value_t = 100)]
    audit_log_maxbackup: u32,
    /// Megabytes after which the audit log is rotated; 0 is never
    #[arg(long, value_name = "MB", default_value_t = 100)]
    audit_log_maxsize: u32,
}

/// A duration as in Go (`1m30s`).
fn duration(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse(text).ok_or("it is no duration: try 30s or 1m")?;
    let nanos = u64::try_from(nanos).map_err(|_| "it must not be negative")?;
    Ok(Duration::from_nanos(nanos))
}

fn positive(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() {
        return Err("it must be positive".to_owned());
    }
    Ok(duration)
}

impl ApiOptions {
    /// What is audited. Whatever is wrong with it is said before anything starts.
    pub(crate) fn audit(&self) -> Result<Option<Arc<Audit>>> {
        let (Some(policy), Some(path)) = (&self.audit_policy_file, &self.audit_log_path) else {
            return Ok(None);
        };
        let policy = Policy::read(policy)?;
        let options = LogOptions {
            path: path.clone(),
            max_age: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            max_size: self.audit_log_maxsize,
        };
        let log = AuditLog::open(options)
            .with_context(|| format!("cannot write the audit log {}", path.display()))?;
        Ok(Some(Audit::new(policy, log)))
    }

    /// Puts them into the configuration of the server over the store in this folder.
    pub(crate) fn configure(
        &self,
        config: &mut Config,
        audit: Option<Arc<Audit>>,
        verbosity: Verbosity,
        store: PathBuf,
    ) {
        config.flow = FlowLimits {
            read_only: self.max_requests_inflight as usize,
            mutating: self.max_mutating_requests_inflight as usize,
        };
        config.request_timeout = self.request_timeout;
        config.min_request_timeout = Duration::from_secs(self.min_request_timeout.into());
        config.shutdown = Shutdown {
            delay: self.shutdown_delay_duration,
            // No request takes longer.
            drain: self.request_timeout,
        };
        config.audit = audit;
        config.verbosity = Some(verbosity);
        config.storage_size = Some(Arc::new(move || allocated(&store)));
    }
}

/// Bytes that the files of a folder and those below it take.
fn allocated(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => allocated(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        api: ApiOptions,
    }

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
        assert!(positive("0s").is_err());
    }

    #[test]
    fn a_policy_and_a_log_come_together_and_faults_name_the_file() {
        assert!(Options::try_parse_from(["x", "--audit-log-path", "-"]).is_err());
        let folder = tempfile::tempdir().expect("a folder");
        let policy = folder.path().join("policy.yaml");
        let audit = |text: &str| {
            std::fs::write(&policy, text).expect("written");
            let log = folder.path().join("audit.log");
            let arguments = [
                "x".as_ref(),
                "--audit-policy-file".as_ref(),
                policy.as_os_str(),
                "--audit-log-path".as_ref(),
                log.as_os_str(),
            ];
            let options = Options::try_parse_from(arguments).expect("they parse");
            options.api.audit()
        };
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n";
        assert!(audit(&format!("{head}- level: Metadata\n")).is_ok_and(|audit| audit.is_some()));
        let error = audit(&format!("{head}- level: Loud\n"))
            .err()
            .expect("a fault");
        let error = format!("{error:#}");
        assert!(
            error.contains("policy.yaml") && error.contains("rules[0].level"),
            "{error}"
        );
    }

    #[test]
    fn what_is_allocated_is_summed_through_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).expect("made");
        std::fs::write(inner.join("a"), vec![1; 100_000]).expect("written");
        assert!(allocated(folder.path()) >= 100_000);
        assert_eq!(allocated(&folder.path().join("none")), 0);
    }
}
