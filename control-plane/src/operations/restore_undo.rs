//! restore undo: the one allowed return to an old placement, the database that the last restore replaced.

use serde::{Deserialize, Serialize};

/// Nothing to say: the selection names exactly one tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}
