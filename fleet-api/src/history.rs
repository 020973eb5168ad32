//! How long ended operations and events are kept.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bounded_number::KeptSeconds;
use crate::changes::is_false;

/// Retention times of history, and the ages of the oldest entries.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = History)]
pub struct HistoryRetention {
    /// Retention time of operations and their steps after their end, in seconds.
    pub operations_seconds: i64,
    /// Retention time of events, in seconds.
    pub events_seconds: i64,
    /// End time of the operation that ended first, RFC 3339; null if none has ended.
    pub oldest_operation_at: Option<String>,
    /// Time of the oldest event, RFC 3339; null if there is none.
    pub oldest_event_at: Option<String>,
}

/// A change of the retention times. Absent fields keep their values.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryToKeep {
    /// Retention time of operations and their steps after their end, in seconds: at least 604800 (7 days). The last
    /// success of each kind of operation on each tenant is always kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 604_800, maximum = 3_162_240_000_u64)]
    pub operations_seconds: Option<KeptSeconds>,
    /// Retention time of events, in seconds: at least 604800 (7 days).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 604_800, maximum = 3_162_240_000_u64)]
    pub events_seconds: Option<KeptSeconds>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
