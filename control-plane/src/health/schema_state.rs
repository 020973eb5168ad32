//! The schema versions of tenants. The source is the ledger in each database if it was read, or else the catalog's
//! record. Shared by the status of migrations and the doctor.

use std::collections::BTreeMap;

use catalog::releases::{self, ReleaseRecord};
use catalog::{ReadTx, TenantRecord, fleet};
use tenant_engine::MigrationSets;

use crate::app::App;
use crate::error::{Error, Result};
use crate::operation::ledgers::{self, KnownLedgers, ReadLedgers};
use crate::plan::ledgers::LedgerStanding;

/// Maximum number of databases that are read for each answer, about a second's work. For more tenants the catalog's
/// record is used, unless the caller asks for reading.
const READ_ALWAYS: usize = 200;

/// The databases that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LedgerReadScope {
    /// All databases of a small fleet. Otherwise those whose release the catalog does not know.
    Few,
    /// All databases.
    All,
}

/// The schema versions of some tenants, in numbers.
#[derive(Debug, Default)]
pub(crate) struct SchemaState {
    /// Tenants at the head.
    pub(crate) up_to_date: u64,
    /// Tenants behind the head.
    pub(crate) behind: u64,
    /// Tenants newer than the head.
    pub(crate) ahead: u64,
    /// Tenants that have applied other texts than the release holds, or versions that it lacks.
    pub(crate) differ: u64,
    /// Tenants whose databases cannot be read.
    pub(crate) unreadable: u64,
    /// Databases that were read.
    pub(crate) read: u64,
    /// Versions of which tenants have applied different texts, in words.
    pub(crate) splits: Vec<String>,
    /// The number of tenants by newest applied version.
    pub(crate) versions: BTreeMap<Option<i64>, u64>,
}

/// Reads the ledgers of these tenants and compares them with a release.
pub(crate) async fn load_schema_state(
    app: &App,
    tenants: &[TenantRecord],
    sets: &MigrationSets,
    reading: LedgerReadScope,
) -> Result<SchemaState> {
    let none = ReadLedgers::new();
    let known = ledgers::group_ledgers(&mut app.catalog.read().await?, tenants, &none).await?;
    let read = match reading {
        LedgerReadScope::Few if tenants.len() > READ_ALWAYS => ledgers::read_ledgers(&app.context, &known.unread).await,
        LedgerReadScope::Few | LedgerReadScope::All => ledgers::read_ledgers(&app.context, tenants).await,
    };
    let known = ledgers::group_ledgers(&mut app.catalog.read().await?, tenants, &read).await?;
    let unreadable = known.unreadable + known.unread.len() as u64;
    let read = read.values().flatten().count() as u64;
    Ok(SchemaState { unreadable, read, ..compare_ledgers(&known, sets) })
}

/// PURE: compares known ledgers with a release.
fn compare_ledgers(known: &KnownLedgers, sets: &MigrationSets) -> SchemaState {
    let mut state = SchemaState { splits: known.ledgers.split_versions(sets), ..SchemaState::default() };
    for group in known.ledgers.ledger_groups() {
        let count = match group.group_standing(sets) {
            LedgerStanding::There => &mut state.up_to_date,
            LedgerStanding::Behind => &mut state.behind,
            LedgerStanding::Ahead => &mut state.ahead,
            LedgerStanding::Differs => &mut state.differ,
        };
        *count += group.tenants;
        *state.versions.entry(group.newest_version()).or_default() += group.tenants;
    }
    state
}

/// The current release and its sets. Empty before the first release.
pub(crate) async fn current_sets(tx: &mut ReadTx) -> Result<(Option<ReleaseRecord>, MigrationSets)> {
    let Some(id) = fleet::current_release(tx).await? else { return Ok((None, MigrationSets::empty_release())) };
    let record = releases::get(tx, id).await?;
    let record = record.ok_or_else(|| Error::internal(format!("the current release {id} is not in the catalog")))?;
    let sets = MigrationSets::from_files(&releases::release_files(tx, id).await?)?;
    Ok((Some(record), sets))
}
