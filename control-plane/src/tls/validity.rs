//! PURE: reads the validity period of a certificate from its DER form.
//!
//! The TLS library checks other certificates, not the server's own. Nothing else would notice that it expires.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Certificates for months are renewed weeks before their end. One that is this close to it was forgotten,
/// milliseconds.
const WARN_BEFORE_MS: i64 = 14 * 24 * 3_600_000;
/// Certificates for days are renewed in the last part of their life. The warning starts when one part in this many is
/// left.
const WARN_PART: i64 = 5;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The validity period of a certificate, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CertificateValidity {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

/// Where a time lies relative to the validity period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValidityPhase {
    NotYetValid,
    Valid,
    ExpiresSoon,
    Expired,
}

impl CertificateValidity {
    /// The validity of a certificate in DER form. `None` when it is not one.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let (certificate, _) = expect_element(der, SEQUENCE)?;
        let (mut rest, _) = expect_element(certificate, SEQUENCE)?;
        if let Some((_, after)) = expect_element(rest, VERSION) {
            rest = after;
        }
        // Skips serial number, algorithm and issuer.
        for _ in 0..3 {
            rest = read_element(rest)?.2;
        }
        let (validity, _) = expect_element(rest, SEQUENCE)?;
        let (tag, from, validity) = read_element(validity)?;
        let from = parse_time(tag, from)?;
        let (tag, until, _) = read_element(validity)?;
        Some(Self { from, until: parse_time(tag, until)? })
    }

    pub(crate) fn phase_at(self, now: i64) -> ValidityPhase {
        let soon = WARN_BEFORE_MS.min((self.until - self.from) / WARN_PART);
        match now {
            now if now < self.from => ValidityPhase::NotYetValid,
            now if now > self.until => ValidityPhase::Expired,
            now if now > self.until - soon => ValidityPhase::ExpiresSoon,
            _ => ValidityPhase::Valid,
        }
    }
}

/// The content of an element that must have this tag, and the bytes after it.
fn expect_element(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = read_element(der)?;
    (tag == wanted).then_some((content, rest))
}

/// An element's tag, its content, and the bytes after it.
fn read_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Two bytes of length are enough for a certificate; one more does no harm.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Parses `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` to milliseconds since 1970.
fn parse_time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // RFC 5280: two-digit years from 50 on belong to the previous century.
        UTC_TIME if text.as_bytes().first()? >= &b'5' => format!("19{text}"),
        UTC_TIME => format!("20{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let at = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3_600_000;

    #[test]
    fn a_warning_comes_in_time_for_long_and_for_short_lives() {
        let year = CertificateValidity { from: 0, until: 365 * DAY };
        for (day, age) in [
            (-1, ValidityPhase::NotYetValid),
            (350, ValidityPhase::Valid),
            (352, ValidityPhase::ExpiresSoon),
            (365, ValidityPhase::ExpiresSoon),
            (366, ValidityPhase::Expired),
        ] {
            assert_eq!(year.phase_at(day * DAY), age, "day {day}");
        }
        let week = CertificateValidity { from: 0, until: 6 * DAY };
        for (day, age) in [
            (0, ValidityPhase::Valid),
            (4, ValidityPhase::Valid),
            (5, ValidityPhase::ExpiresSoon),
            (7, ValidityPhase::Expired),
        ] {
            assert_eq!(week.phase_at(day * DAY), age, "day {day}");
        }
    }

    #[test]
    fn both_forms_of_time_are_read_and_nothing_else() {
        assert_eq!(parse_time(UTC_TIME, b"700101000001Z"), Some(1_000));
        assert_eq!(parse_time(GENERALIZED_TIME, b"19700102000000Z"), Some(DAY));
        assert_eq!(parse_time(UTC_TIME, b"500101000000Z"), parse_time(GENERALIZED_TIME, b"19500101000000Z"));
        assert_eq!(parse_time(UTC_TIME, b"490101000000Z"), parse_time(GENERALIZED_TIME, b"20490101000000Z"));
        for wrong in [&b""[..], b"7001010000Z", b"701301000001Z", b"\xff"] {
            assert_eq!(parse_time(UTC_TIME, wrong), None);
        }
        assert_eq!(parse_time(SEQUENCE, b"700101000001Z"), None);
    }

    #[test]
    fn what_is_cut_anywhere_is_no_certificate() {
        let whole = [&[0x30, 0x81, 0x05][..], b"abcde"].concat();
        assert_eq!(read_element(&whole), Some((0x30, &b"abcde"[..], &b""[..])));
        for cut in 0..whole.len() {
            assert_eq!(read_element(&whole[..cut]), None);
            assert_eq!(CertificateValidity::from_der(&whole[..cut]), None);
        }
        assert_eq!(read_element(&[0x30, 0x84, 0, 0, 0, 0]), None);
    }
}
