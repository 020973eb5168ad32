//! PURE: converts between the engine-neutral value and PostgreSQL's types in their binary forms.
//!
//! A parameter is written as the type that the server found for it, and a cell is read as the type of its column. A
//! value that was read can be sent back and stays equal. A text is stored as the server would store it, or refused. A
//! type that is not listed here has no neutral form: it is refused, and the message says to cast it to text.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgTypeKind};
use sqlx::{Encode, Postgres, Type, TypeInfo as _};
use uuid::Uuid;

use super::{numeric, timestamps};
use crate::value::SqlValue;

/// The version byte at the start of a binary jsonb.
const JSONB_VERSION: u8 = 1;

/// Characters that the server ignores around a number, a date or a word.
pub(super) const SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

/// The driver's name for a type that was dropped after the statement was prepared.
const UNKNOWN: &str = "?";

/// A type of the server that has a neutral form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireForm {
    Bool,
    /// One byte; the server calls this type `"char"`.
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

impl WireForm {
    /// The form of a type; `None` when it has no neutral form.
    pub(super) fn for_type(info: &PgTypeInfo) -> Option<Self> {
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
            PgTypeKind::Domain(base) => Self::for_type(base),
            PgTypeKind::Simple if info.name().eq_ignore_ascii_case("citext") => Some(Self::Text),
            _ => None,
        }
    }

    /// Appends the binary form of a value that is not NULL; `None` when the value does not fit the type.
    fn write_value(self, value: &SqlValue, out: &mut Vec<u8>) -> Option<()> {
        match (self, value) {
            (Self::Bool, value) => out.push(u8::from(to_boolean(value)?)),
            (Self::Int2, value) => out.extend(i16::try_from(to_integer(value)?).ok()?.to_be_bytes()),
            (Self::Int4, value) => out.extend(i32::try_from(to_integer(value)?).ok()?.to_be_bytes()),
            (Self::Int8, value) => out.extend(to_integer(value)?.to_be_bytes()),
            (Self::Oid, value) => out.extend(u32::try_from(to_integer(value)?).ok()?.to_be_bytes()),
            (Self::Float4, value) => out.extend(short_real(value)?.to_be_bytes()),
            (Self::Float8, value) => out.extend(to_real(value)?.to_be_bytes()),
            (Self::Numeric, value) => numeric::encode_numeric(&number_text(value)?, out)?,
            (Self::Bytea, SqlValue::Blob(bytes)) => out.extend(bytes),
            (Self::Bytea, SqlValue::Text(text)) => decode_hex(text.strip_prefix("\\x")?, out)?,
            (Self::Json, value) => out.extend(to_json(value)?.as_bytes()),
            (Self::Jsonb, value) => {
                out.push(JSONB_VERSION);
                out.extend(to_json(value)?.as_bytes());
            }
            (form, SqlValue::Text(text)) => form.write_text(text, out)?,
            _ => return None,
        }
        Some(())
    }

    fn write_text(self, text: &str, out: &mut Vec<u8>) -> Option<()> {
        match self {
            // The server cannot store a NUL character in a text.
            Self::Text if text.contains('\0') => return None,
            Self::Text => out.extend(text.as_bytes()),
            Self::Byte => out.push(parse_byte(text)?),
            Self::Uuid => out.extend(Uuid::try_parse(text.trim_matches(SPACE)).ok()?.as_bytes()),
            Self::Date => out.extend(timestamps::encode_date(text)?.to_be_bytes()),
            Self::Time => out.extend(timestamps::encode_time(text)?.to_be_bytes()),
            Self::Timestamp => out.extend(timestamps::encode_timestamp(text)?.to_be_bytes()),
            Self::Timestamptz => out.extend(timestamps::encode_timestamptz(text)?.to_be_bytes()),
            _ => return None,
        }
        Some(())
    }

    /// The value in these bytes; `None` when the bytes are not of this type.
    pub(super) fn read_value(self, bytes: &[u8]) -> Option<SqlValue> {
        Some(match self {
            Self::Bool => SqlValue::Boolean(bytes != [0]),
            Self::Int2 => SqlValue::Integer(i16::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int4 => SqlValue::Integer(i32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Int8 => SqlValue::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Oid => SqlValue::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
            Self::Byte => SqlValue::Text(byte_text(*bytes.first()?)),
            Self::Float4 => SqlValue::Real(shortest_double(f32::from_be_bytes(bytes.try_into().ok()?))),
            Self::Float8 => SqlValue::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Numeric => SqlValue::Text(numeric::decode_numeric(bytes)?),
            Self::Text | Self::Json => text_or_blob(bytes),
            Self::Jsonb => text_or_blob(bytes.strip_prefix(&[JSONB_VERSION])?),
            Self::Bytea => SqlValue::Blob(bytes.to_vec()),
            Self::Uuid => SqlValue::Text(Uuid::from_slice(bytes).ok()?.to_string()),
            Self::Date => SqlValue::Text(timestamps::decode_date(i32::from_be_bytes(bytes.try_into().ok()?))),
            Self::Time => SqlValue::Text(timestamps::decode_time(i64::from_be_bytes(bytes.try_into().ok()?))),
            Self::Timestamp => {
                SqlValue::Text(timestamps::decode_timestamp(i64::from_be_bytes(bytes.try_into().ok()?), ""))
            }
            Self::Timestamptz => {
                SqlValue::Text(timestamps::decode_timestamp(i64::from_be_bytes(bytes.try_into().ok()?), "Z"))
            }
            Self::Void => SqlValue::Null,
        })
    }
}

/// The server sends UTF-8 even from a database in another encoding. Bytes that are not UTF-8 become a blob, so nothing
/// is lost.
fn text_or_blob(bytes: &[u8]) -> SqlValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => SqlValue::Text(text.to_owned()),
        Err(_) => SqlValue::Blob(bytes.to_vec()),
    }
}

fn to_boolean(value: &SqlValue) -> Option<bool> {
    match value {
        SqlValue::Boolean(value) => Some(*value),
        SqlValue::Integer(0) => Some(false),
        SqlValue::Integer(1) => Some(true),
        SqlValue::Text(text) => match text.trim_matches(SPACE).to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn to_integer(value: &SqlValue) -> Option<i64> {
    match value {
        SqlValue::Integer(value) => Some(*value),
        // JSON has no integers, so 5.0 in a request means 5.
        SqlValue::Real(value) if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 => Some(*value as i64),
        SqlValue::Text(text) => text.trim_matches(SPACE).parse().ok(),
        _ => None,
    }
}

fn to_real(value: &SqlValue) -> Option<f64> {
    match value {
        SqlValue::Real(value) => Some(*value),
        SqlValue::Integer(value) => Some(*value as f64),
        SqlValue::Text(text) => {
            let value: f64 = text.trim_matches(SPACE).parse().ok()?;
            is_kept(text, value.is_infinite(), value == 0.0).then_some(value)
        }
        _ => None,
    }
}

/// Each form is rounded once: rounding by way of a double would turn some values into a neighbour.
fn short_real(value: &SqlValue) -> Option<f32> {
    match value {
        SqlValue::Real(value) => {
            let narrow = *value as f32;
            let is_lost = (narrow.is_infinite() && value.is_finite()) || (narrow == 0.0 && *value != 0.0);
            (!is_lost).then_some(narrow)
        }
        SqlValue::Integer(value) => Some(*value as f32),
        SqlValue::Text(text) => {
            let value: f32 = text.trim_matches(SPACE).parse().ok()?;
            is_kept(text, value.is_infinite(), value == 0.0).then_some(value)
        }
        _ => None,
    }
}

/// False for digits that became infinite or zero: the value is out of the range of its type, as for the server.
fn is_kept(text: &str, is_infinite: bool, is_zero: bool) -> bool {
    let is_word = text.contains(['n', 'N']);
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_more_than_zero = mantissa.contains(|digit: char| ('1'..='9').contains(&digit));
    (!is_infinite || is_word) && !(is_zero && is_more_than_zero)
}

/// The double with the server's text for this value: the fewest digits that distinguish it from its neighbours.
fn shortest_double(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

/// A `"char"` as the server writes it.
fn byte_text(byte: u8) -> String {
    match byte {
        0 => String::new(),
        1..=127 => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    }
}

fn parse_byte(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [] => Some(0),
        [byte @ 1..=127] => Some(*byte),
        [b'\\', digits @ ..] if digits.len() == 3 && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) => {
            u8::from_str_radix(&text[1..], 8).ok()
        }
        _ => None,
    }
}

fn number_text(value: &SqlValue) -> Option<String> {
    match value {
        SqlValue::Integer(value) => Some(value.to_string()),
        SqlValue::Real(value) => Some(value.to_string()),
        SqlValue::Text(text) => Some(text.clone()),
        _ => None,
    }
}

/// A text is taken as JSON, and the server checks it.
fn to_json(value: &SqlValue) -> Option<String> {
    match value {
        SqlValue::Text(text) if !text.contains('\0') => Some(text.clone()),
        SqlValue::Integer(value) => Some(value.to_string()),
        SqlValue::Real(value) if value.is_finite() => Some(value.to_string()),
        SqlValue::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}

fn decode_hex(digits: &str, out: &mut Vec<u8>) -> Option<()> {
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

/// A parameter that is sent to the server.
pub(super) struct WireParameter<'a> {
    pub(super) value: &'a SqlValue,
    pub(super) form: WireForm,
    pub(super) info: &'a PgTypeInfo,
}

impl Type<Postgres> for WireParameter<'_> {
    fn type_info() -> PgTypeInfo {
        // Never asked for, because each parameter produces its own type.
        PgTypeInfo::with_oid(sqlx::postgres::types::Oid(0))
    }
}

impl<'a> Encode<'a, Postgres> for WireParameter<'a> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        if matches!(self.value, SqlValue::Null) {
            return Ok(IsNull::Yes);
        }
        self.form.write_value(self.value, buffer).map(|()| IsNull::No).ok_or_else(|| ValueMismatch.into())
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.info.clone())
    }
}

/// The value does not match the type.
#[derive(Debug, thiserror::Error)]
#[error("the value does not fit the type")]
pub(super) struct ValueMismatch;

/// The name of the value's kind in messages.
pub(super) fn value_noun(value: &SqlValue) -> &'static str {
    match value {
        SqlValue::Null => "NULL",
        SqlValue::Boolean(_) => "a boolean",
        SqlValue::Integer(_) => "an integer",
        SqlValue::Real(_) => "a float",
        SqlValue::Text(_) => "this text",
        SqlValue::Blob(_) => "bytes",
    }
}
