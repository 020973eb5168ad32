//! The texts of settings as values: numbers within their limits, durations, addresses. PURE.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use control_plane::config::NetworkFileSystem;

/// Parses the address and port of a DNS server.
pub(crate) fn parse_dns_server(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected the address and port of a DNS server, for instance 127.0.0.1:53".to_owned())
}

/// Parses how long a request waits while its database is replaced.
pub(crate) fn parse_hold_ms(text: &str) -> Result<u64, String> {
    /// The maximum wait: later, the client has probably closed the connection.
    const HOLD_MS_MAX: u64 = 60_000;
    match text.parse() {
        Ok(n) if n <= HOLD_MS_MAX => Ok(n),
        _ => Err(format!("expected milliseconds, at most {HOLD_MS_MAX}")),
    }
}

/// Less than a kilobyte is too little for statements. SQLite prepares texts over a megabyte for longer than any
/// deadline.
pub(crate) const SQL_BYTES: RangeInclusive<u64> = 1_000..=1_000_000;
/// A smaller limit would refuse ordinary rows; an answer has at most 16 MiB.
pub(crate) const VALUE_BYTES: RangeInclusive<u64> = 100_000..=16_777_216;
/// Less than a megabyte would refuse ordinary sorts; more than a terabyte is a typing error.
pub(crate) const TEMP_BYTES: RangeInclusive<u64> = 1_000_000..=1_099_511_627_776;
/// The engine refuses less than 256 MiB; more than a petabyte is a typing error.
pub(crate) const SQLITE_MEMORY_BYTES: RangeInclusive<u64> = 268_435_456..=1_125_899_906_842_624;

/// Parses a number of bytes within a range.
pub(crate) fn parse_bytes(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    match text.parse() {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(format!("expected a number of bytes from {} to {}", range.start(), range.end())),
    }
}

/// Parses the number of steps that run at once.
pub(crate) fn parse_concurrency(text: &str) -> Result<usize, String> {
    /// More parallel steps than this would only wait for the same disk.
    const CONCURRENCY_MAX: usize = 1_024;
    match text.parse() {
        Ok(n) if (1..=CONCURRENCY_MAX).contains(&n) => Ok(n),
        _ => Err(format!("expected a number from 1 to {CONCURRENCY_MAX}")),
    }
}

/// Parses what happens to SQLite files on a network file system.
pub(crate) fn parse_network_file_system(text: &str) -> Result<NetworkFileSystem, String> {
    match text {
        "refuse" => Ok(NetworkFileSystem::Refused),
        "accept-data-loss" => Ok(NetworkFileSystem::DataLossAccepted),
        _ => Err("expected refuse, or accept-data-loss".to_owned()),
    }
}

/// Parses one number and one unit: `0`, `500ms`, `30s`, `10m`, `12h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write 30s, 10m, 12h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    /// A century: a longer time is a typing error and would overflow sums of times.
    const MILLISECONDS_MAX: u64 = 100 * 366 * 86_400_000;
    let total = number.checked_mul(milliseconds).filter(|ms| *ms <= MILLISECONDS_MAX).ok_or_else(wrong)?;
    Ok(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_number_and_one_unit() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "5", "m", "1h30m", "-1s", "1.5s", "99999999999999999999s", "9999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
