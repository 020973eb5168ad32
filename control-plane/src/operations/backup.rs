//! backup: a picture of each tenant in the backup store, its manifest written last.

use serde::{Deserialize, Serialize};

/// Nothing to say yet: the selection says which tenants, the submission says why.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {}
