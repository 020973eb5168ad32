//! What the benchmarks share. They compare side by side, in one run, in alternating rounds: the machine is noisy, so
//! only ratios mean something.

pub mod engine;
pub mod fleet;
pub mod latency;
pub mod postgres;
pub mod side;
pub mod tenants;
