//! PURE: converts dates and times between their ISO text and their wire form: days and microseconds since 2000-01-01.
//!
//! They are written as PostgreSQL does with `DateStyle = ISO`, except that a `timestamptz` is in UTC and ends in `Z`.
//! These forms and those of ISO 8601 can be read. A text has the meaning that the server would give it, or it is
//! refused.

use super::value::SPACE;

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
const SECOND_MICROS: i64 = 1_000_000;

/// The first and the last day of a `date`: 4714-11-24 BC and 5874897-12-31.
const DAYS: std::ops::RangeInclusive<i64> = -2_451_545..=2_145_031_948;
/// The first and the last microsecond of a `timestamp`: 4714-11-24 BC and the end of 294276.
const MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// A zone differs from UTC by less than sixteen hours.
const ZONE_HOUR_MAX: i64 = 15;

pub(super) fn decode_date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        days => {
            let (date, era) = format_date(i64::from(days));
            format!("{date}{era}")
        }
    }
}

pub(super) fn decode_time(micros: i64) -> String {
    let (seconds, fraction) = (micros / SECOND_MICROS, micros % SECOND_MICROS);
    let time = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        return time;
    }
    format!("{time}.{}", format!("{fraction:06}").trim_end_matches('0'))
}

/// `zone` is appended to the time: empty or `Z`.
pub(super) fn decode_timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let (date, era) = format_date(micros.div_euclid(DAY_MICROS));
            format!("{date} {}{zone}{era}", decode_time(micros.rem_euclid(DAY_MICROS)))
        }
    }
}

pub(super) fn encode_date(text: &str) -> Option<i32> {
    match infinity_sign(text) {
        Some(InfinitySign::Positive) => return Some(i32::MAX),
        Some(InfinitySign::Negative) => return Some(i32::MIN),
        None => {}
    }
    let moment = ParsedTimestamp::parse_text(text)?;
    let days = moment.days.filter(|days| DAYS.contains(days) && moment.micros < DAY_MICROS)?;
    i32::try_from(days).ok()
}

pub(super) fn encode_time(text: &str) -> Option<i64> {
    // The server ignores the zone of a time.
    ParsedTimestamp::of_time(text.trim_matches(SPACE)).map(|moment| moment.micros)
}

/// The server ignores the zone of a timestamp without time zone.
pub(super) fn encode_timestamp(text: &str) -> Option<i64> {
    infinite_micros(text).or_else(|| ParsedTimestamp::parse_text(text)?.since_epoch(0))
}

/// A text without a zone is in UTC.
pub(super) fn encode_timestamptz(text: &str) -> Option<i64> {
    infinite_micros(text).or_else(|| {
        let moment = ParsedTimestamp::parse_text(text)?;
        moment.since_epoch(moment.zone_seconds)
    })
}

/// The parsed parts of a text.
#[derive(Debug, Clone, Copy, Default)]
struct ParsedTimestamp {
    /// Days since 2000-01-01; `None` only for a time without a date.
    days: Option<i64>,
    /// Microseconds of the day; the whole day at 24:00:00.
    micros: i64,
    /// Seconds east of UTC.
    zone_seconds: i64,
}

impl ParsedTimestamp {
    /// Parses a date, with or without a time.
    fn parse_text(text: &str) -> Option<Self> {
        let (text, is_bc) = split_era(text.trim_matches(SPACE))?;
        let (date, time) = match text.split_once(['T', 't', ' ']) {
            Some((date, time)) => (date, Self::of_time(time.trim_start_matches(SPACE))?),
            None => (text, Self::default()),
        };
        Some(Self { days: Some(parse_days(date, is_bc)?), ..time })
    }

    /// Parses `07:08`, `07:08:09`, `07:08:09.25` or `070809`, then an optional zone.
    fn of_time(text: &str) -> Option<Self> {
        let (time, zone) = text.split_at(text.find(['Z', 'z', '+', '-']).unwrap_or(text.len()));
        let micros = micros_of_day(time.trim_end_matches(SPACE))?;
        Some(Self { days: None, micros, zone_seconds: zone_seconds(zone)? })
    }

    fn since_epoch(self, zone_seconds: i64) -> Option<i64> {
        let day = self.days?.checked_mul(DAY_MICROS)?;
        let micros = day.checked_add(self.micros)?.checked_sub(zone_seconds * SECOND_MICROS)?;
        MICROS.contains(&micros).then_some(micros)
    }
}

/// The text without its era, and whether the era is BC.
fn split_era(text: &str) -> Option<(&str, bool)> {
    let Some((rest, word)) = text.rsplit_once(' ') else { return Some((text, false)) };
    let is_bc = match word.to_ascii_uppercase().as_str() {
        "BC" => true,
        "AD" => false,
        _ => return Some((text, false)),
    };
    Some((rest.trim_end_matches(SPACE), is_bc))
}

/// Days since 2000-01-01 of `2024-05-06` or `20240506`. A year has at least four digits.
fn parse_days(date: &str, is_bc: bool) -> Option<i64> {
    let (year, month, day) = match date.split('-').collect::<Vec<_>>()[..] {
        [year, month, day] if (4..=7).contains(&year.len()) => (year, month, day),
        [date] if date.len() == 8 && date.is_ascii() => (&date[..4], &date[4..6], &date[6..]),
        _ => return None,
    };
    let (year, month, day) = (parse_digits(year, 4..=7)?, parse_digits(month, 2..=2)?, parse_digits(day, 2..=2)?);
    let year = match is_bc {
        _ if year == 0 => return None,
        true => 1 - year,
        false => year,
    };
    ((1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day)).then(|| day_of(year, month, day))
}

fn days_in(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// An hour may be 24 and a second 60, as long as the time does not exceed the day.
fn micros_of_day(time: &str) -> Option<i64> {
    let (time, fraction) = match time.split_once('.') {
        Some((time, digits)) => (time, Some(digits)),
        None => (time, None),
    };
    let (hour, minute, second) = match time.split(':').collect::<Vec<_>>()[..] {
        [hour, minute, second] => (hour, minute, second),
        [hour, minute] if fraction.is_none() => (hour, minute, "00"),
        [time] if time.len() == 6 && time.is_ascii() => (&time[..2], &time[2..4], &time[4..]),
        _ => return None,
    };
    let (hour, minute, second) =
        (parse_digits(hour, 2..=2)?, parse_digits(minute, 2..=2)?, parse_digits(second, 2..=2)?);
    let fraction = fraction.map_or(Some(0), fraction_micros)?;
    let micros = (hour * 3_600 + minute * 60 + second) * SECOND_MICROS + fraction;
    (minute <= 59 && second <= 60 && micros <= DAY_MICROS).then_some(micros)
}

/// The server rounds a double to the nearest even microsecond.
fn fraction_micros(digits: &str) -> Option<i64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let fraction: f64 = all_digits.then(|| format!("0.{digits}").parse().ok())??;
    Some((fraction * 1_000_000.0).round_ties_even() as i64)
}

/// Seconds east of UTC, from an empty text, `Z`, `+02`, `+0230`, `+02:30` or `+02:30:15`.
fn zone_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (zone.len() == 1).then_some(0),
        Some(b'-') => -1,
        Some(_) => 1,
    };
    let zone = &zone[1..];
    let (hour, minute, second) = match zone.split(':').collect::<Vec<_>>()[..] {
        [hour, minute, second] => (hour, minute, second),
        [hour, minute] => (hour, minute, "00"),
        [both] if both.len() == 4 && both.is_ascii() => (&both[..2], &both[2..], "00"),
        [hour] => (hour, "00", "00"),
        _ => return None,
    };
    let (hour, minute, second) =
        (parse_digits(hour, 2..=2)?, parse_digits(minute, 2..=2)?, parse_digits(second, 2..=2)?);
    let is_zone = hour <= ZONE_HOUR_MAX && minute <= 59 && second <= 59;
    is_zone.then_some(sign * (hour * 3_600 + minute * 60 + second))
}

/// Parses a text of this many digits and no other characters.
fn parse_digits(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let is_number = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

enum InfinitySign {
    Positive,
    Negative,
}

fn infinity_sign(text: &str) -> Option<InfinitySign> {
    let text = text.trim_matches(SPACE);
    if text.eq_ignore_ascii_case("infinity") {
        return Some(InfinitySign::Positive);
    }
    text.eq_ignore_ascii_case("-infinity").then_some(InfinitySign::Negative)
}

fn infinite_micros(text: &str) -> Option<i64> {
    infinity_sign(text).map(|sign| match sign {
        InfinitySign::Positive => i64::MAX,
        InfinitySign::Negative => i64::MIN,
    })
}

/// The days from March to the end of each month follow a pattern of five months, so here a year ends with February. The
/// algorithms are `days_from_civil` and `civil_from_days` of Howard Hinnant's "chrono-Compatible Low-Level Date
/// Algorithms".
fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468 - EPOCH_DAYS
}

/// Date and era of a day since 2000-01-01.
fn format_date(days: i64) -> (String, &'static str) {
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
        for date in [
            "2000-01-01",
            "1999-12-31",
            "2024-02-29",
            "0001-01-01",
            "0001-12-31 BC",
            "0004-02-29",
            "4714-11-24 BC",
            "0005-02-29 BC",
            "9999-12-31",
            "10000-01-01",
            "5874897-12-31",
            "infinity",
            "-infinity",
        ] {
            assert_eq!(decode_date(encode_date(date).unwrap()), date);
        }
        for time in ["00:00:00", "23:59:59.999999", "12:30:00.5", "24:00:00"] {
            assert_eq!(decode_time(encode_time(time).unwrap()), time);
        }
        for at in [
            "2000-01-01 00:00:00",
            "1969-07-20 20:17:40.25",
            "4714-11-24 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "0044-03-15 12:00:00.25 BC",
            "infinity",
            "-infinity",
        ] {
            assert_eq!(decode_timestamp(encode_timestamp(at).unwrap(), ""), at);
        }
        for (text, written) in [
            ("2024-05-06 07:08:09Z", "2024-05-06 07:08:09Z"),
            ("2024-05-06T07:08:09.25+02:00", "2024-05-06 05:08:09.25Z"),
            ("2024-05-06 07:08:09", "2024-05-06 07:08:09Z"),
            ("2024-05-06 07:08:09+00", "2024-05-06 07:08:09Z"),
            ("2024-05-06 07:08:09 -0930", "2024-05-06 16:38:09Z"),
            ("20240506T070809Z", "2024-05-06 07:08:09Z"),
            ("0044-03-15 12:00:00Z BC", "0044-03-15 12:00:00Z BC"),
            ("2024-12-31 23:59:60Z", "2025-01-01 00:00:00Z"),
            ("2024-05-06", "2024-05-06 00:00:00Z"),
        ] {
            assert_eq!(decode_timestamp(encode_timestamptz(text).unwrap(), "Z"), written);
        }
    }

    #[test]
    fn every_day_is_written_and_read_as_itself() {
        for days in (-2_451_545..2_500_000).step_by(97).chain([-2_451_545, 2_145_031_948]) {
            assert_eq!(encode_date(&decode_date(days)), Some(days));
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
        for text in [
            "",
            "yesterday",
            "2024-02-30",
            "24-01-01",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "0000-01-01",
            "2023-02-29",
            "-2024-01-01",
            "+2024-01-01",
            "2024-01-01-01",
            "2024-01-01 24:00:01",
            "2024-01-01T",
            "2024-01-01 1:00:00",
            "2024-01-01 10:00:61",
            "2024-01-01 10:60:00",
            "2024-01-01 10:00:00+16",
            "2024-01-01 10:00:00ZZ",
            "2024-01-01 10:00:00.",
            "2024-01-01 10:00:00.1.2",
            "\u{661}\u{662}24-01-01",
            "2024-01-01 \u{e9}",
            "5874898-01-01",
        ] {
            assert_eq!(encode_date(text), None, "{text}");
            assert_eq!(encode_timestamp(text), None, "{text}");
            assert_eq!(encode_timestamptz(text), None, "{text}");
        }
        for text in
            ["25:00:00", "24:00:00.000001", "23:59:60.000001", "2024-05-06 07:08:09", "12", "", "noon", "allballs"]
        {
            assert_eq!(encode_time(text), None, "{text}");
        }
        assert_eq!(encode_timestamp("294277-01-01"), None);
        assert_eq!(encode_timestamptz("294276-12-31 23:59:59.999999-01"), None);
    }
}
