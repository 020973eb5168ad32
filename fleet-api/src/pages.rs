//! Pages of lists.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PageOf<T> {
    /// Items of the page, in the list's order.
    pub items: Vec<T>,
    /// Cursor of the next page, to be sent as `cursor`. Null on the last page.
    pub next_cursor: Option<String>,
}
