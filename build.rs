//! Asks the linker for what makes the released program smaller, where it and the machine can:
//!
//! - Functions that came out alike are folded: generic code is compiled for each of its types, and
//!   much of it is the same to the byte. Only lld and its like know how. Functions that are folded
//!   have one address: nothing here tells functions apart by theirs.
//! - Relocations are packed (`DT_RELR`), which programs that may be loaded anywhere have by the
//!   hundred thousand. Loaders know how since glibc 2.36, and older ones say so: a program is to be
//!   built on the oldest system on which it is to run.
//!
//! Each is several megabytes.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const FOLD: &str = "-Wl,--icf=all";
const PACK: &str = "-Wl,-z,pack-relative-relocs";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Another linker may have come with them.
    for variable in ["RUSTFLAGS", "RUSTC_LINKER", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    // Other builds are linked often, and by whoever works on them.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        let folds = linked(FOLD).is_some();
        let packs = linked(PACK).is_some_and(runs);
        for (flag, can) in [(FOLD, folds), (PACK, packs)] {
            if can {
                println!("cargo:rustc-link-arg-bins={flag}");
            }
        }
    }
}

/// A program that does nothing, if it can be linked so.
fn linked(flag: &str) -> Option<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR")?);
    let (source, program) = (out.join("nothing.rs"), out.join("nothing"));
    std::fs::write(&source, "fn main() {}\n").ok()?;
    let mut command = Command::new(env::var_os("RUSTC")?);
    if let Ok(flags) = env::var("CARGO_ENCODED_RUSTFLAGS") {
        command.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("linker=");
        flag.push(linker);
        command.arg("-C").arg(flag);
    }
    let output = command
        .args(["--target", &env::var("TARGET").ok()?])
        .args(["-C", &format!("link-arg={flag}"), "-o"])
        .args([&program, &source])
        .output();
    output
        .is_ok_and(|output| output.status.success())
        .then_some(program)
}

/// Whether it is loaded here: not where it is for another machine.
fn runs(program: PathBuf) -> bool {
    Command::new(program)
        .output()
        .is_ok_and(|output| output.status.success())
}
