//! The metrics of each server's connections. No label names a tenant. Install the recorder before the first pool is
//! opened.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::counters::{CloseReason, ConnectionCounters};

/// The metrics, looked up once, so that recording on the hot path costs a few stores.
pub(super) struct ConnectionMetrics {
    open: Gauge,
    idle: Gauge,
    in_use: Gauge,
    waiting: Gauge,
    switches: Counter,
    closes: [Counter; CloseReason::ALL.len()],
    wait: Histogram,
    connect: Histogram,
}

impl ConnectionMetrics {
    /// The metrics of the server at `address`.
    pub(super) fn new(address: &str) -> Self {
        describe_metrics();
        let server = || address.to_owned();
        Self {
            open: gauge!("fleet_postgres_connections", "server" => server(), "state" => "open"),
            idle: gauge!("fleet_postgres_connections", "server" => server(), "state" => "idle"),
            in_use: gauge!("fleet_postgres_connections", "server" => server(), "state" => "in_use"),
            waiting: gauge!("fleet_postgres_waiting_requests", "server" => server()),
            switches: counter!("fleet_postgres_switches_total", "server" => server()),
            closes: CloseReason::ALL.map(
                |reason| counter!("fleet_postgres_closes_total", "server" => server(), "reason" => reason.as_str()),
            ),
            wait: histogram!("fleet_postgres_wait_seconds", "server" => server()),
            connect: histogram!("fleet_postgres_connect_seconds", "server" => server()),
        }
    }

    pub(super) fn publish_counters(&self, tally: &ConnectionCounters) {
        self.open.set(tally.open_count() as f64);
        self.idle.set(tally.idle as f64);
        self.in_use.set(tally.in_use as f64);
        self.waiting.set(tally.waiting as f64);
        self.switches.absolute(tally.switch_count());
        self.closes.iter().zip(tally.closes).for_each(|(counter, closes)| counter.absolute(closes));
    }

    pub(super) fn record_wait(&self, wait: Duration) {
        self.wait.record(wait.as_secs_f64());
    }

    pub(super) fn record_connect(&self, took: Duration) {
        self.connect.record(took.as_secs_f64());
    }
}

impl std::fmt::Debug for ConnectionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionMetrics").finish_non_exhaustive()
    }
}

fn describe_metrics() {
    describe_gauge!("fleet_postgres_connections", "Connections of requests to a server, by state");
    describe_gauge!("fleet_postgres_waiting_requests", "Requests waiting for a connection to a server");
    describe_counter!("fleet_postgres_switches_total", "Connections moved from one tenant to another");
    describe_counter!("fleet_postgres_closes_total", "Connections closed, by reason");
    describe_histogram!("fleet_postgres_wait_seconds", "Wait of requests that found no idle connection");
    describe_histogram!("fleet_postgres_connect_seconds", "Time to open a connection, identity check included");
}
