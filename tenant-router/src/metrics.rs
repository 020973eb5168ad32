//! What the router counts. No label names a tenant: there may be 100,000 of them, and who sees metrics is not who may
//! see tenants. Install the recorder before the router is built.

use metrics::{Counter, counter, describe_counter};

/// The router's counters, looked up once so that counting on the hot path is one addition.
pub(crate) struct Meters {
    /// `fleet_router_opens_total{path="warm"}`: requests answered by what was remembered.
    pub(crate) warm: Counter,
    /// `fleet_router_opens_total{path="cold"}`: requests that had to ask at least one cache.
    pub(crate) cold: Counter,
    /// `fleet_router_lookups_total`: tenants read from the catalog.
    pub(crate) lookups: Counter,
    /// `fleet_router_pools_opened_total`.
    pub(crate) pools_opened: Counter,
    /// `fleet_router_pools_closed_total`.
    pub(crate) pools_closed: Counter,
    /// `fleet_router_pools_dropped_total{reason="evicted"}`: too many were open.
    pub(crate) dropped_evicted: Counter,
    /// `fleet_router_pools_dropped_total{reason="outdated"}`: the tenant has a newer generation.
    pub(crate) dropped_outdated: Counter,
    /// `fleet_router_pools_dropped_total{reason="fenced"}`: its database was not the expected one.
    pub(crate) dropped_fenced: Counter,
    /// `fleet_router_fenced_total`: hops refused by a database's identity.
    pub(crate) fenced: Counter,
    /// `fleet_router_fenced_out_total`: requests that found no right database in time.
    pub(crate) fenced_out: Counter,
    /// `fleet_router_feed_failures_total`: times the change feed could not be read.
    pub(crate) feed_failures: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        describe_counter!("fleet_router_opens_total", "Requests taken to a tenant, by whether all was remembered");
        describe_counter!("fleet_router_lookups_total", "Tenants read from the catalog");
        describe_counter!("fleet_router_pools_dropped_total", "Pools that left the cache, by reason");
        describe_counter!("fleet_router_fenced_total", "Hops refused because the database was not the expected one");
        describe_counter!("fleet_router_fenced_out_total", "Requests that found no right database in time");
        describe_counter!("fleet_router_pools_opened_total", "Pools opened");
        describe_counter!("fleet_router_pools_closed_total", "Pools closed");
        describe_counter!("fleet_router_feed_failures_total", "Times that the change feed could not be read");
        Self {
            warm: counter!("fleet_router_opens_total", "path" => "warm"),
            cold: counter!("fleet_router_opens_total", "path" => "cold"),
            lookups: counter!("fleet_router_lookups_total"),
            pools_opened: counter!("fleet_router_pools_opened_total"),
            pools_closed: counter!("fleet_router_pools_closed_total"),
            dropped_evicted: counter!("fleet_router_pools_dropped_total", "reason" => "evicted"),
            dropped_outdated: counter!("fleet_router_pools_dropped_total", "reason" => "outdated"),
            dropped_fenced: counter!("fleet_router_pools_dropped_total", "reason" => "fenced"),
            fenced: counter!("fleet_router_fenced_total"),
            fenced_out: counter!("fleet_router_fenced_out_total"),
            feed_failures: counter!("fleet_router_feed_failures_total"),
        }
    }
}
