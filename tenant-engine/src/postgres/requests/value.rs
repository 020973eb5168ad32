//! PURE: the engine-neutral value between PostgreSQL's types, in their binary forms.
//!
//! A parameter is written as the type that the server found for it, a cell read as the type of its column. What was read
//! can be sent back and is equal. A text is stored as the server would store it, or refused. A type that is not listed
//! here has no neutral form: it is refused, and the message says to cast it to text.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgTypeKind};
use sqlx::{Encode, Postgres, Type, TypeInfo as _};
use uuid::Uuid;

use super::{moment, numeric};
use crate::value::Value;

/// The version byte before a binary jsonb.
const JSONB_VERSION: u8 = 1;

/// What the server passes over around a number, a date or a word.
pub(super) const SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

/// How the driver calls a type that is gone since the statement was prepared.
const UNKNOWN: &str = "?";

/// A type of the server that has a neutral form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    /// One byte, which the server calls `"char"`.
    Byte,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Uuid,
    Json,
    Jsonb,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Void,
}

impl Form {
    /// The form of a type; `None` when it has none.
    pub(super) fn of(info: &PgTypeInfo) -> Option<Self> {
        // The numbers are fixed in PostgreSQL's `pg_type.dat`.
        Some(match info.oid()?.0 {
            16 => Self::Bool,
            17 => Self::Bytea,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            26 => Self::Oid,
            18 => Self::Byte,
            19 | 25 | 705 | 1042 | 1043 => Self::Text,
            114 => Self::Json,
            700 => Self::Float4,
            701 => Self::Float8,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::Timestamptz,
            1700 => Self::Numeric,
            2278 => Self::Void,
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            _ => return Self::of_custom(info),
        })
    }

    fn of_custom(info: &PgTypeInfo) -> Option<Self> {
        if info.name() == UNKNOWN {
            return None;
        }
        match info.kind() {
            PgTypeKind::Enum(_) => Some(Self::Text),
            PgTypeKind::Domain(base) => Self::of(base),
            PgTypeKind::Simple if info.name().eq_ignore_ascii_case("citext") => Some(Self::Text),
            _ => None,
        }
    }

    /// Appends the binary form of a value that is not NULL; `None` when the value does not fit the type.
    fn write(self, value: &Value, out: &mut Vec<u8>) -> Option<()> {
        match (self, value) {
            (Self::Bool, value) => out.push(u8::from(boolean(value)?)),
            (Self::Int2, value) => out.extend(i16::try_from(integer(value)?).ok()?.to_be_bytes()),
            (Self::Int4, value) => out.extend(i32::try_from(integer(value)?).ok()?.to_be_bytes()),
            (Self::Int8, value) => out.extend(integer(value)?.to_be_bytes()),
            (Self::Oid, value) => out.extend(u32::try_from(integer(value)?).ok()?.to_be_bytes()),
            (Self::Float4, value) => out.extend(short_real(value)?.to_be_bytes()),
            (Self::Float8, value) => out.extend(real(value)?.to_be_bytes()),
            (Self::Numeric, value) => numeric::encode(&number_text(value)?, out)?,
            (Self::Bytea, Value::Blob(bytes)) => out.extend(bytes),
            (Self::Bytea, Value::Text(text)) => hex(text.strip_prefix("\\x")?, out)?,
            (Self::Json, value) => out.extend(json(value)?.as_bytes()),
            (Self::Jsonb, value) => {
                out.push(JSONB_VERSION);
                out.extend(json(value)?.as_bytes());
            }
            (form, Value::Text(text)) => form.write_text(text, out)?,
            _ => return None,
        }
        Some(())
    }

    fn write_text(self, text: &str, out: &mut Vec<u8>) -> Option<()> {
        match self {
            // The server cannot store it in a text.
            Self::Text if text.contains('\0') => return None,
            Self::Text => out.extend(text.as_bytes()),
            Self::Byte => out.push(byte(text)?),
            Self::Uuid => out.extend(Uuid::try_parse(text.trim_matches(SPACE)).ok()?.as_bytes()),
            Self::Date => out.extend(moment::encode_date(text)?.to_be_bytes()),
            Self::Time => out.extend(moment::encode_time(text)?.to_be_bytes()),
            Self::Timestamp => out.extend(moment::encode_timestamp(text)?.to_be_bytes()),
            Self::Timestamptz => out.extend(moment::encode_timestamptz(text)?.to_be_bytes()),
            _ => return None,
        }
        Some(())
    }

    /// The value in these bytes; `None` when they are not of this type.
    pub(super) fn read(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Self::Bool => Value::Boolean(bytes != [0]),
            Self::Int2 => Value::Integer(i16::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int4 => Value::Integer(i32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int8 => Value::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Oid => Value::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Byte => Value::Text(byte_text(*bytes.first()?)),
            Self::Float4 => Value::Real(shortest(f32::from_be_bytes(bytes.try_into().ok()?))),
            Self::Float8 => Value::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Numeric => Value::Text(numeric::decode(bytes)?),
            Self::Text | Self::Json => text(bytes),
            Self::Jsonb => text(bytes.strip_prefix(&[JSONB_VERSION])?),
            Self::Bytea => Value::Blob(bytes.to_vec()),
            Self::Uuid => Value::Text(Uuid::from_slice(bytes).ok()?.to_string()),
            Self::Date => Value::Text(moment::decode_date(i32::from_be_bytes(bytes.try_into().ok()?))),
            Self::Time => Value::Text(moment::decode_time(i64::from_be_bytes(bytes.try_into().ok()?))),
            Self::Timestamp => Value::Text(moment::decode_timestamp(i64::from_be_bytes(bytes.try_into().ok()?), "")),
            Self::Timestamptz => Value::Text(moment::decode_timestamp(i64::from_be_bytes(bytes.try_into().ok()?), "Z")),
            Self::Void => Value::Null,
        })
    }
}

/// A database in another encoding is sent as UTF-8 all the same; bytes that are none lose nothing this way.
fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Blob(bytes.to_vec()),
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(value) => Some(*value),
        Value::Integer(0) => Some(false),
        Value::Integer(1) => Some(true),
        Value::Text(text) => match text.trim_matches(SPACE).to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(value) => Some(*value),
        // JSON knows no integers: whoever sends 5.0 means 5.
        Value::Real(value) if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 => Some(*value as i64),
        Value::Text(text) => text.trim_matches(SPACE).parse().ok(),
        _ => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Real(value) => Some(*value),
        Value::Integer(value) => Some(*value as f64),
        Value::Text(text) => {
            let value: f64 = text.trim_matches(SPACE).parse().ok()?;
            is_kept(text, value.is_infinite(), value == 0.0).then_some(value)
        }
        _ => None,
    }
}

/// Each form is rounded once: by way of a double some would become a neighbour.
fn short_real(value: &Value) -> Option<f32> {
    match value {
        Value::Real(value) => {
            let narrow = *value as f32;
            let is_lost = (narrow.is_infinite() && value.is_finite()) || (narrow == 0.0 && *value != 0.0);
            (!is_lost).then_some(narrow)
        }
        Value::Integer(value) => Some(*value as f32),
        Value::Text(text) => {
            let value: f32 = text.trim_matches(SPACE).parse().ok()?;
            is_kept(text, value.is_infinite(), value == 0.0).then_some(value)
        }
        _ => None,
    }
}

/// False for digits that became infinite or zero: they are out of the range of their type, as for the server.
fn is_kept(text: &str, is_infinite: bool, is_zero: bool) -> bool {
    let is_word = text.contains(['n', 'N']);
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_more_than_zero = mantissa.contains(|digit: char| ('1'..='9').contains(&digit));
    (!is_infinite || is_word) && !(is_zero && is_more_than_zero)
}

/// The double that is written as the server writes this: with the fewest digits that tell it from its neighbours.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

/// As the server writes a `"char"`.
fn byte_text(byte: u8) -> String {
    match byte {
        0 => String::new(),
        1..=127 => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    }
}

fn byte(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [] => Some(0),
        [byte @ 1..=127] => Some(*byte),
        [b'\\', digits @ ..] if digits.len() == 3 && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) => {
            u8::from_str_radix(&text[1..], 8).ok()
        }
        _ => None,
    }
}

fn number_text(value: &Value) -> Option<String> {
    match value {
        Value::Integer(value) => Some(value.to_string()),
        Value::Real(value) => Some(value.to_string()),
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

/// Text is taken as JSON already, and the server checks it.
fn json(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) if !text.contains('\0') => Some(text.clone()),
        Value::Integer(value) => Some(value.to_string()),
        Value::Real(value) if value.is_finite() => Some(value.to_string()),
        Value::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}

fn hex(digits: &str, out: &mut Vec<u8>) -> Option<()> {
    let pairs = digits.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    for pair in pairs {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        out.push(u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?);
    }
    Some(())
}

/// A parameter on its way to the server.
pub(super) struct Parameter<'a> {
    pub(super) value: &'a Value,
    pub(super) form: Form,
    pub(super) info: &'a PgTypeInfo,
}

impl Type<Postgres> for Parameter<'_> {
    fn type_info() -> PgTypeInfo {
        // Never asked for: each parameter produces its own.
        PgTypeInfo::with_oid(sqlx::postgres::types::Oid(0))
    }
}

impl<'a> Encode<'a, Postgres> for Parameter<'a> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        if matches!(self.value, Value::Null) {
            return Ok(IsNull::Yes);
        }
        self.form.write(self.value, buffer).map(|()| IsNull::No).ok_or_else(|| Misfit.into())
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.info.clone())
    }
}

/// The value does not fit the type.
#[derive(Debug, thiserror::Error)]
#[error("the value does not fit the type")]
pub(super) struct Misfit;

/// What a value is called in messages.
pub(super) fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "NULL",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) => "an integer",
        Value::Real(_) => "a float",
        Value::Text(_) => "this text",
        Value::Blob(_) => "bytes",
    }
}
