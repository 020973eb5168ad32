//! Times in requests: RFC 3339.

use jiff::Timestamp;

use super::error::{Problem, Result};

/// Parses an RFC 3339 text with any offset to milliseconds since 1970.
pub(crate) fn parse_time(field: &str, text: &str) -> Result<i64> {
    text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|_| {
        let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
        Problem::invalid(format!("{field}: '{shown}' is not a time such as 2026-11-23T10:00:00Z"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time_text::format_time;

    #[test]
    fn there_and_back() {
        let at = format_time(1_795_428_000_123);
        assert_eq!(parse_time("at", &at).unwrap(), 1_795_428_000_123, "{at}");
        assert!(at.ends_with(".123Z"), "{at}");
        assert_eq!(
            parse_time("at", "2026-11-23T12:00:00+02:00").unwrap(),
            parse_time("at", "2026-11-23T10:00:00Z").unwrap()
        );
        assert_eq!(format_time(0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_no_time_is_named() {
        for bad in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-23"] {
            assert!(parse_time("to", bad).unwrap_err().as_error().detail.starts_with("to: "), "{bad}");
        }
        assert_eq!(format_time(i64::MAX), format_time(0));
    }
}
