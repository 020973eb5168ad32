//! A report of a process's connections to one server.

use std::time::Duration;

use super::budget::ConnectionBudget;
use super::counters::CloseReason;

/// The connections for requests to one server at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    /// Address as `host:port`, without credentials.
    pub address: String,
    /// Maximum number of open connections.
    pub budget: usize,
    /// Number of open connections, including those being opened or closed.
    pub open: usize,
    /// Number of open connections that are not in use.
    pub idle: usize,
    /// Number of connections that a request uses.
    pub in_use: usize,
    /// Number of requests that wait for a connection.
    pub waiting_requests: usize,
    /// Number of tenants with a waiting request.
    pub waiting_tenants: usize,
    /// Number of connections that were moved from one tenant to another since the start.
    pub switches: u64,
    /// Number of connections closed since the start, by reason; only reasons that occurred.
    pub closes: Vec<(CloseReason, u64)>,
    /// Time to open a connection, smoothed.
    pub connect: Duration,
}

impl ServerReport {
    pub(super) fn from_budget<C, W>(address: &str, budget: &ConnectionBudget<C, W>) -> Self {
        let tally = budget.connection_counters();
        let closes = CloseReason::ALL.into_iter().zip(tally.closes).filter(|(_, closes)| *closes > 0);
        Self {
            address: address.to_owned(),
            budget: budget.connection_limit(),
            open: tally.open_count(),
            idle: tally.idle,
            in_use: tally.in_use,
            waiting_requests: tally.waiting,
            waiting_tenants: budget.waiting_accounts(),
            switches: tally.switch_count(),
            closes: closes.collect(),
            connect: budget.server_health().connect_time(),
        }
    }
}
