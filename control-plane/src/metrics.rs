//! The process's metrics: names begin with `fleet_`, values are in base units, no label names a tenant.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Requests answered; labels listener, method, status.
pub const HTTP_REQUESTS: &str = "fleet_http_requests_total";
/// How long an answer took, seconds; label listener.
pub const HTTP_SECONDS: &str = "fleet_http_request_duration_seconds";
/// Connections open now; label listener.
pub const HTTP_CONNECTIONS: &str = "fleet_http_connections";
/// Panics turned into a 500.
pub const HTTP_PANICS: &str = "fleet_http_panics_total";

/// From a routed point read (tens of microseconds) to the longest long poll.
const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// A process has one recorder, whoever asks first.
static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Begins to record; called again, returns the same. `None` when the process records elsewhere already.
pub fn install() -> Option<PrometheusHandle> {
    HANDLE.get_or_init(start).clone()
}

fn start() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .ok()?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    describe();
    Some(handle)
}

fn describe() {
    metrics::describe_counter!(HTTP_REQUESTS, "Requests answered");
    metrics::describe_histogram!(HTTP_SECONDS, metrics::Unit::Seconds, "How long an answer took");
    metrics::describe_gauge!(HTTP_CONNECTIONS, "Connections open now");
    metrics::describe_counter!(HTTP_PANICS, "Panics turned into a 500");
}

#[cfg(test)]
mod tests {
    #[test]
    fn installing_twice_gives_one_recorder() {
        let first = super::install().unwrap();
        metrics::counter!(super::HTTP_PANICS).increment(1);
        let second = super::install().unwrap();
        assert!(second.render().contains(super::HTTP_PANICS));
        assert_eq!(first.render(), second.render());
    }
}
