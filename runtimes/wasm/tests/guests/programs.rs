//! Guests as text.

/// Prints `hello`.
pub(crate) const HELLO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "\10\00\00\00\06\00\00\00hello\n")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))))"#;

/// Writes what it reads, to the end of its input.
pub(crate) const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $again
      (i32.store (i32.const 8) (i32.const 64))
      (i32.store (i32.const 12) (i32.const 1024))
      (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 0)))
      (i32.store (i32.const 12) (i32.load (i32.const 0)))
      (if (i32.load (i32.const 0))
        (then
          (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 4)))
          (br $again))))))"#;

/// Exits with 3.
pub(crate) const EXIT_3: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 3))))"#;

/// Waits for a clock, for ever.
pub(crate) const SLEEP: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 1000000000000))
    (loop $again
      (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
      (br $again))))"#;

/// Spins, for ever.
pub(crate) const SPIN: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "_start") (loop $again (br $again))))"#;

/// Bodies of `handle`, see [`handler`].
pub(crate) const SPINS: &str = "(loop $again (br $again))";
pub(crate) const TRAPS: &str = "unreachable";
pub(crate) const GROWS: &str = "(loop $more (drop (memory.grow (i32.const 16))) (br $more))";
pub(crate) const SILENT: &str = "nop";

/// An HTTP handler with a body that is core code.
pub(crate) fn handler(body: &str) -> String {
    format!(
        r#"(component
          (import "wasi:http/types@0.2.0" (instance $types
            (export "incoming-request" (type (sub resource)))
            (export "response-outparam" (type (sub resource)))))
          (alias export $types "incoming-request" (type $request))
          (alias export $types "response-outparam" (type $outparam))
          (core module $code
            (memory 1)
            (func (export "handle") (param i32 i32) {body}))
          (core instance $instance (instantiate $code))
          (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
            (canon lift (core func $instance "handle")))
          (instance $handler (export "handle" (func $handle)))
          (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    )
}
