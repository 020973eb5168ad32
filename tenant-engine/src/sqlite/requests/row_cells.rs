//! Gives the rows of a statement to a [`RowReader`]. Each cell is counted against the limits when it is taken.

use std::borrow::Cow;

use rusqlite::types::ValueRef;
use rusqlite::{Row, Rows};

use super::statement::{bytes_max_exceeded, column_names, heap_bytes, rows_max_exceeded, size_bytes};
use crate::answers::AnswerHold;
use crate::error::{Error, Result};
use crate::row_reader::{CellValue, RowCells, RowReader};
use crate::sqlite::error::from_sqlite;
use crate::statement::SessionLimits;

/// Reads all rows.
///
/// # Errors
/// SQLite's, and those of the limits.
pub(super) fn read_rows(
    mut rows: Rows<'_>,
    limits: &SessionLimits,
    mut hold: AnswerHold,
    reader: &mut impl RowReader,
) -> Result<()> {
    let (mut columns, mut count, mut bytes) = (None, 0, 0);
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        count += 1;
        if count > limits.rows_max {
            return Err(rows_max_exceeded(limits.rows_max));
        }
        hold.count_row()?;
        // Named after the first step: after a schema change, SQLite prepares `select *` again there.
        let columns = columns.get_or_insert_with(|| column_names(row.as_ref()));
        let cells = SqliteRowCells { row, next: 0, count: columns.len(), bytes, limits, hold: &mut hold, error: None };
        bytes = cells.give_to(columns, reader)?;
    }
    Ok(())
}

/// The cells of the current row.
struct SqliteRowCells<'a> {
    row: &'a Row<'a>,
    next: usize,
    count: usize,
    /// Bytes of the answer so far.
    bytes: usize,
    limits: &'a SessionLimits,
    hold: &'a mut AnswerHold,
    /// The limit that ended the row.
    error: Option<Error>,
}

impl<'a> SqliteRowCells<'a> {
    /// Returns the bytes of the answer so far.
    fn give_to(mut self, columns: &'a [String], reader: &mut impl RowReader) -> Result<usize> {
        reader.read_row(columns, &mut self);
        self.error.map_or(Ok(self.bytes), Err)
    }

    fn take_cell(&mut self) -> Result<ValueRef<'a>> {
        let cell = self.row.get_ref(self.next).map_err(from_sqlite)?;
        self.next += 1;
        self.bytes += size_bytes(cell);
        if self.bytes > self.limits.bytes_max {
            return Err(bytes_max_exceeded(self.limits.bytes_max));
        }
        self.hold.count_cell(heap_bytes(cell))?;
        Ok(cell)
    }
}

impl<'a> RowCells<'a> for SqliteRowCells<'a> {
    fn next_cell(&mut self) -> Option<CellValue<'a>> {
        if self.cells_left() == 0 || self.error.is_some() {
            return None;
        }
        match self.take_cell() {
            Ok(cell) => Some(cell_value(cell)),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    fn cells_left(&self) -> usize {
        self.count - self.next
    }

    fn next_is_null(&self) -> bool {
        self.row.get_ref(self.next).is_ok_and(|cell| cell == ValueRef::Null)
    }
}

fn cell_value(cell: ValueRef<'_>) -> CellValue<'_> {
    match cell {
        ValueRef::Null => CellValue::Null,
        ValueRef::Integer(value) => CellValue::Integer(value),
        ValueRef::Real(value) => CellValue::Real(value),
        // SQLite does not check that a stored text is UTF-8. As bytes nothing is lost, and the row stays readable.
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => CellValue::Text(Cow::Borrowed(text)),
            Err(_) => CellValue::Blob(Cow::Borrowed(bytes)),
        },
        ValueRef::Blob(bytes) => CellValue::Blob(Cow::Borrowed(bytes)),
    }
}
