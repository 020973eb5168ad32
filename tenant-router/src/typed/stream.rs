//! Rows as the application's own type that arrive while the database still reads them.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use serde::de::DeserializeOwned;
use tenant_engine::RowStream;

use super::row;
use crate::error::{Error, Result};
use crate::limits::{ConnectionHold, RequestPass};
use crate::pools::OpenPool;
use crate::retry::final_error;

/// Keeps the pool open, so that the connection is returned to it. Request and connection count as long as rows are read.
type StreamHold = (Arc<OpenPool>, Option<Arc<RequestPass>>, Option<ConnectionHold>);

/// The rows of one reading statement, as `T`. It is also a [`Stream`]. Dropping it stops the statement.
///
/// An answer that ends with an error is not whole, so a caller must not use the rows before the error as if it were.
#[must_use = "the rows are read from the stream"]
pub struct TypedStream<T> {
    rows: RowStream,
    is_over: bool,
    row: PhantomData<fn() -> T>,
    _held: StreamHold,
}

impl<T: DeserializeOwned> TypedStream<T> {
    pub(crate) fn new(rows: RowStream, held: StreamHold) -> Self {
        Self { rows, is_over: false, row: PhantomData, _held: held }
    }

    /// The next row, or `None` after the last one. A caller may drop the future and call again; no row is lost.
    ///
    /// # Errors
    /// Those of the statement; [`crate::ErrorKind::RowMismatch`] when the row cannot be read as `T`. After an error there
    /// are no more rows.
    pub async fn next_row(&mut self) -> Result<Option<T>> {
        std::future::poll_fn(|context| self.poll_row(context)).await
    }

    fn poll_row(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<T>>> {
        if self.is_over {
            return Poll::Ready(Ok(None));
        }
        let next = ready!(self.rows.poll_next_row(context)).map_err(|error| final_error(error.into()));
        let read = next.and_then(|values| self.read_values(values));
        self.is_over = !matches!(read, Ok(Some(_)));
        Poll::Ready(read)
    }

    fn read_values(&self, values: Option<Vec<tenant_engine::SqlValue>>) -> Result<Option<T>> {
        let read = values.map(|values| row::read_row(self.rows.columns(), &mut values.into_iter())).transpose();
        read.map_err(Error::from)
    }
}

impl<T: DeserializeOwned> Stream for TypedStream<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        self.poll_row(context).map(Result::transpose)
    }
}

impl<T> std::fmt::Debug for TypedStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TypedStream").field("row", &std::any::type_name::<T>()).finish_non_exhaustive()
    }
}
