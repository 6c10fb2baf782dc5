//! The engine's configuration.
//!
//! **Invariant**: what changes compiled code is set in [`base`] alone, so that a module compiled
//! once runs under the runner and under the HTTP host.

use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig};

/// Live instances in one HTTP host.
pub(crate) const MAX_INSTANCES: u32 = 4_000;
/// Memories and tables for each of them, on average.
pub(crate) const MEMORIES: u32 = 2;
pub(crate) const TABLES: u32 = 4;
/// What one instance may have of tables, and of core instances, which take no address space.
pub(crate) const MAX_TABLES_OF_ONE: u32 = 64;
const MAX_CORES_OF_ONE: u32 = 64;
/// Largest linear memory of a guest, 4 GiB: all that wasm32 can address.
const MAX_MEMORY: usize = 1 << 32;
/// Elements of one table.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 1 << 17;

fn base() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model(true)
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20)
        // Compiled code of guests is not for the profiler or gdb; it is mapped from a file.
        .native_unwind_info(false)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    config
}

/// For the compiler and the runner: memory is mapped as a guest asks for it.
pub(crate) fn on_demand() -> wasmtime::Result<Engine> {
    Engine::new(&base())
}

/// For the HTTP host: instances come from a pool of address space whose pages stay resident.
pub(crate) fn pooling() -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MAX_INSTANCES)
        .total_core_instances(MAX_INSTANCES * MAX_CORES_OF_ONE)
        .total_memories(MAX_INSTANCES * MEMORIES)
        .total_tables(MAX_INSTANCES * TABLES)
        .total_stacks(MAX_INSTANCES)
        .max_core_instances_per_component(MAX_CORES_OF_ONE)
        .max_memories_per_component(8)
        .max_tables_per_component(MAX_TABLES_OF_ONE)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_tables_per_module(8)
        .max_memories_per_module(2)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_memory_size(MAX_MEMORY)
        .max_unused_warm_slots(64)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = base();
    config.allocation_strategy(pool);
    Engine::new(&config)
}
