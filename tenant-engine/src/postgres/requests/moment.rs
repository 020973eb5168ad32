//! PURE: dates and times between their ISO text and their wire form: days and microseconds since 2000-01-01.
//!
//! Written as PostgreSQL writes them with `DateStyle = ISO`, except that a `timestamptz` is in UTC and ends in `Z`. Read
//! by jiff, for years of four digits.

use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, tz::TimeZone};

/// From 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
/// The server lets a day end with this.
const MIDNIGHT_AFTER: &str = "24:00:00";

pub(super) fn decode_date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        days => {
            let (date, era) = written(i64::from(days));
            format!("{date}{era}")
        }
    }
}

pub(super) fn decode_time(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let time = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        return time;
    }
    format!("{time}.{}", format!("{fraction:06}").trim_end_matches('0'))
}

/// `zone` is appended to the time: nothing or `Z`.
pub(super) fn decode_timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let (date, era) = written(micros.div_euclid(DAY_MICROS));
            format!("{date} {}{zone}{era}", decode_time(micros.rem_euclid(DAY_MICROS)))
        }
    }
}

pub(super) fn encode_date(text: &str) -> Option<i32> {
    match infinite(text) {
        Some(Sign::Positive) => Some(i32::MAX),
        Some(Sign::Negative) => Some(i32::MIN),
        None => i32::try_from(days(text.trim().parse().ok()?)).ok(),
    }
}

pub(super) fn encode_time(text: &str) -> Option<i64> {
    let text = text.trim();
    if text == MIDNIGHT_AFTER {
        return Some(DAY_MICROS);
    }
    Some(time_micros(text.parse().ok()?))
}

pub(super) fn encode_timestamp(text: &str) -> Option<i64> {
    infinite_micros(text).or_else(|| text.trim().parse().ok().map(micros))
}

/// A text without an offset is in UTC.
pub(super) fn encode_timestamptz(text: &str) -> Option<i64> {
    if let Some(infinite) = infinite_micros(text) {
        return Some(infinite);
    }
    match text.trim().parse::<Timestamp>() {
        Ok(timestamp) => Some(micros(timestamp.to_zoned(TimeZone::UTC).datetime())),
        Err(_) => text.trim().parse().ok().map(micros),
    }
}

fn micros(at: DateTime) -> i64 {
    days(at.date()) * DAY_MICROS + time_micros(at.time())
}

fn days(date: Date) -> i64 {
    let since = date.since(Date::constant(2000, 1, 1)).expect("both are within jiff's ten thousand years");
    i64::from(since.get_days())
}

/// To the nearest microsecond.
fn time_micros(time: Time) -> i64 {
    let seconds = i64::from(time.hour()) * 3_600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    seconds * 1_000_000 + (i64::from(time.subsec_nanosecond()) + 500) / 1_000
}

enum Sign {
    Positive,
    Negative,
}

fn infinite(text: &str) -> Option<Sign> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("infinity") {
        return Some(Sign::Positive);
    }
    text.eq_ignore_ascii_case("-infinity").then_some(Sign::Negative)
}

fn infinite_micros(text: &str) -> Option<i64> {
    infinite(text).map(|sign| match sign {
        Sign::Positive => i64::MAX,
        Sign::Negative => i64::MIN,
    })
}

/// Date and era of a day since 2000-01-01: the server knows more years than jiff. The algorithm is `civil_from_days` of
/// Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
fn written(days: i64) -> (String, &'static str) {
    let day = days + EPOCH_DAYS + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_survive_the_trip() {
        for date in ["2000-01-01", "1999-12-31", "2024-02-29", "0001-01-01", "9999-12-31", "infinity", "-infinity"] {
            assert_eq!(decode_date(encode_date(date).unwrap()), date);
        }
        for time in ["00:00:00", "23:59:59.999999", "12:30:00.5", "24:00:00"] {
            assert_eq!(decode_time(encode_time(time).unwrap()), time);
        }
        for at in ["2000-01-01 00:00:00", "1969-07-20 20:17:40.25", "infinity", "-infinity"] {
            assert_eq!(decode_timestamp(encode_timestamp(at).unwrap(), ""), at);
        }
        for (text, written) in [
            ("2024-05-06 07:08:09Z", "2024-05-06 07:08:09Z"),
            ("2024-05-06T07:08:09.25+02:00", "2024-05-06 05:08:09.25Z"),
            ("2024-05-06 07:08:09", "2024-05-06 07:08:09Z"),
            ("2024-05-06 07:08:09+00", "2024-05-06 07:08:09Z"),
            ("2024-05-06", "2024-05-06 00:00:00Z"),
        ] {
            assert_eq!(decode_timestamp(encode_timestamptz(text).unwrap(), "Z"), written);
        }
    }

    #[test]
    fn years_beyond_four_digits_are_written_as_the_server_does() {
        assert_eq!(decode_date(-730_120), "0001-12-31 BC");
        assert_eq!(decode_date(2_921_940), "10000-01-01");
        assert_eq!(decode_timestamp(-730_120 * DAY_MICROS, "Z"), "0001-12-31 00:00:00Z BC");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "yesterday", "2024-02-30", "24-01-01", "2024-13-01"] {
            assert_eq!(encode_date(text), None, "{text}");
            assert_eq!(encode_timestamp(text), None, "{text}");
            assert_eq!(encode_timestamptz(text), None, "{text}");
        }
        assert_eq!(encode_time("25:00:00"), None);
    }
}
