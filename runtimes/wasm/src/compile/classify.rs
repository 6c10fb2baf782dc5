//! What a module is, and whether this node can run it.

use std::borrow::Cow;

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{Engine, ExternType, Module};

use crate::guest::state;
use crate::protocol::Kind;

/// Interfaces of WASI 0.2 that guests find here.
const WASI: [(&str, &[&str]); 7] = [
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", &["preopens", "types"]),
    ("wasi:http", &["outgoing-handler", "types"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["insecure", "insecure-seed", "random"]),
    (
        "wasi:sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// The binary form of a module that may be text.
pub(super) fn binary(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if bytes.starts_with(b"\0asm") {
        return Ok(Cow::Borrowed(bytes));
    }
    let looks_like_text =
        std::str::from_utf8(bytes).is_ok_and(|text| text.trim_start().starts_with(['(', ';']));
    if !looks_like_text {
        return Err(
            "this is no WebAssembly: it begins neither with the magic \\0asm nor as text".into(),
        );
    }
    wat::parse_bytes(bytes).map_err(|error| format!("the WebAssembly text is not valid: {error}"))
}

/// Compiles a module after it is known to be one that can run.
pub(super) fn compile(engine: &Engine, binary: &[u8]) -> Result<(Kind, Vec<u8>), String> {
    match binary.get(4..8) {
        Some([1, 0, 0, 0]) => core(engine, binary),
        Some([13, 0, 1, 0]) => component(engine, binary),
        Some([a, b, c, d]) => Err(format!(
            "WebAssembly binary version {a:02x}{b:02x}{c:02x}{d:02x} is not known: neither a core \
             module (01000000) nor a component (0d000100)"
        )),
        _ => Err("the module is truncated: it ends within its header".into()),
    }
}

fn invalid(error: &wasmtime::Error) -> String {
    format!("the module is not valid WebAssembly, or truncated: {error:#}")
}

fn internal(error: &wasmtime::Error) -> String {
    format!("the module could not be compiled: {error:#}")
}

fn core(engine: &Engine, binary: &[u8]) -> Result<(Kind, Vec<u8>), String> {
    let module = Module::from_binary(engine, binary).map_err(|error| invalid(&error))?;
    let starts = matches!(
        module.get_export("_start"),
        Some(ExternType::Func(ty)) if ty.params().len() == 0 && ty.results().len() == 0
    );
    if !starts {
        return Err(
            "the core module exports no function `_start` without parameters and results: \
             build it as a WASI command (target wasm32-wasip1), or as a component"
                .into(),
        );
    }
    let linker = state::core_linker(engine).map_err(|error| internal(&error))?;
    let missing: Vec<String> = {
        let known =
            |module: &str, name: &str| module == "wasi_snapshot_preview1" && is_preview1(name);
        module
            .imports()
            .filter(|import| !known(import.module(), import.name()))
            .map(|import| format!("`{}` `{}`", import.module(), import.name()))
            .collect()
    };
    if !missing.is_empty() {
        return Err(lacking(&missing));
    }
    linker
        .instantiate_pre(&module)
        .map_err(|error| format!("an import of the module does not fit: {error:#}"))?;
    let code = module.serialize().map_err(|error| internal(&error))?;
    Ok((Kind::Core, code))
}

/// Functions of WASI preview 1.
fn is_preview1(name: &str) -> bool {
    const NAMES: [&str; 46] = [
        "args_get",
        "args_sizes_get",
        "clock_res_get",
        "clock_time_get",
        "environ_get",
        "environ_sizes_get",
        "fd_advise",
        "fd_allocate",
        "fd_close",
        "fd_datasync",
        "fd_fdstat_get",
        "fd_fdstat_set_flags",
        "fd_fdstat_set_rights",
        "fd_filestat_get",
        "fd_filestat_set_size",
        "fd_filestat_set_times",
        "fd_pread",
        "fd_prestat_dir_name",
        "fd_prestat_get",
        "fd_pwrite",
        "fd_read",
        "fd_readdir",
        "fd_renumber",
        "fd_seek",
        "fd_sync",
        "fd_tell",
        "fd_write",
        "path_create_directory",
        "path_filestat_get",
        "path_filestat_set_times",
        "path_link",
        "path_open",
        "path_readlink",
        "path_remove_directory",
        "path_rename",
        "path_symlink",
        "path_unlink_file",
        "poll_oneoff",
        "proc_exit",
        "proc_raise",
        "random_get",
        "sched_yield",
        "sock_accept",
        "sock_recv",
        "sock_send",
        "sock_shutdown",
    ];
    NAMES.contains(&name)
}

fn component(engine: &Engine, binary: &[u8]) -> Result<(Kind, Vec<u8>), String> {
    // A component for wasi:http 0.3 does not pass validation without the async component model:
    // say why before the validator does.
    if let Some(name) = find_name(binary, b"wasi:http/handler@0.3") {
        return Err(format!(
            "the component exports `{name}`: wasi:http 0.3 is not served yet, build it for \
             wasi:http/incoming-handler 0.2"
        ));
    }
    let component = Component::from_binary(engine, binary).map_err(|error| invalid(&error))?;
    let ty = component.component_type();
    let exports: Vec<String> = ty
        .exports(engine)
        .filter(|(_, export)| matches!(export.ty, ComponentItem::ComponentInstance(_)))
        .map(|(name, _)| name.to_owned())
        .collect();
    let kind = kind(&exports)?;
    let missing: Vec<String> = ty
        .imports(engine)
        .filter(|(name, import)| {
            // A type or a resource-free instance needs nothing of the host.
            !matches!(import.ty, ComponentItem::Type(_)) && !is_wasi(name)
        })
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    if !missing.is_empty() {
        return Err(lacking(&missing));
    }
    let linker = state::component_linker(engine).map_err(|error| internal(&error))?;
    linker
        .instantiate_pre(&component)
        .map_err(|error| format!("an import of the component does not fit: {error:#}"))?;
    let code = component.serialize().map_err(|error| internal(&error))?;
    Ok((kind, code))
}

fn kind(exports: &[String]) -> Result<Kind, String> {
    let has = |interface: &str| exports.iter().any(|name| is_version_0_2(interface, name));
    if has("wasi:http/incoming-handler") {
        return Ok(Kind::Http);
    }
    if has("wasi:cli/run") {
        return Ok(Kind::Command);
    }
    let list = if exports.is_empty() {
        "it exports no interface".to_owned()
    } else {
        format!("it exports {}", exports.join(", "))
    };
    Err(format!(
        "the component is nothing that can run: it must export wasi:cli/run@0.2 (a command) or \
         wasi:http/incoming-handler@0.2 (an HTTP handler), but {list}"
    ))
}

/// Whether `name` is `interface` at a version 0.2.
fn is_version_0_2(interface: &str, name: &str) -> bool {
    name.split_once('@')
        .is_some_and(|(base, version)| base == interface && version.starts_with("0.2."))
}

fn is_wasi(name: &str) -> bool {
    WASI.iter().any(|(package, interfaces)| {
        interfaces.iter().any(|interface| {
            let full = format!("{package}/{interface}");
            is_version_0_2(&full, name)
        })
    })
}

fn lacking(missing: &[String]) -> String {
    format!(
        "the module needs imports that this node does not have: {}",
        missing.join(", ")
    )
}

/// The name that begins with `prefix`, up to the first byte that is in no name.
fn find_name(binary: &[u8], prefix: &[u8]) -> Option<String> {
    let start = binary
        .windows(prefix.len())
        .position(|window| window == prefix)?;
    let name: String = binary[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b":/@.-".contains(byte))
        .map(|byte| char::from(*byte))
        .collect();
    Some(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn try_compile(text: &str) -> Result<Kind, String> {
        let engine = crate::guest::engine::on_demand().unwrap();
        let binary = binary(text.as_bytes())?;
        compile(&engine, &binary).map(|(kind, _)| kind)
    }

    #[test]
    fn a_core_command_is_recognised() {
        let kind = try_compile(
            r#"(module
                 (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
                 (memory (export "memory") 1)
                 (func (export "_start")))"#,
        );
        assert_eq!(kind, Ok(Kind::Core));
    }

    #[test]
    fn every_missing_import_is_named() {
        let error = try_compile(
            r#"(module
                 (import "env" "one" (func))
                 (import "wasi_snapshot_preview1" "nothing" (func))
                 (func (export "_start")))"#,
        )
        .unwrap_err();
        assert!(error.contains("`env` `one`"), "{error}");
        assert!(error.contains("`nothing`"), "{error}");
        let error = try_compile(
            r#"(component
                 (import "acme:db/store@1.0.0" (instance))
                 (import "wasi:cli/environment@0.3.0" (instance))
                 (instance $i)
                 (export "wasi:cli/run@0.2.0" (instance $i)))"#,
        )
        .unwrap_err();
        assert!(error.contains("`acme:db/store@1.0.0`"), "{error}");
        assert!(error.contains("`wasi:cli/environment@0.3.0`"), "{error}");
    }

    #[test]
    fn what_cannot_run_is_refused_with_a_reason() {
        for (text, part) in [
            ("(module)", "_start"),
            ("(component)", "exports no interface"),
            (
                r#"(component (instance $i) (export "wasi:http/handler@0.3.0" (instance $i)))"#,
                "wasi:http 0.3 is not served",
            ),
            (
                r#"(component (instance $i) (export "acme:x/y" (instance $i)))"#,
                "acme:x/y",
            ),
            ("(module (func", "not valid"),
            ("hello", "no WebAssembly"),
        ] {
            let error = try_compile(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_module_cut_anywhere_is_refused() {
        let engine = crate::guest::engine::on_demand().unwrap();
        let whole = wat::parse_str(r#"(module (memory 1) (func (export "_start") nop))"#).unwrap();
        for length in 0..whole.len() {
            let part = &whole[..length];
            let result = binary(part).and_then(|bytes| compile(&engine, &bytes));
            assert!(result.is_err(), "cut at {length}");
        }
    }
}
