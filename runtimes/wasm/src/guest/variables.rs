//! `wasi:cli/environment`: arguments and variables, lowered into the guest from what all instances
//! of its container share.
//!
//! A Pod has variables for each Service of its namespace, and wasmtime's own implementation would
//! copy them all for each instance and again for each call. The functions are added to the linker
//! over its own.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::state::Guest;

/// As wasmtime names it: what a guest imports of the same minor version is found under this.
const INTERFACE: &str = "wasi:cli/environment@0.2.12";

/// Adds the interface; the linker must allow shadowing.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    interface.func_wrap(
        "get-environment",
        |store: StoreContextMut<'_, Guest>, (): ()| Ok((store.data().environment.env.clone(),)),
    )?;
    interface.func_wrap(
        "get-arguments",
        |store: StoreContextMut<'_, Guest>, (): ()| Ok((store.data().environment.argv.clone(),)),
    )?;
    interface.func_wrap(
        "initial-cwd",
        |store: StoreContextMut<'_, Guest>, (): ()| {
            Ok((store.data().environment.working_dir.clone(),))
        },
    )?;
    Ok(())
}
