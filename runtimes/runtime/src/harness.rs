//! Runs the tests of a binary that executes itself as the processes that it tests, and so has a
//! harness of its own: tests are functions in a table, arguments select by a part of the name.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;

/// A test by its name.
pub type Test = (&'static str, fn() -> BoxFuture<'static, ()>);

/// A few at a time: tests measure nothing, but they have deadlines.
const PARALLEL: usize = 4;

/// Makes the table of tests: `tests![module::test, …]`.
#[macro_export]
macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((
            concat!(stringify!($module), "::", stringify!($name)),
            || ::futures::FutureExt::boxed($module::$name()),
        ),)*]
    };
}

/// Runs the tests that `args` (what follows the program's name) choose.
pub fn run(tests: &[Test], args: &[std::ffi::OsString]) -> ExitCode {
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    if args.contains(&"--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&str> = args
        .into_iter()
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let chosen = tests.iter().filter(|(name, _)| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (passed, failed) = runtime.block_on(all(chosen.copied()));
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// How many passed and failed.
async fn all(tests: impl Iterator<Item = Test>) -> (usize, usize) {
    let mut chosen = 0;
    let failed = Arc::new(AtomicUsize::new(0));
    let mut running = tokio::task::JoinSet::new();
    for (name, test) in tests {
        chosen += 1;
        let failed = failed.clone();
        running.spawn(async move {
            let result = AssertUnwindSafe(test()).catch_unwind().await;
            let word = match result {
                Ok(()) => "ok",
                Err(_) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    "FAILED"
                }
            };
            println!("test {name} ... {word}");
        });
        while running.len() >= PARALLEL {
            running.join_next().await;
        }
    }
    while running.join_next().await.is_some() {}
    let failed = failed.load(Ordering::Relaxed);
    (chosen - failed, failed)
}
