//! The end of a database that was kept.

use catalog::retained::RetainedRecord;
use tenant_engine::{Depth, ErrorKind, Expected, IdentityState};

use super::{Fleet, swap};
use crate::error::{Error, Result};

/// Drops a database that was kept and whose time is over; one that is gone already is no error.
///
/// # Errors
/// `fenced`: it serves, by all that it says itself. A catalog that was set back to an earlier moment may keep what has
/// come back since.
pub(crate) async fn drop_kept(fleet: &Fleet, record: &RetainedRecord) -> Result<()> {
    let (engine, at) = fleet.at(record.server_id, &record.placement).await?;
    let expected = match engine.inspect(&at, None, Depth::Ledger).await {
        Ok(found) => {
            let found = found.identity;
            require_unserved(record, found.state, found.generation.0)?;
            Some(Expected {
                tenant: found.tenant,
                fleet: found.fleet,
                generation: found.generation,
                states: vec![found.state],
            })
        }
        // Gone, damaged or never filled, without an identity: nobody is served by it.
        Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Corrupt | ErrorKind::WrongTenant) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(engine.drop_database(&at, expected.as_ref()).await?)
}

/// What is kept was stamped out of service, or never got there; only what came back has a later generation.
fn require_unserved(record: &RetainedRecord, state: IdentityState, generation: i64) -> Result<()> {
    // One that was taken for damaged may be further than the catalog was.
    let serves = matches!(state, IdentityState::Active | IdentityState::Frozen) || record.reason == swap::DAMAGED;
    if !serves || generation <= record.generation.0 {
        return Ok(());
    }
    let detail = format!("the kept database {} is {state} at generation {generation}", record.placement);
    Err(Error::new(409, "fenced", detail).try_next("fleetctl scrub"))
}
