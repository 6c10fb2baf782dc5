//! A command that shows what it is given: the files that its arguments name or, without any, its
//! environment. It fails when it cannot read one of the files.

use std::process::ExitCode;

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        for (name, value) in std::env::vars() {
            println!("{name}={value}");
        }
    }
    let mut code = ExitCode::SUCCESS;
    for path in paths {
        match std::fs::read(&path) {
            Ok(content) => println!("{path}: {}", content.escape_ascii()),
            Err(error) => {
                eprintln!("{path}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
