//! Guests, end to end: real processes, real sockets, no cluster.
//!
//! The test executes itself as the guest processes, see [`harness`].
#![allow(clippy::unwrap_used, missing_docs)]

mod commands;
mod dispatch;
mod exec;
mod http;
mod https;
mod network;
mod node;
mod programs;
mod sockets;
mod suite;
mod users;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use coracle_runtime::harness::{self, Test};
use coracle_runtime::tests;

const TESTS: &[Test] = tests![
    suite::the_runtime_conforms,
    commands::output_arguments_and_environment_arrive,
    commands::those_who_attach_hear_and_are_heard,
    commands::a_component_runs,
    commands::faults_end_with_their_codes,
    commands::what_cannot_run_is_named,
    commands::a_spinning_guest_is_stopped_at_once,
    commands::a_cpu_limit_throttles,
    commands::volumes_are_preopened,
    commands::an_image_is_a_volume_to_be_read,
    commands::a_server_listens_under_the_pods_address,
    commands::a_guest_ends_while_no_agent_is_there,
    commands::a_killed_process_is_an_exit,
    commands::guest_processes_are_confined,
    commands::a_guest_leaves_last_words,
    exec::a_command_of_the_image_runs_beside_its_guest,
    exec::a_program_in_a_volume_runs_in_the_sandbox,
    exec::what_is_no_command_says_so,
    exec::sessions_end_with_their_container,
    exec::a_further_guest_goes_as_soon_as_its_container,
    http::a_component_is_served,
    http::one_host_serves_a_namespace,
    http::the_next_agent_finds_guests_served,
    http::a_start_that_is_given_up_leaves_nothing,
    http::the_death_of_a_host_ends_its_containers,
    http::a_guest_that_cannot_be_served_leaves_nothing,
    http::guests_reach_each_other_and_their_volumes,
    http::many_requests_are_served_at_once,
    http::a_trap_is_an_answer_and_nothing_more,
    http::a_memory_limit_is_for_the_container,
    http::requests_wait_for_memory,
    http::a_process_that_no_agent_comes_back_for_ends,
    http::a_stop_lets_requests_finish_and_cuts_the_rest,
    http::a_spinning_neighbour_is_not_felt,
    https::servers_must_prove_who_they_are,
    sockets::every_address_is_the_networks,
    sockets::guests_call_from_the_source_that_the_network_names,
    sockets::whom_the_network_denies_is_not_heard,
    sockets::localhost_is_announced_and_ports_are_taken_once,
    sockets::datagrams_are_answered,
    sockets::no_spelling_leads_to_the_hosts_loopback,
    sockets::a_guest_has_so_many_sockets,
    sockets::newer_interfaces_are_refused_by_name,
    users::processes_take_the_user_of_their_namespace,
    users::guests_keep_to_their_volumes_and_records,
    users::what_runs_as_another_user_is_not_taken_over,
    users::guests_join_a_network_namespace_and_are_adopted_there_only,
    dispatch::a_port_is_served_inside_the_host,
    dispatch::a_client_with_affinity_stays,
    dispatch::a_port_gets_new_endpoints_and_is_withdrawn,
    dispatch::a_port_goes_only_to_a_host_that_serves_it_all,
    dispatch::a_port_ends_with_its_host_and_with_its_agent,
];

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let program = args.remove(0);
    if Path::new(&program).file_name() == Some(node::IMPATIENT.as_ref()) {
        node::hurry(&mut args);
    }
    if let Some(code) = coracle_wasm::subcommand(&args, network::open) {
        return code;
    }
    harness::run(TESTS, &args)
}
