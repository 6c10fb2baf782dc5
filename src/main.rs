//! Coracle: a Kubernetes in one binary.
//!
//! The binary wires the parts together and owns nothing that a part could own: options, the
//! data directory, certificates, and the order in which things start and stop. Guests run in
//! processes of this same binary; their hidden subcommands are taken before anything else, so
//! that no thread and no runtime exists in them yet.

mod cli;
mod identity;
mod paths;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(code) = coracle_wasm::subcommand(&arguments, guest_network) {
        return code;
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
