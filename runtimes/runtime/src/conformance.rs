//! The suite that every runtime must pass.
