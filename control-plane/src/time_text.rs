//! Times as texts: RFC 3339, UTC, with milliseconds. For the API, checks and messages.

use jiff::Timestamp;

/// Formats milliseconds since 1970. A time outside the calendar's range becomes the beginning of 1970.
pub(crate) fn format_time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Formats a time that may be missing.
pub(crate) fn format_optional(ms: Option<i64>) -> Option<String> {
    ms.map(format_time)
}
