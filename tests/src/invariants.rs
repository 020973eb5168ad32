//! What must hold whenever no operation is running, read from the files themselves and not through the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

/// One tenant as the catalog tells it.
#[derive(Debug, Clone)]
pub struct CatalogTenant {
    /// `tnt_…`
    pub id: String,
    /// The slug.
    pub name: String,
    /// The state's text.
    pub state: String,
    /// The generation its database must carry.
    pub generation: i64,
    /// The file of its database.
    pub file: Option<PathBuf>,
}

/// Reads the tenants from the catalog file below `dir`.
///
/// # Panics
/// When the catalog cannot be read.
#[must_use]
pub fn tenants(dir: &Path) -> Vec<CatalogTenant> {
    let catalog = open(&dir.join("fleet-data/catalog.db"));
    let mut query = catalog
        .prepare(
            "select t.id, t.name, t.state, t.generation, s.base, t.placement from tenants t join servers s on s.id = t.server_id order by t.id",
        )
        .expect("the catalog has tenants");
    let rows = query.query_map([], |row| {
        let (base, placement): (String, Option<String>) = (row.get(4)?, row.get(5)?);
        Ok(CatalogTenant {
            id: row.get(0)?,
            name: row.get(1)?,
            state: row.get(2)?,
            generation: row.get(3)?,
            file: placement.map(|p| dir.join("fleet-data").join(&base).join(p)),
        })
    });
    rows.expect("the catalog answers").map(|row| row.expect("a tenant's row is readable")).collect()
}

/// Opens a database of the fleet for looking at it.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn open(file: &Path) -> Connection {
    Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Checks the whole fleet below `dir`.
///
/// # Panics
/// When an invariant does not hold, naming it.
pub fn check(dir: &Path) {
    let found = tenants(dir);
    let mut owners: BTreeMap<PathBuf, String> = BTreeMap::new();
    for tenant in &found {
        assert_ne!(tenant.state, "provisioning", "{} never became anything (I7)", tenant.name);
        if let Some(file) = &tenant.file {
            if let Some(other) = owners.insert(file.clone(), tenant.id.clone()) {
                panic!("{other} and {} share {} (I3)", tenant.id, file.display());
            }
            check_identity(tenant, file);
        }
    }
    check_orphans(dir, owners.into_keys().collect());
    check_steps(dir);
}

/// I1: the database that the catalog names says that it is the one.
fn check_identity(tenant: &CatalogTenant, file: &Path) {
    let database = open(file);
    let (id, generation, state): (String, i64, String) = database
        .query_row("select tenant_id, generation, state from _fleet_identity", [], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?))
        })
        .unwrap_or_else(|e| panic!("{}: no identity: {e}", file.display()));
    let expected = if tenant.state == "active" { "active" } else { "tombstone" };
    assert_eq!(
        (id, generation, state.as_str()),
        (tenant.id.clone(), tenant.generation, expected),
        "{} (I1)",
        tenant.name
    );
    let check: String = database.query_row("pragma quick_check", [], |r| r.get(0)).expect("quick_check answers");
    assert_eq!(check, "ok", "{}", file.display());
}

/// I6: every database found is somebody's current one or kept with a date.
fn check_orphans(dir: &Path, mut known: BTreeSet<PathBuf>) {
    let catalog = open(&dir.join("fleet-data/catalog.db"));
    let mut query = catalog
        .prepare("select s.base, r.placement from retained r join servers s on s.id = r.server_id")
        .expect("the catalog has retained databases");
    let kept = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    known.extend(
        kept.expect("the catalog answers")
            .map(|r| r.expect("readable"))
            .map(|(b, p)| dir.join("fleet-data").join(&b).join(p)),
    );
    let folders = std::fs::read_dir(dir.join("fleet-data/tenants")).expect("the root is there").map_while(Result::ok);
    // The marker and the reserve are the directory's own.
    for tenant in folders.filter(|folder| !folder.file_name().to_string_lossy().starts_with('.')) {
        for file in std::fs::read_dir(tenant.path()).expect("a tenant's folder").map_while(Result::ok) {
            let main = file.path().to_string_lossy().trim_end_matches("-wal").trim_end_matches("-shm").to_owned();
            assert!(known.contains(Path::new(&main)), "{} belongs to nobody (I6)", file.path().display());
        }
    }
}

/// Nothing is held or half-done any more.
fn check_steps(dir: &Path) {
    let catalog = open(&dir.join("fleet-data/catalog.db"));
    let open: i64 = catalog
        .query_row("select count(*) from steps where state in ('pending', 'running')", [], |r| r.get(0))
        .expect("the catalog has steps");
    assert_eq!(open, 0, "steps are still open");
    let held: i64 = catalog
        .query_row("select count(*) from tenants where op_id is not null", [], |r| r.get(0))
        .expect("the catalog has tenants");
    assert_eq!(held, 0, "tenants are still held by an operation");
}
