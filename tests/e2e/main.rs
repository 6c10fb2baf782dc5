//! End-to-end tests: the real binary and real clients, each test with a cluster of its own.

mod cluster;
mod faults;
mod lifecycle;
mod nodes;
mod samples;
mod walk;
