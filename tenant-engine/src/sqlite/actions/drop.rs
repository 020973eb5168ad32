//! Implements [`crate::Engine::drop_database`]: removes the file, the files beside it, and the tenant's directory if it
//! is then empty.

use crate::error::Result;
use crate::identity::ExpectedIdentity;
use crate::placement::Placement;
use crate::sqlite::SqliteEngine;
use crate::sqlite::storage::files::{self, FilePresence};
use crate::sqlite::storage::open::{FileSharing, open_database};
use crate::sqlite::storage::shared_state::FlushNeed;

/// See [`crate::Engine::drop_database`].
pub(in crate::sqlite) async fn drop_database(
    engine: &SqliteEngine,
    at: &Placement,
    expected: Option<&ExpectedIdentity>,
) -> Result<()> {
    let expected = expected.cloned();
    engine.run_durably(at, move |at| remove_database(at, expected.as_ref())).await
}

fn remove_database(at: &Placement, expected: Option<&ExpectedIdentity>) -> Result<((), FlushNeed)> {
    if let Some(expected) = expected
        && files::inspect_path(&at.file_path())? == FilePresence::File
    {
        open_database(at, FileSharing::Shared)?.read_transaction(Some(expected), |_, _| Ok(()))?;
    }
    files::remove_files(&at.file_path())?;
    Ok(((), FlushNeed::Needed))
}
