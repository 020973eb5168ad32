//! Rows and fingerprints through the router, with the credentials of the test's own tenants.

use async_trait::async_trait;
use tenant_router::{RequestView, Router, SqlValue, Tenant, Write};

use super::tables::{Column, ColumnKind, Table, read_tables};
use crate::canary::Canaries;
use crate::databases::TenantDatabases;
use crate::error::{KitError, Result};
use crate::world::Side;

/// How many rows A and B get in each table. B has keys that A does not have.
const FIRST_ROWS: i64 = 3;
const SECOND_ROWS: i64 = 5;

/// The databases of two tenants of a fleet.
pub struct FleetDatabases {
    router: Router,
    prefix: String,
    tenants: [(String, String); 2],
}

impl FleetDatabases {
    /// The databases of these tenants, A first: name and token. `prefix` is the path before a tenant's name, as the router
    /// is set: `/t/` by default. The tokens need the role writer.
    #[must_use]
    pub fn new(router: Router, prefix: &str, tenants: [(String, String); 2]) -> Self {
        Self { router, prefix: prefix.to_owned(), tenants }
    }

    async fn open(&self, side: Side) -> Result<Tenant<Write>> {
        let (name, token) = &self.tenants[usize::from(side == Side::Second)];
        let path = format!("{}{name}", self.prefix);
        let request = RequestView { path: &path, credential: Some(token), ..RequestView::default() };
        self.router.open(&request).await.map_err(|error| failed("planting_failed", &error))
    }
}

fn failed(code: &'static str, cause: &dyn std::fmt::Display) -> KitError {
    KitError::new(code, cause.to_string())
}

#[async_trait]
impl TenantDatabases for FleetDatabases {
    async fn plant_rows(&self, side: Side, canaries: &Canaries) -> Result<Vec<String>> {
        let tenant = self.open(side).await?;
        let tables = read_tables(&tenant).await.map_err(|error| failed("planting_failed", &error))?;
        let count = if side == Side::First { FIRST_ROWS } else { SECOND_ROWS };
        let mut planted = Vec::new();
        for table in &tables {
            for row in 1..=count {
                let columns: Vec<&Column> = table.columns.iter().filter(|column| is_planted(column)).collect();
                let values = columns.iter().map(|column| value_of(table, column, row, side, canaries));
                // A table may allow fewer rows, or only certain values. Its other rows come through the application.
                if tenant.execute(&insert_of(table, &columns), values.collect::<Vec<_>>()).await.is_ok() {
                    let texts = columns.iter().filter(|column| column.kind == ColumnKind::Text && !column.is_key);
                    planted.extend(texts.map(|column| format!("{}.{}", table.name, column.name)));
                }
            }
        }
        planted.sort();
        planted.dedup();
        Ok(planted)
    }

    async fn fingerprint(&self, side: Side) -> Result<String> {
        let tenant = self.open(side).await?;
        let tables = read_tables(&tenant).await.map_err(|error| failed("fingerprint_failed", &error))?;
        let mut hash = blake3::Hasher::new();
        for table in tables {
            let sql = format!("select * from {}", quoted(&table.name));
            let rows = tenant.query(&sql, ()).await.map_err(|error| failed("fingerprint_failed", &error))?;
            let mut lines: Vec<String> = rows.rows.iter().map(|row| format!("{row:?}")).collect();
            lines.sort();
            hash.update(table.name.as_bytes());
            for line in &lines {
                hash.update(line.as_bytes());
            }
        }
        Ok(hash.finalize().to_hex().to_string())
    }
}

/// Keys that the database numbers by itself, and columns with a default, are left to it. A text that is a time would make
/// the application's own rows unreadable.
fn is_planted(column: &Column) -> bool {
    let is_time = ["_at", "_on", "_date", "_time"].iter().any(|end| column.name.ends_with(end));
    let is_left_out = is_time && column.kind == ColumnKind::Text && !column.is_required;
    !(column.has_default || is_left_out || column.kind == ColumnKind::Other)
}

fn value_of(table: &Table, column: &Column, row: i64, side: Side, canaries: &Canaries) -> SqlValue {
    let offset = if side == Side::First { 1_100 } else { 2_200 };
    match column.kind {
        // Both tenants get the same keys. A reference finds the row with the same number.
        ColumnKind::Text if column.is_key || column.is_reference => SqlValue::Text(format!("leak-kit-{row}")),
        ColumnKind::Text => SqlValue::Text(canaries.issue(side, &format!("{}.{}", table.name, column.name))),
        ColumnKind::Integer if column.is_key || column.is_reference => SqlValue::Integer(row),
        ColumnKind::Integer => SqlValue::Integer(offset + row),
        ColumnKind::Real => SqlValue::Real((offset + row) as f64),
        ColumnKind::Bytes => {
            SqlValue::Blob(canaries.issue(side, &format!("{}.{}", table.name, column.name)).into_bytes())
        }
        ColumnKind::Other => SqlValue::Null,
    }
}

fn insert_of(table: &Table, columns: &[&Column]) -> String {
    if columns.is_empty() {
        return format!("insert into {} default values", quoted(&table.name));
    }
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let places: Vec<String> = (1..=columns.len()).map(|place| format!("${place}")).collect();
    format!("insert into {} ({}) values ({})", quoted(&table.name), names.join(", "), places.join(", "))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
