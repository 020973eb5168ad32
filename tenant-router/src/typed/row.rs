//! Reads a row as a type: a struct or map by the names of the columns, a tuple by their order, one value from the only
//! column.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use tenant_engine::{RowCells, Rows};

use super::cell::{Cell, TextReading};
use super::mismatch::RowMismatch;

/// Reads up to `rows_max` rows.
pub(super) fn read_rows<T: DeserializeOwned>(rows: Rows, rows_max: usize) -> Result<Vec<T>, RowMismatch> {
    let Rows { columns, rows, .. } = rows;
    rows.into_iter().take(rows_max).map(|values| read_row(&columns, &mut values.into_iter())).collect()
}

/// Reads one row with these columns.
pub(super) fn read_row<'a, T: DeserializeOwned>(
    columns: &'a [String],
    cells: &mut impl RowCells<'a>,
) -> Result<T, RowMismatch> {
    T::deserialize(Row { columns, cells })
}

/// One row with the names of its columns.
struct Row<'a, 'c, C> {
    columns: &'a [String],
    cells: &'c mut C,
}

impl<'a, 'c, C: RowCells<'a>> Row<'a, 'c, C> {
    fn into_named_cells(self, text: TextReading) -> NamedCells<'a, 'c, C> {
        NamedCells { columns: self.columns.iter(), cells: self.cells, text, current: None }
    }

    /// Reads the only column.
    fn read_only_cell<T>(self, read: impl FnOnce(Cell<'a>) -> Result<T, RowMismatch>) -> Result<T, RowMismatch> {
        let [column] = self.columns else {
            let count = self.columns.len();
            return Err(RowMismatch::new(format!(
                "expected one column, found {count}: read them as a struct or a tuple"
            )));
        };
        let value = self.cells.next_cell().ok_or_else(too_few_cells)?;
        read(Cell { column, value, text: TextReading::Plain })
    }
}

/// The cells of a row, as a map from the column's name to the value, and as a sequence.
struct NamedCells<'a, 'c, C> {
    columns: std::slice::Iter<'a, String>,
    cells: &'c mut C,
    text: TextReading,
    /// The column whose name was read last.
    current: Option<&'a String>,
}

impl<'a, C: RowCells<'a>> NamedCells<'a, '_, C> {
    fn next_cell(&mut self, column: &'a str) -> Result<Cell<'a>, RowMismatch> {
        let value = self.cells.next_cell().ok_or_else(too_few_cells)?;
        Ok(Cell { column, value, text: self.text })
    }
}

fn too_few_cells() -> RowMismatch {
    RowMismatch::new("a row has fewer values than columns")
}

impl<'de, 'a: 'de, C: RowCells<'a>> MapAccess<'de> for NamedCells<'a, '_, C> {
    type Error = RowMismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, RowMismatch> {
        self.current = self.columns.next();
        let Some(column) = self.current else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(column)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, RowMismatch> {
        let column = self.current.map_or("", String::as_str);
        self.next_cell(column)?.read_with_seed(seed)
    }
}

impl<'de, 'a: 'de, C: RowCells<'a>> SeqAccess<'de> for NamedCells<'a, '_, C> {
    type Error = RowMismatch;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, RowMismatch> {
        let Some(column) = self.columns.next() else { return Ok(None) };
        self.next_cell(column)?.read_with_seed(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.cells.cells_left())
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

impl<'de, 'a: 'de, C: RowCells<'a>> Deserializer<'de> for Row<'a, '_, C> {
    type Error = RowMismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_map(self.into_named_cells(TextReading::Plain))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_map(self.into_named_cells(TextReading::Plain))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowMismatch> {
        visitor.visit_map(self.into_named_cells(TextReading::JsonInside))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowMismatch> {
        visitor.visit_seq(self.into_named_cells(TextReading::JsonInside))
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
        match self.columns.len() == 1 && self.cells.next_is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
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
