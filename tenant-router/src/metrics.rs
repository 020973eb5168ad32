//! The router's counters. No label names a tenant: there may be 100,000 of them, and readers of metrics may not be
//! allowed to see tenants. Install the metrics recorder before building the router.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::error::{Error, ErrorKind};
use crate::realtime::SubscriptionEnd;

/// The router's counters, created once so that counting in a request costs one addition.
pub(crate) struct RouterMetrics {
    /// `fleet_router_opens_total{path="warm"}`: requests answered from the cache of resolved requests.
    pub(crate) warm: Counter,
    /// `fleet_router_opens_total{path="cold"}`: requests that needed at least one other cache.
    pub(crate) cold: Counter,
    /// `fleet_router_lookups_total`: tenants read from the catalog.
    pub(crate) lookups: Counter,
    /// `fleet_router_pools_opened_total`: pools opened.
    pub(crate) pools_opened: Counter,
    /// `fleet_router_pools_closed_total`: pools closed.
    pub(crate) pools_closed: Counter,
    /// `fleet_router_pools_dropped_total{reason="evicted"}`: too many pools were open.
    pub(crate) dropped_evicted: Counter,
    /// `fleet_router_pools_dropped_total{reason="outdated"}`: the tenant has a newer generation.
    pub(crate) dropped_outdated: Counter,
    /// `fleet_router_pools_dropped_total{reason="fenced"}`: the pool's database was not the expected one.
    pub(crate) dropped_fenced: Counter,
    /// `fleet_router_fenced_total`: hops refused by a database's identity.
    pub(crate) fenced: Counter,
    /// `fleet_router_fenced_out_total`: requests that did not find the expected database in time.
    pub(crate) fenced_out: Counter,
    /// `fleet_router_feed_failures_total`: failed reads of the change feed.
    pub(crate) feed_failures: Counter,
    /// `fleet_requests_limited_total{reason="rate"}`: requests above the rate of their tenant's plan.
    pub(crate) limited_rate: Counter,
    /// `fleet_requests_limited_total{reason="concurrency"}`: requests of tenants with too many open ones.
    pub(crate) limited_concurrency: Counter,
    /// `fleet_requests_limited_total{reason="connections"}`: statements that waited too long for a connection.
    pub(crate) limited_connections: Counter,
    /// `fleet_requests_limited_total{reason="storage"}`: writes of tenants whose database is full.
    pub(crate) limited_storage: Counter,
    /// `fleet_router_subscriptions`: open subscriptions of topics.
    pub(crate) subscriptions: Gauge,
    /// `fleet_router_subscriptions_ended_total{reason="…"}`: subscriptions that the router ended.
    subscriptions_ended: [(SubscriptionEnd, Counter); SubscriptionEnd::ALL.len()],
    /// `fleet_router_messages_published_total`: messages that this process stored for topics.
    pub(crate) messages_published: Counter,
    /// `fleet_router_messages_queued_total`: messages put into queues of subscriptions.
    pub(crate) messages_queued: Counter,
    /// `fleet_router_message_failures_total`: failed reads of the topics' messages.
    pub(crate) message_failures: Counter,
}

impl RouterMetrics {
    pub(crate) fn new() -> Self {
        describe_counter!("fleet_router_opens_total", "Requests routed to a tenant, by cache result (warm or cold)");
        describe_counter!("fleet_router_lookups_total", "Tenants read from the catalog");
        describe_counter!("fleet_router_pools_dropped_total", "Pools that left the cache, by reason");
        describe_counter!("fleet_router_fenced_total", "Hops refused because the database was not the expected one");
        describe_counter!("fleet_router_fenced_out_total", "Requests that did not find the expected database in time");
        describe_counter!("fleet_router_pools_opened_total", "Pools opened");
        describe_counter!("fleet_router_pools_closed_total", "Pools closed");
        describe_counter!("fleet_router_feed_failures_total", "Failed reads of the change feed");
        describe_counter!("fleet_requests_limited_total", "Requests refused by their tenant's plan, by reason");
        describe_gauge!("fleet_router_subscriptions", "Open subscriptions of topics");
        describe_counter!("fleet_router_subscriptions_ended_total", "Subscriptions that the router ended, by reason");
        describe_counter!("fleet_router_messages_published_total", "Messages stored for topics");
        describe_counter!("fleet_router_messages_queued_total", "Messages put into queues of subscriptions");
        describe_counter!("fleet_router_message_failures_total", "Failed reads of the topics' messages");
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
            limited_rate: counter!("fleet_requests_limited_total", "reason" => "rate"),
            limited_concurrency: counter!("fleet_requests_limited_total", "reason" => "concurrency"),
            limited_connections: counter!("fleet_requests_limited_total", "reason" => "connections"),
            limited_storage: counter!("fleet_requests_limited_total", "reason" => "storage"),
            subscriptions: gauge!("fleet_router_subscriptions"),
            subscriptions_ended: SubscriptionEnd::ALL
                .map(|end| (end, counter!("fleet_router_subscriptions_ended_total", "reason" => end.code()))),
            messages_published: counter!("fleet_router_messages_published_total"),
            messages_queued: counter!("fleet_router_messages_queued_total"),
            message_failures: counter!("fleet_router_message_failures_total"),
        }
    }

    /// Counts the error if the storage of the tenant's plan is used up.
    pub(crate) fn counted(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Database(tenant_engine::ErrorKind::StorageFull) {
            self.limited_storage.increment(1);
        }
        error
    }

    /// Counts a subscription that the router ended.
    pub(crate) fn count_end(&self, end: SubscriptionEnd) {
        let of_reason = self.subscriptions_ended.iter().filter(|(reason, _)| *reason == end);
        of_reason.for_each(|(_, counter)| counter.increment(1));
    }
}
