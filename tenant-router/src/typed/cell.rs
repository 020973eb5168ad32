//! Reads one value of a row as a field.
//!
//! Text in a field that is a struct, a map or a list is read as JSON. Everything else is read only as its own kind: text
//! is never read as a number, nor a number as text.

use std::borrow::Cow;

use serde::de::value::{SeqDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _, Unexpected, Visitor};
use tenant_engine::CellValue;

use super::mismatch::{RowMismatch, value_noun};
use crate::json::JSON_NAME;

/// How a type that takes any kind of value, as `serde_json::Value`, reads text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextReading {
    /// As text.
    Plain,
    /// As JSON, if the text is a JSON object or list.
    JsonInside,
}

/// One value with the name of its column.
pub(super) struct Cell<'a> {
    pub(super) column: &'a str,
    pub(super) value: CellValue<'a>,
    pub(super) text: TextReading,
}

impl<'a> Cell<'a> {
    /// Reads the value, and names the column in an error.
    pub(super) fn named<T>(self, read: impl FnOnce(Self) -> Result<T, RowMismatch>) -> Result<T, RowMismatch> {
        let (column, found) = (self.column, value_noun(&self.value));
        read(self).map_err(|mismatch| mismatch.in_column(column, found))
    }

    pub(super) fn read_with_seed<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, RowMismatch>
    where
        'a: 'de,
    {
        self.named(|cell| seed.deserialize(cell))
    }

    fn invalid_type<'de, V: Visitor<'de>>(self, visitor: &V) -> RowMismatch {
        match &self.value {
            CellValue::Null => RowMismatch::invalid_type(Unexpected::Unit, visitor),
            CellValue::Boolean(value) => RowMismatch::invalid_type(Unexpected::Bool(*value), visitor),
            CellValue::Integer(value) => RowMismatch::invalid_type(Unexpected::Signed(*value), visitor),
            CellValue::Real(value) => RowMismatch::invalid_type(Unexpected::Float(*value), visitor),
            CellValue::Text(text) => RowMismatch::invalid_type(Unexpected::Str(text), visitor),
            CellValue::Blob(bytes) => RowMismatch::invalid_type(Unexpected::Bytes(bytes), visitor),
        }
    }

    /// The value as it is.
    fn visit_value<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        match self.value {
            CellValue::Null => visitor.visit_unit(),
            CellValue::Boolean(value) => visitor.visit_bool(value),
            CellValue::Integer(value) => visitor.visit_i64(value),
            CellValue::Real(value) => visitor.visit_f64(value),
            CellValue::Text(Cow::Borrowed(text)) => visitor.visit_str(text),
            CellValue::Text(Cow::Owned(text)) => visitor.visit_string(text),
            CellValue::Blob(Cow::Borrowed(bytes)) => visitor.visit_bytes(bytes),
            CellValue::Blob(Cow::Owned(bytes)) => visitor.visit_byte_buf(bytes),
        }
    }

    /// Text, read as JSON by `read`. Any other value does not fit.
    fn visit_json<'de, V: Visitor<'de>>(self, visitor: V, read: JsonReader) -> Result<V::Value, RowMismatch> {
        match &self.value {
            CellValue::Text(text) => read_json(text, visitor, read),
            _ => Err(self.invalid_type(&visitor)),
        }
    }
}

/// What the field asks the JSON text for.
#[derive(Debug, Clone, Copy)]
enum JsonReader {
    Any,
    List,
    Object,
}

fn read_json<'de, V: Visitor<'de>>(text: &str, visitor: V, read: JsonReader) -> Result<V::Value, RowMismatch> {
    let not_json = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => RowMismatch::custom(error),
            _ => RowMismatch::new(format!("expected JSON, found text that is not, at line {line}, column {column}")),
        }
    };
    // An owned value: the visitor may not borrow from the text, which ends with this function.
    let value: serde_json::Value = serde_json::from_str(text).map_err(not_json)?;
    match read {
        JsonReader::Any => value.deserialize_any(visitor),
        JsonReader::List => value.deserialize_seq(visitor),
        JsonReader::Object => value.deserialize_map(visitor),
    }
    .map_err(not_json)
}

fn is_json_container(text: &str) -> bool {
    matches!(text.trim_ascii_start().as_bytes().first(), Some(b'{' | b'['))
}

/// Numbers of one kind; the visitor checks the range.
macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
            match self.value {
                CellValue::Integer(value) => visitor.visit_i64(value),
                _ => Err(self.invalid_type(&visitor)),
            }
        }
    )*};
}

macro_rules! floats {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
            match self.value {
                CellValue::Real(value) => visitor.visit_f64(value),
                CellValue::Integer(value) => visitor.visit_i64(value),
                _ => Err(self.invalid_type(&visitor)),
            }
        }
    )*};
}

/// Text, or bytes: some types (as `Uuid`) read both.
macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
            match self.value {
                CellValue::Text(_) | CellValue::Blob(_) => self.visit_value(visitor),
                _ => Err(self.invalid_type(&visitor)),
            }
        }
    )*};
}

impl<'de, 'a: 'de> Deserializer<'de> for Cell<'a> {
    type Error = RowMismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        match &self.value {
            CellValue::Text(text) if self.text == TextReading::JsonInside && is_json_container(text) => {
                self.visit_json(visitor, JsonReader::Any)
            }
            _ => self.visit_value(visitor),
        }
    }

    /// SQLite keeps booleans as 0 and 1.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        match self.value {
            CellValue::Boolean(value) => visitor.visit_bool(value),
            CellValue::Integer(value @ (0 | 1)) => visitor.visit_bool(value == 1),
            _ => Err(self.invalid_type(&visitor)),
        }
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_u128
    }

    floats! { deserialize_f32 deserialize_f64 }

    texts! { deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        match self.value {
            CellValue::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        match self.value {
            CellValue::Null => visitor.visit_unit(),
            _ => Err(self.invalid_type(&visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        if name != JSON_NAME {
            return visitor.visit_newtype_struct(self);
        }
        match &self.value {
            CellValue::Text(text) => {
                let value: serde_json::Value = serde_json::from_str(text).map_err(RowMismatch::custom)?;
                visitor.visit_newtype_struct(value).map_err(RowMismatch::custom)
            }
            _ => Err(self.invalid_type(&visitor)),
        }
    }

    /// A list of numbers for bytes, otherwise a list in JSON.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        match self.value {
            CellValue::Blob(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_owned().into_iter())),
            _ => self.visit_json(visitor, JsonReader::List),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, RowMismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        self.visit_json(visitor, JsonReader::Object)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        self.visit_json(visitor, JsonReader::Any)
    }

    /// A variant without data by its name; any other variant in JSON.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        match self.value {
            CellValue::Text(text) if is_json_container(&text) => {
                let value: serde_json::Value = serde_json::from_str(&text).map_err(RowMismatch::custom)?;
                value.deserialize_enum(name, variants, visitor).map_err(RowMismatch::custom)
            }
            CellValue::Text(text) => {
                let variant: StringDeserializer<RowMismatch> = text.into_owned().into_deserializer();
                variant.deserialize_enum(name, variants, visitor)
            }
            _ => Err(self.invalid_type(&visitor)),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_unit()
    }
}
