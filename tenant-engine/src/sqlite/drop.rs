//! The verb `drop_database`: the file, what stands beside it, and the tenant's directory when that is empty then.

use super::SqliteEngine;
use super::files::{self, Found};
use super::open::{Sharing, open};
use super::verbs::Flush;
use crate::error::Result;
use crate::identity::Expected;
use crate::placement::Placement;

/// See [`crate::Engine::drop_database`].
pub(super) async fn drop_database(engine: &SqliteEngine, at: &Placement, expected: Option<&Expected>) -> Result<()> {
    let expected = expected.cloned();
    engine.durably(at, move |at| remove(at, expected.as_ref())).await
}

fn remove(at: &Placement, expected: Option<&Expected>) -> Result<((), Flush)> {
    if let Some(expected) = expected
        && files::look(&at.path())? == Found::File
    {
        open(at, Sharing::Shared)?.read(Some(expected), |_, _| Ok(()))?;
    }
    files::remove(&at.path())?;
    Ok(((), Flush::Needed))
}
