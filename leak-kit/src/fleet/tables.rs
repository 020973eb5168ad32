//! The tables and columns of a tenant's database, on both engines.

use tenant_router::{Result, SqlValue, Tenant, Write};

/// A table of the application.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
}

/// A column, as far as planting needs it.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: ColumnKind,
    pub(super) is_required: bool,
    /// The database fills the column by itself: a default, an identity or a generated value.
    pub(super) has_default: bool,
    pub(super) is_key: bool,
    pub(super) is_reference: bool,
}

/// Which values a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Text,
    Integer,
    Real,
    Bytes,
    /// Times, JSON and others: the application fills them.
    Other,
}

/// Columns of all tables: table, column, type, required, default, key, reference. Tables without references come first.
const SQLITE_COLUMNS: &str = "select t.name, c.name, lower(c.type), c.\"notnull\", \
    (c.dflt_value is not null or c.hidden <> 0 or (c.pk = 1 and lower(c.type) = 'integer')), c.pk > 0, \
    exists (select 1 from pragma_foreign_key_list(t.name) f where f.\"from\" = c.name) \
    from pragma_table_list t, pragma_table_xinfo(t.name) c \
    where t.schema = 'main' and t.type = 'table' and t.name not like 'sqlite\\_%' escape '\\' \
    and t.name not like '\\_fleet\\_%' escape '\\' and t.name not like '\\_sqlx\\_%' escape '\\' \
    order by exists (select 1 from pragma_foreign_key_list(t.name)), t.name, c.cid";
const POSTGRES_COLUMNS: &str = "select t.relname::text, a.attname::text, format_type(a.atttypid, null), a.attnotnull, \
    (a.atthasdef or a.attidentity <> '' or a.attgenerated <> ''), \
    exists (select 1 from pg_constraint k where k.conrelid = t.oid and k.contype = 'p' and a.attnum = any (k.conkey)), \
    exists (select 1 from pg_constraint k where k.conrelid = t.oid and k.contype = 'f' and a.attnum = any (k.conkey)) \
    from pg_class t join pg_attribute a on a.attrelid = t.oid join pg_namespace n on n.oid = t.relnamespace \
    where t.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped and n.nspname = 'public' \
    and t.relname not like '\\_sqlx\\_%' and t.relname not like '\\_fleet\\_%' \
    order by exists (select 1 from pg_constraint k where k.conrelid = t.oid and k.contype = 'f'), t.relname, a.attnum";

/// The application's own tables.
pub(super) async fn read_tables(tenant: &Tenant<Write>) -> Result<Vec<Table>> {
    // Only SQLite has this function.
    let is_sqlite = tenant.query("select sqlite_version()", ()).await.is_ok();
    let rows = tenant.query(if is_sqlite { SQLITE_COLUMNS } else { POSTGRES_COLUMNS }, ()).await?;
    let mut tables: Vec<Table> = Vec::new();
    for row in &rows.rows {
        let [name, column, kind, required, default, key, reference] = row.as_slice() else { continue };
        let name = text_of(name);
        let column = Column {
            name: text_of(column),
            kind: kind_of(&text_of(kind)),
            is_required: is_true(required),
            has_default: is_true(default),
            is_key: is_true(key),
            is_reference: is_true(reference),
        };
        match tables.last_mut().filter(|table| table.name == name) {
            Some(table) => table.columns.push(column),
            None => tables.push(Table { name, columns: vec![column] }),
        }
    }
    Ok(tables)
}

fn text_of(value: &SqlValue) -> String {
    match value {
        SqlValue::Text(text) => text.to_string(),
        _ => String::new(),
    }
}

fn is_true(value: &SqlValue) -> bool {
    matches!(value, SqlValue::Boolean(true)) || matches!(value, SqlValue::Integer(number) if *number != 0)
}

fn kind_of(name: &str) -> ColumnKind {
    let begins = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
    match () {
        () if begins(&["text", "varchar", "character", "char", "clob", "citext"]) => ColumnKind::Text,
        () if begins(&["int", "bigint", "smallint"]) => ColumnKind::Integer,
        () if begins(&["real", "double", "float"]) => ColumnKind::Real,
        () if begins(&["blob", "bytea"]) => ColumnKind::Bytes,
        () => ColumnKind::Other,
    }
}
