//! The benchmarks behind the README's table.
fn main() {}
