//! Cells and parameters as JSON, without losing a bit.
//!
//! JSON's numbers are doubles to most readers, and JSON has no bytes: integers beyond ±2^53 travel as
//! `{"$int":"9007199254740993"}`, blobs as `{"$blob":"<base64>"}`, infinities and NaN as `{"$real":"inf"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tenant_engine::Value;

/// The last integer up to which a double tells all of them apart.
const EXACT_MAX: u64 = 1 << 53;

/// A parameter as it was sent. Its text is kept, because a reader of JSON drops digits of a number.
#[derive(Debug)]
pub(crate) struct Sent(Box<RawValue>);

impl<'de> Deserialize<'de> for Sent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self)
    }
}

/// All parameters of a statement; `Err` names the one that is refused by its number, and never repeats a value.
pub(crate) fn parameters(sent: Vec<Sent>) -> Result<Vec<Value>, String> {
    let bind = |(at, sent): (usize, Sent)| {
        parameter(sent.0.get()).map_err(|what| format!("params: number {} is {what}", at + 1))
    };
    sent.into_iter().enumerate().map(bind).collect()
}

/// The parameter that a JSON text means.
fn parameter(json: &str) -> Result<Value, &'static str> {
    if json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return number(json);
    }
    match serde_json::from_str(json).map_err(|_| "not JSON")? {
        Json::Null => Ok(Value::Null),
        Json::Bool(truth) => Ok(Value::Boolean(truth)),
        Json::String(text) => Ok(Value::Text(text)),
        Json::Number(number) => self::number(&number.to_string()),
        Json::Object(object) => tagged(&object),
        Json::Array(_) => Err("an array; a parameter is null, a boolean, a number, a string, $int, $blob or $real"),
    }
}

/// A number keeps its digits and its size, or is refused.
fn number(json: &str) -> Result<Value, &'static str> {
    if !json.contains(['.', 'e', 'E']) {
        let integer = json.parse().map(Value::Integer);
        return integer.map_err(|_| "an integer beyond 64 bits with a sign; a string keeps its digits");
    }
    let real: f64 = json.parse().map_err(|_| "not a number")?;
    let mantissa = json.split(['e', 'E']).next().unwrap_or_default();
    let is_more_than_zero = mantissa.contains(|digit: char| ('1'..='9').contains(&digit));
    match real {
        _ if real.is_infinite() => Err("a number beyond a 64-bit float"),
        _ if real == 0.0 && is_more_than_zero => Err("a number too near to zero for a 64-bit float"),
        _ => Ok(Value::Real(real)),
    }
}

fn tagged(object: &serde_json::Map<String, Json>) -> Result<Value, &'static str> {
    let mut entries = object.iter();
    let (Some((tag, Json::String(text))), None) = (entries.next(), entries.next()) else {
        return Err("an object; expected {\"$int\":\"…\"}, {\"$blob\":\"…\"} or {\"$real\":\"…\"}");
    };
    match tag.as_str() {
        "$int" => text.parse().map(Value::Integer).map_err(|_| "a $int that is no 64-bit integer"),
        "$blob" => STANDARD.decode(text).map(Value::Blob).map_err(|_| "a $blob that is not base64"),
        "$real" => match text.as_str() {
            "inf" => Ok(Value::Real(f64::INFINITY)),
            "-inf" => Ok(Value::Real(f64::NEG_INFINITY)),
            "nan" => Ok(Value::Real(f64::NAN)),
            _ => Err("a $real that is neither \"inf\" nor \"-inf\" nor \"nan\""),
        },
        _ => Err("an object with an unknown tag; expected $int, $blob or $real"),
    }
}

/// A cell as JSON; `document.rs` writes what is around it.
pub(crate) struct Cell<'a>(pub(crate) &'a Value);

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Boolean(truth) => serializer.serialize_bool(*truth),
            Value::Integer(integer) if integer.unsigned_abs() <= EXACT_MAX => serializer.serialize_i64(*integer),
            Value::Integer(integer) => tag(serializer, "$int", &integer.to_string()),
            Value::Real(real) if real.is_finite() => serializer.serialize_f64(*real),
            Value::Real(real) if real.is_nan() => tag(serializer, "$real", "nan"),
            Value::Real(real) => tag(serializer, "$real", if *real > 0.0 { "inf" } else { "-inf" }),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Blob(bytes) => tag(serializer, "$blob", &STANDARD.encode(bytes)),
        }
    }
}

fn tag<S: Serializer>(serializer: S, name: &str, text: &str) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(1))?;
    object.serialize_entry(name, text)?;
    object.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parameter(json: Json) -> Result<Value, &'static str> {
        super::parameter(&json.to_string())
    }

    fn out(value: Value) -> Json {
        serde_json::to_value(Cell(&value)).unwrap()
    }

    #[test]
    fn integers_survive_on_both_sides_of_2_to_the_53() {
        let edge = 1_i64 << 53;
        assert_eq!(out(Value::Integer(edge)), json!(edge));
        assert_eq!(out(Value::Integer(-edge)), json!(-edge));
        assert_eq!(out(Value::Integer(edge + 1)), json!({"$int": "9007199254740993"}));
        assert_eq!(out(Value::Integer(i64::MIN)), json!({"$int": i64::MIN.to_string()}));
        for integer in [0, edge, edge + 1, -edge - 1, i64::MAX, i64::MIN] {
            assert_eq!(parameter(out(Value::Integer(integer))), Ok(Value::Integer(integer)));
        }
        assert_eq!(parameter(json!(i64::MAX)), Ok(Value::Integer(i64::MAX)), "a plain number is taken as it is");
    }

    #[test]
    fn bytes_reals_and_text_survive() {
        for value in [
            Value::Boolean(false),
            Value::Blob(vec![]),
            Value::Blob(vec![0, 255, 10]),
            Value::Real(0.1),
            Value::Real(1.0),
            Value::Real(f64::INFINITY),
            Value::Real(f64::NEG_INFINITY),
            Value::Text("a\0b\u{1F980}".to_owned()),
            Value::Null,
        ] {
            // Through text, as over the wire.
            let wire = serde_json::to_string(&Cell(&value)).unwrap();
            assert_eq!(parameter(serde_json::from_str(&wire).unwrap()), Ok(value), "{wire}");
        }
        assert_eq!(out(Value::Real(f64::NAN)), json!({"$real": "nan"}));
        assert_eq!(parameter(json!(true)), Ok(Value::Boolean(true)));
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
            assert!(parameter(bad.clone()).is_err(), "{bad}");
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
            assert!(super::parameter(bad).is_err(), "{bad}");
        }
        for (text, value) in [
            ("9223372036854775807", Value::Integer(i64::MAX)),
            ("-9223372036854775808", Value::Integer(i64::MIN)),
            ("-0", Value::Integer(0)),
            ("0e-999", Value::Real(0.0)),
            ("5e-324", Value::Real(5e-324)),
            ("1.7976931348623157e308", Value::Real(f64::MAX)),
            ("1E2", Value::Real(100.0)),
        ] {
            assert_eq!(super::parameter(text), Ok(value), "{text}");
        }
        assert!(matches!(parameter(json!({"$real": "nan"})), Ok(Value::Real(real)) if real.is_nan()));
    }
}
