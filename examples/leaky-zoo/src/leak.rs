//! A leak: what it is called, what it does, and which probes should find it. The list of all is in `leaks/mod.rs`.

use axum::Router;

pub use crate::leaks::LEAKS;
use crate::zoo::Zoo;

/// One deliberate mistake.
#[derive(Debug, Clone, Copy)]
pub struct Leak {
    /// The name, which is also the name of its feature.
    pub name: &'static str,
    /// What happens, in one sentence.
    pub class: &'static str,
    /// The probes of a test kit that should find it.
    pub probes: &'static [&'static str],
    /// The routes that leak, as `GET /orgs/{tenant}/api/counts`.
    pub routes: &'static [&'static str],
    /// Lays the leak on top of the correct routes.
    pub install: fn(&Zoo, Router) -> Router,
}

/// The leak with this name, if it is compiled in.
#[must_use]
pub fn find_leak(name: &str) -> Option<&'static Leak> {
    LEAKS.iter().copied().find(|leak| leak.name == name)
}
