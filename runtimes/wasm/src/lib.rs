//! WebAssembly guests under wasmtime.
