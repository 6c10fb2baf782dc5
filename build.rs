//! Lets the linker fold functions that came out alike, where it can: generic code is compiled for
//! each of its types, and much of it is the same to the byte. That is several megabytes of the
//! released program. Only lld and its like know how, so the linker is asked first. Functions that are
//! folded have one address: nothing here tells functions apart by theirs.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const FOLD: &str = "-Wl,--icf=all";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Another linker may have come with them.
    for variable in ["RUSTFLAGS", "RUSTC_LINKER", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    // Other builds are linked often, and by whoever works on them.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") && folds() == Some(true) {
        println!("cargo:rustc-link-arg-bins={FOLD}");
    }
}

/// Whether a program that does nothing can be linked so.
fn folds() -> Option<bool> {
    let out = PathBuf::from(env::var_os("OUT_DIR")?);
    let source = out.join("nothing.rs");
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
    let linked = command
        .args(["--target", &env::var("TARGET").ok()?])
        .args(["-C", &format!("link-arg={FOLD}"), "-o"])
        .args([out.join("nothing"), source])
        .output();
    Some(linked.is_ok_and(|linked| linked.status.success()))
}
