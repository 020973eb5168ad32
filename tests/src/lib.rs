//! What the whole-system tests share. The tests themselves are one binary, `tests/it`: a module per subject.

mod api;
mod fleet;
pub mod history;
pub mod invariants;
pub mod postgres;
mod program;
mod served;
mod small_disk;

pub use api::{Answer, Api};
pub use fleet::{Fleet, example_migrations, set_catalog};
pub use program::{fleetctl, workspace_root};
pub use served::Served;
pub use small_disk::SmallDisk;
