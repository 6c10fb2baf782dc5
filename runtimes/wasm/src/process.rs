//! The hidden subcommands by which the binary re-executes itself.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use coracle_runtime::{Attachment, GuestNetwork};

use crate::{compile, host, runner};

/// Opens the network of one Pod inside a guest process, from the snapshot that the agent
/// publishes, the Pod's addresses, and what they are. The binary gives it, since this crate does
/// not know the network's.
pub type NetworkFactory = fn(&Path, &[IpAddr], Attachment) -> io::Result<Arc<dyn GuestNetwork>>;

/// Runs a hidden subcommand if `args` (what follows the program's name) names one. To be called
/// before a runtime or any thread is started; `None` means that this is not for us.
pub fn subcommand(args: &[OsString], network: NetworkFactory) -> Option<ExitCode> {
    let (name, rest) = args.split_first()?;
    let result = match name.to_str()? {
        "wasm-compile" => compile::child::main(rest),
        "wasm-runner" => runner::main(rest, network),
        "wasm-http-host" => host::main(rest, network),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    })
}
