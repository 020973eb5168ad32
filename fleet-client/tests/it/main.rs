//! The client against a real control plane, served over HTTP on loopback.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cutting_proxy;
mod failing;
mod members;
mod served_fleet;
mod signing_up;
