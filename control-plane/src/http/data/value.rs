//! Cells and parameters as JSON, without loss.
//!
//! Most readers treat JSON's numbers as doubles, and JSON has no bytes. So integers beyond ±2^53 are sent as
//! `{"$int":"9007199254740993"}`, blobs as `{"$blob":"<base64>"}`, and infinities and NaN as `{"$real":"inf"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tenant_engine::SqlValue;

/// The largest integer up to which a double represents all integers exactly.
const EXACT_MAX: u64 = 1 << 53;

/// Parses all parameters of a statement. Their text is kept until here, because JSON parsers drop digits of numbers. An
/// error names the refused parameter by its number, and never repeats a value.
pub(crate) fn parse_parameters(sent: Vec<Box<RawValue>>) -> Result<Vec<SqlValue>, String> {
    let bind = |(at, sent): (usize, Box<RawValue>)| {
        parse_parameter(sent.get()).map_err(|what| format!("params: number {} is {what}", at + 1))
    };
    sent.into_iter().enumerate().map(bind).collect()
}

/// The parameter that a JSON text represents.
fn parse_parameter(json: &str) -> Result<SqlValue, &'static str> {
    if json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return parse_number(json);
    }
    match serde_json::from_str(json).map_err(|_| "not JSON")? {
        Json::Null => Ok(SqlValue::Null),
        Json::Bool(truth) => Ok(SqlValue::Boolean(truth)),
        Json::String(text) => Ok(SqlValue::Text(text)),
        Json::Number(number) => self::parse_number(&number.to_string()),
        Json::Object(object) => parse_tagged(&object),
        Json::Array(_) => Err("an array; a parameter is null, a boolean, a number, a string, $int, $blob or $real"),
    }
}

/// Parses a number without loss of digits or size, or refuses it.
fn parse_number(json: &str) -> Result<SqlValue, &'static str> {
    if !json.contains(['.', 'e', 'E']) {
        let integer = json.parse().map(SqlValue::Integer);
        return integer.map_err(|_| "an integer beyond 64 bits with a sign; a string keeps its digits");
    }
    let real: f64 = json.parse().map_err(|_| "not a number")?;
    let mantissa = json.split(['e', 'E']).next().unwrap_or_default();
    let is_more_than_zero = mantissa.contains(|digit: char| ('1'..='9').contains(&digit));
    match real {
        _ if real.is_infinite() => Err("a number beyond a 64-bit float"),
        _ if real == 0.0 && is_more_than_zero => Err("a number too close to zero for a 64-bit float"),
        _ => Ok(SqlValue::Real(real)),
    }
}

fn parse_tagged(object: &serde_json::Map<String, Json>) -> Result<SqlValue, &'static str> {
    let mut entries = object.iter();
    let (Some((tag, Json::String(text))), None) = (entries.next(), entries.next()) else {
        return Err("an object; expected {\"$int\":\"…\"}, {\"$blob\":\"…\"} or {\"$real\":\"…\"}");
    };
    match tag.as_str() {
        "$int" => text.parse().map(SqlValue::Integer).map_err(|_| "a $int that is not a 64-bit integer"),
        "$blob" => STANDARD.decode(text).map(SqlValue::Blob).map_err(|_| "a $blob that is not base64"),
        "$real" => match text.as_str() {
            "inf" => Ok(SqlValue::Real(f64::INFINITY)),
            "-inf" => Ok(SqlValue::Real(f64::NEG_INFINITY)),
            "nan" => Ok(SqlValue::Real(f64::NAN)),
            _ => Err("a $real that is neither \"inf\" nor \"-inf\" nor \"nan\""),
        },
        _ => Err("an object with an unknown tag; expected $int, $blob or $real"),
    }
}

/// A cell as JSON. `document.rs` writes the text around it.
pub(crate) struct JsonCell<'a>(pub(crate) &'a SqlValue);

impl Serialize for JsonCell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            SqlValue::Null => serializer.serialize_unit(),
            SqlValue::Boolean(truth) => serializer.serialize_bool(*truth),
            SqlValue::Integer(integer) if integer.unsigned_abs() <= EXACT_MAX => serializer.serialize_i64(*integer),
            SqlValue::Integer(integer) => serialize_tagged(serializer, "$int", &integer.to_string()),
            SqlValue::Real(real) if real.is_finite() => serializer.serialize_f64(*real),
            SqlValue::Real(real) if real.is_nan() => serialize_tagged(serializer, "$real", "nan"),
            SqlValue::Real(real) => serialize_tagged(serializer, "$real", if *real > 0.0 { "inf" } else { "-inf" }),
            SqlValue::Text(text) => serializer.serialize_str(text),
            SqlValue::Blob(bytes) => serialize_tagged(serializer, "$blob", &STANDARD.encode(bytes)),
        }
    }
}

fn serialize_tagged<S: Serializer>(serializer: S, name: &str, text: &str) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(1))?;
    object.serialize_entry(name, text)?;
    object.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse_parameter(json: Json) -> Result<SqlValue, &'static str> {
        super::parse_parameter(&json.to_string())
    }

    fn out(value: SqlValue) -> Json {
        serde_json::to_value(JsonCell(&value)).unwrap()
    }

    #[test]
    fn integers_survive_on_both_sides_of_2_to_the_53() {
        let edge = 1_i64 << 53;
        assert_eq!(out(SqlValue::Integer(edge)), json!(edge));
        assert_eq!(out(SqlValue::Integer(-edge)), json!(-edge));
        assert_eq!(out(SqlValue::Integer(edge + 1)), json!({"$int": "9007199254740993"}));
        assert_eq!(out(SqlValue::Integer(i64::MIN)), json!({"$int": i64::MIN.to_string()}));
        for integer in [0, edge, edge + 1, -edge - 1, i64::MAX, i64::MIN] {
            assert_eq!(parse_parameter(out(SqlValue::Integer(integer))), Ok(SqlValue::Integer(integer)));
        }
        assert_eq!(
            parse_parameter(json!(i64::MAX)),
            Ok(SqlValue::Integer(i64::MAX)),
            "a plain number is taken as it is"
        );
    }

    #[test]
    fn bytes_reals_and_text_survive() {
        for value in [
            SqlValue::Boolean(false),
            SqlValue::Blob(vec![]),
            SqlValue::Blob(vec![0, 255, 10]),
            SqlValue::Real(0.1),
            SqlValue::Real(1.0),
            SqlValue::Real(f64::INFINITY),
            SqlValue::Real(f64::NEG_INFINITY),
            SqlValue::Text("a\0b\u{1F980}".to_owned()),
            SqlValue::Null,
        ] {
            // Through text, as over the wire.
            let wire = serde_json::to_string(&JsonCell(&value)).unwrap();
            assert_eq!(parse_parameter(serde_json::from_str(&wire).unwrap()), Ok(value), "{wire}");
        }
        assert_eq!(out(SqlValue::Real(f64::NAN)), json!({"$real": "nan"}));
        assert_eq!(parse_parameter(json!(true)), Ok(SqlValue::Boolean(true)));
    }

    #[test]
    fn what_is_no_parameter_is_refused() {
        for bad in [
            json!([1]),
            json!({}),
            json!({"a": "b"}),
            json!({"$int": 1}),
            json!({"$int": "1.5"}),
            json!({"$int": ""}),
            json!({"$int": "9223372036854775808"}),
            json!({"$blob": "%"}),
            json!({"$real": "NaN"}),
            json!({"$real": "1"}),
            json!({"$int": "1", "$blob": ""}),
            json!(u64::MAX),
        ] {
            assert!(parse_parameter(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_keeps_its_digits_or_is_refused() {
        for bad in [
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551615",
            "18446744073709551616",
            "100000000000000000000000000000000",
            "1e999",
            "-1e999",
            "1e-999",
            "0.000001e-400",
        ] {
            assert!(super::parse_parameter(bad).is_err(), "{bad}");
        }
        for (text, value) in [
            ("9223372036854775807", SqlValue::Integer(i64::MAX)),
            ("-9223372036854775808", SqlValue::Integer(i64::MIN)),
            ("-0", SqlValue::Integer(0)),
            ("0e-999", SqlValue::Real(0.0)),
            ("5e-324", SqlValue::Real(5e-324)),
            ("1.7976931348623157e308", SqlValue::Real(f64::MAX)),
            ("1E2", SqlValue::Real(100.0)),
        ] {
            assert_eq!(super::parse_parameter(text), Ok(value), "{text}");
        }
        assert!(matches!(parse_parameter(json!({"$real": "nan"})), Ok(SqlValue::Real(real)) if real.is_nan()));
    }
}
