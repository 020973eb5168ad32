//! What a process says about its connections to one server.

use std::time::Duration;

use super::budget::Budget;
use super::tally::Reason;

/// The connections of requests to one server, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    /// `host:port`.
    pub address: String,
    /// How many may be open.
    pub budget: usize,
    /// How many are open, those being opened or closed included.
    pub open: usize,
    /// Open and unused.
    pub idle: usize,
    /// Used by a request.
    pub in_use: usize,
    /// Requests that wait for one.
    pub waiting_requests: usize,
    /// Tenants with such a request.
    pub waiting_tenants: usize,
    /// Connections moved from one tenant to another, since the start.
    pub switches: u64,
    /// Connections closed since the start, by reason; only reasons that occurred.
    pub closes: Vec<(Reason, u64)>,
    /// What opening a connection takes, smoothed.
    pub connect: Duration,
}

impl ServerReport {
    pub(super) fn of<C, W>(address: &str, budget: &Budget<C, W>) -> Self {
        let tally = budget.tally();
        let closes = Reason::ALL.into_iter().zip(tally.closes).filter(|(_, closes)| *closes > 0);
        Self {
            address: address.to_owned(),
            budget: budget.limit(),
            open: tally.open(),
            idle: tally.idle,
            in_use: tally.in_use,
            waiting_requests: tally.waiting,
            waiting_tenants: budget.waiting_accounts(),
            switches: tally.switches(),
            closes: closes.collect(),
            connect: budget.pace().connect(),
        }
    }
}
