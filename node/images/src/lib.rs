//! OCI distribution client, content store and the embedded registry.
