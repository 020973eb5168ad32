//! Rows as the application's own types: [`TypedQuery`], made by `query_as`, and [`TypedStream`], made by `stream_as`.
//!
//! `row.rs` reads a row as a type, by the names of its columns; `cell.rs` reads one value; `mismatch.rs` says which column
//! does not fit.

mod cell;
mod mismatch;
mod row;
mod stream;

use std::marker::PhantomData;
use std::pin::Pin;

use serde::de::DeserializeOwned;
use tenant_engine::Rows;

use crate::error::{Error, ErrorKind, Result};

pub use mismatch::RowMismatch;
pub use stream::TypedStream;

/// A statement whose rows are read as `T`. Nothing runs before a `fetch` method is called.
///
/// A struct takes each field from the column with its name. A tuple takes the columns in order. A single value, as
/// `i64`, takes the only column. Columns without a field are ignored.
#[must_use = "nothing runs before a fetch method is called"]
pub struct TypedQuery<'a, T> {
    rows: Pin<Box<dyn Future<Output = Result<Rows>> + Send + 'a>>,
    row: PhantomData<fn() -> T>,
}

impl<'a, T: DeserializeOwned> TypedQuery<'a, T> {
    pub(crate) fn new(rows: impl Future<Output = Result<Rows>> + Send + 'a) -> Self {
        Self { rows: Box::pin(rows), row: PhantomData }
    }

    /// Every row, in the order of the answer.
    ///
    /// # Errors
    /// Those of the statement; [`ErrorKind::RowMismatch`] when a row cannot be read as `T`.
    pub async fn fetch_all(self) -> Result<Vec<T>> {
        let rows = self.rows.await?;
        Ok(row::read_rows(rows, usize::MAX)?)
    }

    /// The first row. `None` if there is none; further rows are ignored.
    ///
    /// # Errors
    /// As [`TypedQuery::fetch_all`].
    pub async fn fetch_optional(self) -> Result<Option<T>> {
        let rows = self.rows.await?;
        Ok(row::read_rows(rows, 1)?.pop())
    }

    /// The first row. Further rows are ignored.
    ///
    /// # Errors
    /// As [`TypedQuery::fetch_all`]; [`ErrorKind::RowNotFound`] when there is no row.
    pub async fn fetch_one(self) -> Result<T> {
        self.fetch_optional().await?.ok_or_else(|| ErrorKind::RowNotFound.into())
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
