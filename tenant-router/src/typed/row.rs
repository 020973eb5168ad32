//! Reads a row as a type: a struct or map by the names of the columns, a tuple by their order, one value from the only
//! column.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use tenant_engine::{Rows, SqlValue};

use super::cell::{Cell, TextReading};
use super::mismatch::RowMismatch;

/// Reads up to `rows_max` rows.
pub(super) fn read_rows<T: DeserializeOwned>(rows: Rows, rows_max: usize) -> Result<Vec<T>, RowMismatch> {
    let Rows { columns, rows, .. } = rows;
    rows.into_iter().take(rows_max).map(|values| read_row(&columns, values)).collect()
}

/// Reads one row with these columns.
pub(super) fn read_row<T: DeserializeOwned>(columns: &[String], values: Vec<SqlValue>) -> Result<T, RowMismatch> {
    T::deserialize(Row { columns, values })
}

/// One row with the names of its columns.
struct Row<'a> {
    columns: &'a [String],
    values: Vec<SqlValue>,
}

impl<'a> Row<'a> {
    fn into_cells(self, text: TextReading) -> RowCells<'a> {
        RowCells { columns: self.columns.iter(), values: self.values.into_iter(), text, current: None }
    }

    /// Reads the only column.
    fn read_only_cell<T>(self, read: impl FnOnce(Cell<'a>) -> Result<T, RowMismatch>) -> Result<T, RowMismatch> {
        match (self.columns, <[SqlValue; 1]>::try_from(self.values)) {
            ([column], Ok([value])) => read(Cell { column, value, text: TextReading::Plain }),
            (columns, _) => {
                let count = columns.len();
                Err(RowMismatch::new(format!("expected one column, found {count}: read them as a struct or a tuple")))
            }
        }
    }
}

/// The cells of a row, as a map from the column's name to the value, and as a sequence.
struct RowCells<'a> {
    columns: std::slice::Iter<'a, String>,
    values: std::vec::IntoIter<SqlValue>,
    text: TextReading,
    /// The column whose name was read last.
    current: Option<&'a String>,
}

impl<'a> RowCells<'a> {
    fn next_cell(&mut self, column: &'a str) -> Option<Cell<'a>> {
        self.values.next().map(|value| Cell { column, value, text: self.text })
    }
}

impl<'de, 'a: 'de> MapAccess<'de> for RowCells<'a> {
    type Error = RowMismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, RowMismatch> {
        self.current = self.columns.next();
        let Some(column) = self.current else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(column)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, RowMismatch> {
        let column = self.current.map_or("", String::as_str);
        let cell = self.next_cell(column).ok_or_else(|| RowMismatch::new("a row has fewer values than columns"))?;
        cell.read_with_seed(seed)
    }
}

impl<'de, 'a: 'de> SeqAccess<'de> for RowCells<'a> {
    type Error = RowMismatch;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, RowMismatch> {
        let Some(column) = self.columns.next() else { return Ok(None) };
        self.next_cell(column).map(|cell| cell.read_with_seed(seed)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

/// One value in the only column of the row.
macro_rules! only_cell {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
            self.read_only_cell(|cell| cell.named(|cell| cell.$method(visitor)))
        }
    )*};
}

impl<'de, 'a: 'de> Deserializer<'de> for Row<'a> {
    type Error = RowMismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_map(self.into_cells(TextReading::Plain))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_map(self.into_cells(TextReading::Plain))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        visitor.visit_map(self.into_cells(TextReading::JsonInside))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_seq(self.into_cells(TextReading::JsonInside))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, RowMismatch> {
        if self.columns.len() != length {
            let found = self.columns.len();
            return Err(RowMismatch::new(format!("expected a tuple of {length} columns, found {found} columns")));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        self.deserialize_tuple(length, visitor)
    }

    /// `None` for NULL in the only column; a row of several columns is always present.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        match self.values.as_slice() {
            [SqlValue::Null] => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        if name == crate::json::JSON_NAME {
            return self.read_only_cell(|cell| cell.named(|cell| cell.deserialize_newtype_struct(name, visitor)));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        self.read_only_cell(|cell| cell.named(|cell| cell.deserialize_enum(name, variants, visitor)))
    }

    only_cell! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_identifier
    }
}
