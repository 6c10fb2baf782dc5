//! What upstream tests in `test/e2e/apps`.

mod controller_revision;
mod cronjob;
mod daemon_set;
mod deployment;
mod disruption;
mod job;
mod rc;
mod replica_set;
mod statefulset;
