//! A command: greets whom its arguments name, and ends with exit code 0.

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        println!("Hello from a batch command");
    }
    for name in names {
        println!("Hello, {name}");
    }
}
