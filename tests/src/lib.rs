//! What the whole-system tests share. The tests themselves are one binary, `tests/it`: a module per subject.

mod program;
mod served;

pub use program::{fleetctl, workspace_root};
pub use served::Served;
