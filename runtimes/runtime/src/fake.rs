//! A runtime in memory, for tests of the kubelet.
