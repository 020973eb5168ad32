//! PURE: the fleet's own tables in a tenant's database, beside the identity and the ledger.
//!
//! They hold what must commit together with the tenant's data: jobs, and the ids of received webhooks. An engine makes them
//! when they are first written. Tenant SQL cannot name them, migrations may not change them, and comparisons of schemas leave
//! them out. Their rows are part of every snapshot.

/// Each table with its indexes, in the SQL that both engines understand. `{int}` stands for the engine's type of integers,
/// and `{end}` for the end of the table's definition.
const DEFINITIONS: [(&str, &str); 2] = [
    (
        "_fleet_jobs",
        "create table {schema}._fleet_jobs (
           id text primary key,
           kind text not null,
           payload text not null,
           principal text not null,
           tenant_id text not null,
           generation {int} not null,
           unique_key text unique,
           cron text,
           state text not null,
           due_at {int} not null,
           run_at {int} not null,
           attempts {int} not null,
           attempts_max {int} not null,
           claim text,
           claimed_until {int},
           last_error text,
           created_at {int} not null
         ){end};
         create index {index}_fleet_jobs_due on {table}_fleet_jobs (state, due_at);",
    ),
    (
        "_fleet_received",
        "create table {schema}._fleet_received (
           provider text not null,
           account text not null,
           event_id text not null,
           received_at {int} not null,
           primary key (provider, account, event_id)
         ){end};
         create index {index}_fleet_received_at on {table}_fleet_received (received_at);",
    ),
];

/// The names of the tables.
pub(crate) fn own_table_names() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().map(|(name, _)| *name)
}

/// True for the name of such a table.
pub(crate) fn is_own_table(name: &str) -> bool {
    own_table_names().any(|own| name.eq_ignore_ascii_case(own))
}

/// SQL for one of the tables in a SQLite file.
pub(crate) fn sqlite_definition(name: &str) -> String {
    let words =
        [("{schema}", "main"), ("{int}", "integer"), ("{end}", " strict"), ("{index}", "main."), ("{table}", "")];
    definition(name, &words)
}

/// SQL for one of the tables in a PostgreSQL database.
pub(crate) fn postgres_definition(name: &str) -> String {
    let words = [("{schema}", "public"), ("{int}", "bigint"), ("{end}", ""), ("{index}", ""), ("{table}", "public.")];
    definition(name, &words)
}

fn definition(name: &str, words: &[(&str, &str)]) -> String {
    let all = DEFINITIONS.iter().filter(|(own, _)| *own == name).map(|(_, sql)| *sql);
    words.iter().fold(all.collect(), |sql: String, (from, to)| sql.replace(from, to))
}

/// The names as a list for SQL's `in (…)`.
pub(crate) fn quoted_names() -> String {
    own_table_names().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_a_name_that_tenant_sql_may_not_use() {
        for name in own_table_names() {
            assert!(name.starts_with("_fleet_") && is_own_table(&name.to_uppercase()), "{name}");
            let (sqlite, postgres) = (sqlite_definition(name), postgres_definition(name));
            assert!(sqlite.contains(&format!("create table main.{name} (")), "{sqlite}");
            assert!(postgres.contains(&format!("create table public.{name} (")), "{postgres}");
            assert!(!(sqlite + &postgres).contains('{'), "a word of {name} was not replaced");
        }
        assert!(!is_own_table("_fleet_identity") && !is_own_table("jobs"));
    }
}
