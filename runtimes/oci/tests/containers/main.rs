//! Containers, end to end: real shims, real namespaces and cgroups, no cluster.
//!
//! It takes root, and busybox, of which its images are made. The test executes itself as the shims,
//! see [`harness`].
#![allow(clippy::unwrap_used, missing_docs)]

mod isolation;
mod lifecycle;
mod limits;
mod nesting;
mod node;
mod sharing;
mod streaming;
mod suite;
mod users;

use std::ffi::OsString;
use std::process::ExitCode;

use coracle_runtime::harness::{self, Test};
use coracle_runtime::tests;

const TESTS: &[Test] = tests![
    suite::the_runtime_conforms,
    lifecycle::what_cannot_be_executed_is_named,
    lifecycle::further_processes_run_beside_the_first,
    lifecycle::a_container_ends_while_no_agent_is_there,
    lifecycle::the_death_of_a_shim_ends_its_containers,
    lifecycle::a_shim_that_dies_while_it_makes_a_container_leaves_nothing,
    lifecycle::a_shim_that_dies_when_it_has_made_a_container_ends_it,
    lifecycle::signals_end_containers_with_their_codes,
    lifecycle::containers_of_a_pod_share_what_is_the_pods,
    lifecycle::what_a_container_writes_is_its_own,
    lifecycle::a_shim_that_no_agent_comes_back_for_ends,
    lifecycle::no_cgroup_of_a_pod_is_left,
    lifecycle::two_sandboxes_of_a_pod_go_at_once,
    lifecycle::many_further_processes_begin_at_once,
    isolation::first_and_further_processes_are_filtered,
    isolation::no_new_privileges_and_no_filter_are_honoured,
    isolation::users_keep_no_rights_of_roots,
    isolation::groups_of_the_image_are_left_out_where_the_pod_says_so,
    isolation::the_runtimes_own_program_cannot_be_written,
    isolation::devices_are_those_that_every_container_has,
    isolation::hostile_programs_gain_nothing,
    isolation::the_privileged_have_the_machine,
    isolation::a_filter_of_the_machines_is_of_all_processes,
    isolation::a_profile_of_apparmor_is_of_all_processes,
    isolation::the_default_profile_confines_who_asks_for_none,
    sharing::containers_see_each_others_processes,
    sharing::a_container_sees_the_processes_of_its_target,
    sharing::a_pod_ends_with_its_first_process,
    sharing::mounts_are_seen_where_a_volume_says_so,
    sharing::volumes_that_have_become_links_are_not_followed,
    nesting::links_in_a_volume_lead_no_other_out_of_it,
    nesting::volumes_lie_below_volumes_with_rights_of_their_own,
    streaming::further_processes_have_streams_of_their_own,
    streaming::further_processes_may_run_on_a_terminal,
    streaming::those_who_attach_hear_and_are_heard,
    streaming::a_container_may_run_on_a_terminal,
    streaming::what_was_written_last_is_heard,
    streaming::ports_of_a_pod_are_reached_from_within,
    users::first_and_further_processes_are_of_the_pods_users,
    users::files_are_as_without_users_of_its_own,
    users::the_kernels_files_are_the_pods,
    users::processes_are_shared_among_the_pods_users,
    users::a_volume_that_cannot_have_them_is_named,
    limits::too_much_memory_is_told_as_such,
    limits::use_is_measured_and_limits_change,
    limits::a_pods_containers_share_its_limits,
    limits::a_class_has_the_share_of_the_pods_that_run,
];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = coracle_oci::subcommand(&args) {
        return code;
    }
    if let Some(reason) = node::lacks() {
        println!("SKIPPED: all tests of containers: {reason}");
        println!("test result: ok. 0 passed; 0 failed");
        return ExitCode::SUCCESS;
    }
    // As of a node that a shell started in the background: its containers must not find it so.
    // SAFETY: to ignore a signal is no function of ours, and no thread has been started.
    unsafe { libc::signal(libc::SIGQUIT, libc::SIG_IGN) };
    let before = node::Machine::now();
    let code = harness::run(TESTS, &args);
    let left = before.added();
    if !left.is_empty() {
        println!("left on the machine:\n{}", left.join("\n"));
        return ExitCode::FAILURE;
    }
    code
}
