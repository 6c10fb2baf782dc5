//! Pod addresses, Service rules and names.
