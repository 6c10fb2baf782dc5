//! Containers under containerd: a daemon for each test, with folders and networks of its own.
//!
//! It takes root, containerd with runc and the plugin `loopback`, and busybox, of which its images
//! are made. The test is executed as the plugin of the Pods' network, too.
#![allow(clippy::unwrap_used, missing_docs)]

mod daemon;
mod network;
mod node;
mod registry;
mod streaming;
mod suite;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use coracle_runtime::harness::{self, Test};
use coracle_runtime::tests;

const TESTS: &[Test] = tests![
    suite::the_runtime_conforms,
    network::pods_are_in_the_namespace_that_the_node_has_made,
    network::ports_of_a_pod_are_reached_from_within,
    network::another_network_is_left_as_it_was,
    streaming::further_processes_have_streams_of_their_own,
    streaming::further_processes_may_run_on_a_terminal,
    streaming::those_who_attach_hear_and_are_heard,
    verbs::what_is_no_runtime_is_told_in_a_line,
    verbs::use_is_measured_and_limits_change,
    verbs::volumes_and_rights_are_as_the_pod_asks,
    verbs::what_cannot_be_done_is_refused_by_name,
    verbs::a_runtime_that_starts_again_has_its_containers_still,
];

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if let Some(code) = coracle_cri::plugin(args.next().as_deref()) {
        return code;
    }
    let args: Vec<OsString> = args.collect();
    if let Some(reason) = daemon::lacks() {
        let in_ci = std::env::var_os("CI").is_some();
        println!("SKIPPED: all tests of containerd: {reason}");
        println!("test result: ok. 0 passed; 0 failed");
        return ExitCode::from(u8::from(in_ci));
    }
    let before = daemon::Machine::now();
    let code = harness::run(TESTS, &args);
    let left = before.added();
    if !left.is_empty() {
        println!("left on the machine:\n{}", left.join("\n"));
        return ExitCode::FAILURE;
    }
    code
}
