//! The process's metrics. Names begin with `fleet_`, values are in base units, and no label names a tenant.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Requests answered; labels listener, method, status.
pub const HTTP_REQUESTS: &str = "fleet_http_requests_total";
/// Time from request to answer, seconds; label listener.
pub const HTTP_SECONDS: &str = "fleet_http_request_duration_seconds";
/// Connections open now; label listener.
pub const HTTP_CONNECTIONS: &str = "fleet_http_connections";
/// Panics that were turned into a 500.
pub const HTTP_PANICS: &str = "fleet_http_panics_total";

/// Tenants; label state.
pub const TENANTS: &str = "fleet_tenants";
/// Operations that the catalog holds; label state.
pub const OPERATIONS: &str = "fleet_operations";
/// Seconds since the newest backup of any tenant; `+Inf` when there is none.
pub const BACKUP_AGE: &str = "fleet_backup_age_seconds";
/// Bytes left on the disk of the data directory.
pub const DISK_FREE: &str = "fleet_disk_free_bytes";
/// Size of that disk, bytes.
pub const DISK_SIZE: &str = "fleet_disk_size_bytes";
/// Disks of the fleet on which tenants' writes are refused.
pub const DISKS_LOW: &str = "fleet_disks_low";
/// Disk reserves that were released, or never created.
pub const RESERVES_MISSING: &str = "fleet_disk_reserves_missing";
/// When the gauges about the fleet were read, seconds since 1970. An old time means that the catalog does not answer.
pub const FLEET_READ_AT: &str = "fleet_gauges_read_timestamp_seconds";
/// Always 1; label version.
pub const BUILD: &str = "fleet_build_info";

/// Upper bounds of the histogram, seconds: from a routed point read (tens of microseconds) to the longest long poll.
const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The only recorder of the process, started by the first caller.
static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts recording. Later calls return the same handle. `None` when the process already records elsewhere.
pub fn install_recorder() -> Option<PrometheusHandle> {
    HANDLE.get_or_init(start_recorder).clone()
}

fn start_recorder() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .ok()?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    describe_metrics();
    // Present from the start, because a rate needs a zero to begin with.
    metrics::counter!(HTTP_PANICS).absolute(0);
    metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Some(handle)
}

fn describe_metrics() {
    metrics::describe_counter!(HTTP_REQUESTS, "Requests answered");
    metrics::describe_histogram!(HTTP_SECONDS, metrics::Unit::Seconds, "Time from request to answer");
    metrics::describe_gauge!(HTTP_CONNECTIONS, "Connections open now");
    metrics::describe_counter!(HTTP_PANICS, "Panics turned into a 500");
    metrics::describe_gauge!(TENANTS, "Tenants, by state");
    metrics::describe_gauge!(OPERATIONS, "Operations that the catalog holds, by state");
    metrics::describe_gauge!(BACKUP_AGE, "Seconds since the newest backup of any tenant; +Inf without one");
    metrics::describe_gauge!(DISK_FREE, metrics::Unit::Bytes, "Bytes left on the disk of the data directory");
    metrics::describe_gauge!(DISK_SIZE, metrics::Unit::Bytes, "Bytes of the disk of the data directory");
    metrics::describe_gauge!(DISKS_LOW, "Disks of the fleet on which tenants' writes are refused");
    metrics::describe_gauge!(RESERVES_MISSING, "Disk reserves that were released, or never created");
    metrics::describe_gauge!(FLEET_READ_AT, "When the gauges about the fleet were read, seconds since 1970");
    metrics::describe_gauge!(BUILD, "The version of this program, as a label");
}

#[cfg(test)]
mod tests {
    #[test]
    fn installing_twice_gives_one_recorder() {
        let first = super::install_recorder().unwrap();
        metrics::counter!(super::HTTP_PANICS).increment(1);
        let second = super::install_recorder().unwrap();
        assert!(second.render().contains(super::HTTP_PANICS));
        assert_eq!(first.render(), second.render());
    }
}
