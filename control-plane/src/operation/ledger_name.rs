//! The name of the table in which a fleet's databases record their versions. Each engine has one name, fixed by the
//! first release.
//!
//! A database keeps the name that it was created with. If a later release used another name, every version would run
//! again. So such a release is refused before it is stored. The engines refuse it a second time, by what each database
//! records.

use catalog::{Catalog, ReadTx};
use tenant_engine::{EngineKind, LedgerName, MigrationSets};

use crate::error::{Error, ErrorKind, Result};

/// The ledger's name in the databases of this engine. Without a release it is the default.
///
/// # Errors
/// Those of the catalog.
pub async fn of_fleet(catalog: &Catalog, engine: EngineKind) -> Result<LedgerName> {
    Ok(catalog::releases::ledger(&mut catalog.read().await?, engine).await?.unwrap_or_default())
}

/// Refuses migration sets that name another ledger than the fleet's databases have.
///
/// # Errors
/// `ledger_name_differs`, and those of the catalog.
pub async fn require_same(tx: &mut ReadTx, sets: &MigrationSets) -> Result<()> {
    for (engine, set) in sets.iter() {
        let known = match catalog::releases::ledger(tx, engine).await? {
            None if catalog::servers::have_tenants(tx, engine).await? => Some(LedgerName::default()),
            known => known,
        };
        if let Some(known) = known.filter(|known| known != set.ledger()) {
            return Err(differs(engine, &known, set.ledger()));
        }
    }
    Ok(())
}

fn differs(engine: EngineKind, known: &LedgerName, named: &LedgerName) -> Error {
    let detail = format!(
        "the {engine} databases of this fleet keep their versions in the table {known}, but the release names {named}"
    );
    let next = match known.is_usual() {
        true => "remove table-name from [migrate] in sqlx.toml; another name needs a fleet whose first release has it"
            .to_owned(),
        false => format!("set table-name = \"{known}\" in [migrate] of sqlx.toml"),
    };
    Error::new(ErrorKind::LedgerNameDiffers, detail).try_next(next)
}
