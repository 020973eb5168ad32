//! PURE: converts `numeric` between its text and its wire form: groups of four decimal digits, most significant first
//! (`numeric_send` and `numeric_recv` of PostgreSQL).

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Maximum digits before and after the point that the server can store.
const INTEGER_DIGITS_MAX: usize = 131_072;
const FRACTION_DIGITS_MAX: usize = 16_383;

/// Appends the wire form; `None` when the text is not a number or too long for the server.
pub(super) fn encode_numeric(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    if let Some(sign) = special_value(text) {
        out.extend([0, 0, 0, 0, sign.to_be_bytes()[0], sign.to_be_bytes()[1], 0, 0]);
        return Some(());
    }
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (integer, fraction) = split_digits(text)?;
    write_groups(negative, &integer, &fraction, out)
}

fn special_value(text: &str) -> Option<u16> {
    let text = text.to_ascii_lowercase();
    match text.as_str() {
        "nan" => Some(NAN),
        "infinity" | "+infinity" | "inf" | "+inf" => Some(INFINITY),
        "-infinity" | "-inf" => Some(NEGATIVE_INFINITY),
        _ => None,
    }
}

/// The digits before and after the point, with the exponent applied.
fn split_digits(text: &str) -> Option<(String, String)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [integer, fraction].concat();
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = i64::try_from(integer.len()).ok()? + i64::from(exponent);
    let before = usize::try_from(point.max(0)).ok()?;
    let zeros = usize::try_from((-point).max(0)).ok()?;
    if before > INTEGER_DIGITS_MAX || zeros + all.len().saturating_sub(before) > FRACTION_DIGITS_MAX {
        return None;
    }
    let (integer, fraction) = all.split_at(before.min(all.len()));
    let integer = format!("{integer}{}", "0".repeat(before - integer.len()));
    Some((integer, format!("{}{fraction}", "0".repeat(zeros))))
}

fn write_groups(negative: bool, integer: &str, fraction: &str, out: &mut Vec<u8>) -> Option<()> {
    let scale = u16::try_from(fraction.len()).ok()?;
    let padded = [&"000"[..(4 - integer.len() % 4) % 4], integer, fraction, &"000"[..(4 - fraction.len() % 4) % 4]];
    let mut groups: Vec<u16> = padded.concat().as_bytes().chunks(4).map(digit_group).collect();
    let mut weight = i64::try_from(integer.len().div_ceil(4)).ok()? - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= i64::try_from(leading).ok()?;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign = if negative && !groups.is_empty() { NEGATIVE } else { 0 };
    out.extend(u16::try_from(groups.len()).ok()?.to_be_bytes());
    out.extend(i16::try_from(weight).ok()?.to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend(scale.to_be_bytes());
    groups.iter().for_each(|group| out.extend(group.to_be_bytes()));
    Some(())
}

fn digit_group(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'))
}

/// The text, as the server would write it; `None` when the bytes are not a numeric.
pub(super) fn decode_numeric(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let count = usize::from(words.next()?);
    let weight = i64::from(words.next()?.cast_signed());
    let (sign, scale) = (words.next()?, usize::from(words.next()?));
    match sign {
        NAN => return Some("NaN".to_owned()),
        INFINITY => return Some("Infinity".to_owned()),
        NEGATIVE_INFINITY => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let groups: Vec<u16> = words.collect();
    if groups.len() != count {
        return None;
    }
    let group = |power: i64| usize::try_from(weight - power).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let mut integer: String = (0..=weight.max(0)).rev().map(|power| format!("{:04}", group(power))).collect();
    let zeros = integer.len() - integer.trim_start_matches('0').len();
    integer.drain(..zeros.min(integer.len() - 1));
    let places = i64::try_from(scale.div_ceil(4)).ok()?;
    let fraction: String = (1..=places).map(|power| format!("{:04}", group(-power))).collect();
    let sign = if sign == NEGATIVE { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{integer}{point}{}", &fraction[..scale]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(text: &str) -> Option<String> {
        let mut bytes = Vec::new();
        encode_numeric(text, &mut bytes)?;
        decode_numeric(&bytes)
    }

    #[test]
    fn numbers_survive_the_trip() {
        for text in ["0", "1", "-1", "10000", "123456789.000100", "0.00001", "-0.5", "99999999", "NaN", "Infinity"] {
            assert_eq!(there_and_back(text).as_deref(), Some(text));
        }
        for (text, written) in [
            ("1e3", "1000"),
            ("1.5E-3", "0.0015"),
            (".5", "0.5"),
            ("5.", "5"),
            ("+007", "7"),
            ("-0", "0"),
            ("0.000", "0.000"),
            ("12e0", "12"),
            ("1e-5", "0.00001"),
            (" 42\n", "42"),
            ("-inf", "-Infinity"),
        ] {
            assert_eq!(there_and_back(text).as_deref(), Some(written), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", ".", "-", "1,5", "0x10", "1e", "1e999999999", "1e-20000", "--1", "١", "1 2", "e5"] {
            assert_eq!(there_and_back(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_decimal_survives(digits in "-?[1-9][0-9]{0,40}(\\.[0-9]{1,30})?") {
            assert_eq!(there_and_back(&digits), Some(digits));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode_numeric(&bytes);
        }
    }
}
