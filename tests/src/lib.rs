//! End-to-end tests, client suites and benchmarks of the binary.
