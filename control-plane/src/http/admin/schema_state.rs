//! How far tenants are, by their databases' own ledgers where these were read, else by what the catalog recorded of
//! them. Shared by the status of migrations and by the doctor.

use std::collections::BTreeMap;

use catalog::TenantRecord;
use tenant_engine::MigrationSets;

use crate::http::Api;
use crate::http::error::Result;
use crate::operations::ledgers::{self, Known, ReadLedgers};
use crate::plan::ledgers::Standing;

/// Up to so many databases are read for each answer: a second's work. Of more tenants the catalog's record counts, unless
/// they are asked for.
const READ_ALWAYS: usize = 200;

/// Which databases are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Those of a small fleet, else those of which the catalog does not know the release.
    Few,
    /// All of them.
    All,
}

/// How far some tenants are.
#[derive(Debug, Default)]
pub(crate) struct SchemaState {
    /// At the head.
    pub(crate) up_to_date: u64,
    /// Behind it.
    pub(crate) behind: u64,
    /// Newer than it.
    pub(crate) ahead: u64,
    /// They have applied other texts than the release holds, or versions that it lacks.
    pub(crate) differ: u64,
    /// Their databases cannot be read, so it is not known.
    pub(crate) unreadable: u64,
    /// Databases that were read.
    pub(crate) read: u64,
    /// Versions of which tenants have applied different texts.
    pub(crate) splits: Vec<String>,
    /// By the newest applied version.
    pub(crate) versions: BTreeMap<Option<i64>, u64>,
}

/// Looks at these tenants and compares them with a release.
pub(crate) async fn look(
    api: &Api,
    tenants: &[TenantRecord],
    sets: &MigrationSets,
    reading: Reading,
) -> Result<SchemaState> {
    let none = ReadLedgers::new();
    let known = ledgers::known(&mut api.app.catalog.read().await?, tenants, &none).await?;
    let read = match reading {
        Reading::Few if tenants.len() > READ_ALWAYS => ledgers::read(&api.app.fleet, &known.unread).await,
        Reading::Few | Reading::All => ledgers::read(&api.app.fleet, tenants).await,
    };
    let known = ledgers::known(&mut api.app.catalog.read().await?, tenants, &read).await?;
    let unreadable = known.unreadable + known.unread.len() as u64;
    let read = read.values().flatten().count() as u64;
    Ok(SchemaState { unreadable, read, ..compare(&known, sets) })
}

/// PURE: what is known, against a release.
fn compare(known: &Known, sets: &MigrationSets) -> SchemaState {
    let mut state = SchemaState { splits: known.ledgers.splits(sets), ..SchemaState::default() };
    for group in known.ledgers.groups() {
        let count = match group.standing(sets) {
            Standing::There => &mut state.up_to_date,
            Standing::Behind => &mut state.behind,
            Standing::Ahead => &mut state.ahead,
            Standing::Differs => &mut state.differ,
        };
        *count += group.tenants;
        *state.versions.entry(group.version()).or_default() += group.tenants;
    }
    state
}
