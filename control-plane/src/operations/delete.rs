//! delete: a final verified backup, a tombstone, and a date after which nothing is left.

use serde::{Deserialize, Serialize};

/// Nothing to say: the selection says which tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}
