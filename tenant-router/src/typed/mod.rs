//! Rows as the application's own types: [`TypedQuery`], made by `query_as`, and [`TypedStream`], made by `stream_as`.
//!
//! `row.rs` reads a row as a type, by the names of its columns; `cell.rs` reads one value; `mismatch.rs` says which column
//! does not fit.

mod cell;
mod mismatch;
mod row;
mod stream;

use std::pin::Pin;

use serde::de::DeserializeOwned;
use tenant_engine::{RowCells, RowReader, Rows};

use crate::error::{Error, ErrorKind, Result};

pub use mismatch::RowMismatch;
pub use stream::TypedStream;

/// A statement whose rows are read as `T`. Nothing runs before a `fetch` method is called.
///
/// A struct takes each field from the column with its name. A tuple takes the columns in order. A single value, as
/// `i64`, takes the only column. Columns without a field are ignored.
#[must_use = "nothing runs before a fetch method is called"]
pub struct TypedQuery<'a, T> {
    /// Runs the statement, and returns at most so many rows.
    fetch: Box<dyn FnOnce(usize) -> FetchedRows<'a, T> + Send + 'a>,
}

type FetchedRows<'a, T> = Pin<Box<dyn Future<Output = Result<Vec<T>>> + Send + 'a>>;

impl<'a, T: DeserializeOwned> TypedQuery<'a, T> {
    /// A statement whose whole answer is read afterwards.
    pub(crate) fn new(rows: impl Future<Output = Result<Rows>> + Send + 'a) -> Self {
        Self { fetch: Box::new(|rows_max| Box::pin(async move { Ok(row::read_rows(rows.await?, rows_max)?) })) }
    }

    /// A statement that reads at most so many rows itself.
    pub(crate) fn from_fetch<F>(fetch: impl FnOnce(usize) -> F + Send + 'a) -> Self
    where
        F: Future<Output = Result<Vec<T>>> + Send + 'a,
    {
        Self { fetch: Box::new(|rows_max| Box::pin(fetch(rows_max))) }
    }

    /// Every row, in the order of the answer.
    ///
    /// # Errors
    /// Those of the statement; [`ErrorKind::RowMismatch`] when a row cannot be read as `T`.
    pub async fn fetch_all(self) -> Result<Vec<T>> {
        (self.fetch)(usize::MAX).await
    }

    /// The first row. `None` if there is none; further rows are ignored.
    ///
    /// # Errors
    /// As [`TypedQuery::fetch_all`].
    pub async fn fetch_optional(self) -> Result<Option<T>> {
        Ok((self.fetch)(1).await?.pop())
    }

    /// The first row. Further rows are ignored.
    ///
    /// # Errors
    /// As [`TypedQuery::fetch_all`]; [`ErrorKind::RowNotFound`] when there is no row.
    pub async fn fetch_one(self) -> Result<T> {
        self.fetch_optional().await?.ok_or_else(|| ErrorKind::RowNotFound.into())
    }
}

/// Collects rows as `T`, on the thread that reads them.
pub(crate) struct TypedRows<T> {
    rows: Result<Vec<T>, RowMismatch>,
    rows_max: usize,
}

impl<T> TypedRows<T> {
    /// An empty collection of at most so many rows. Further rows are ignored.
    pub(crate) fn new(rows_max: usize) -> Self {
        Self { rows: Ok(Vec::new()), rows_max }
    }

    pub(crate) fn into_rows(self) -> Result<Vec<T>> {
        Ok(self.rows?)
    }
}

impl<T: DeserializeOwned + Send + 'static> RowReader for TypedRows<T> {
    fn read_row<'a>(&mut self, columns: &'a [String], cells: &mut impl RowCells<'a>) {
        let Ok(rows) = &mut self.rows else { return };
        if rows.len() < self.rows_max {
            match row::read_row(columns, cells) {
                Ok(row) => rows.push(row),
                Err(mismatch) => self.rows = Err(mismatch),
            }
        }
    }
}

impl<T> std::fmt::Debug for TypedQuery<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TypedQuery").field("row", &std::any::type_name::<T>()).finish_non_exhaustive()
    }
}

impl From<RowMismatch> for Error {
    fn from(mismatch: RowMismatch) -> Self {
        Self::new(ErrorKind::RowMismatch).with_source(mismatch)
    }
}
