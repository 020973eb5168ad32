//! Cells and parameters as JSON, without losing a bit.
//!
//! JSON's numbers are doubles to most readers, and JSON has no bytes: integers beyond ±2^53 travel as
//! `{"$int":"9007199254740993"}`, blobs as `{"$blob":"<base64>"}`, infinities as `{"$real":"inf"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;
use tenant_engine::Value;

/// The last integer up to which a double tells all of them apart.
const EXACT_MAX: u64 = 1 << 53;

/// The parameter a JSON value means; `Err` says what is wrong with it, without repeating it.
pub(crate) fn parameter(json: Json) -> Result<Value, &'static str> {
    match json {
        Json::Null => Ok(Value::Null),
        Json::Bool(truth) => Ok(Value::Boolean(truth)),
        Json::String(text) => Ok(Value::Text(text)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Ok(Value::Integer(integer)),
            (None, Some(_)) if number.is_u64() => Err("an integer beyond 64 bits with a sign"),
            (None, Some(real)) => Ok(Value::Real(real)),
            (None, None) => Err("a number beyond a 64-bit float"),
        },
        Json::Object(object) => tagged(&object),
        Json::Array(_) => Err("an array; a parameter is null, a boolean, a number, a string, $int, $blob or $real"),
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
            _ => Err("a $real that is neither \"inf\" nor \"-inf\"; a database stores no NaN, use null"),
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
            json!({"$real": "nan"}),
            json!({"$real": "1"}),
            json!({"$int": "1", "$blob": ""}),
            json!(u64::MAX),
        ] {
            assert!(parameter(bad.clone()).is_err(), "{bad}");
        }
    }
}
