//! Claims steps, runs them, records what came of them. Knows nothing of what an operation does.

pub mod control;
pub mod submit;
