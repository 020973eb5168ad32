//! The objects of every tenant database besides the tenant's own tables: the identity, the ledger, and the rights of
//! the group roles. They are made in a template, and in an empty database for a restore.
//!
//! Both tables belong to the maintenance role, so no migration can drop or change them. (The schema `public` belongs to
//! the database's owner, which is also that role.) The login that runs migrations writes the rows of the ledger.

use super::ledger;
use crate::migration::LedgerName;
use crate::postgres::servers::prepare::{OWNER, READ, WRITE};

/// SQL for the whole layout, for a database that migrations will fill.
pub(in crate::postgres) fn layout_sql(name: &LedgerName) -> String {
    tables_sql(name) + &default_rights()
}

/// SQL for the tables and the rights on them, in one transaction.
pub(in crate::postgres) fn tables_sql(name: &LedgerName) -> String {
    let (ledger, record) = (ledger_sql(name), ledger::record(name));
    format!(
        "begin;
         grant usage, create on schema public to {OWNER};
         grant usage on schema public to {READ}, {WRITE};
         create table public._fleet_identity (
           one integer primary key default 1 check (one = 1),
           tenant_id text not null,
           fleet_id text not null,
           generation bigint not null,
           state text not null,
           op_id text,
           stamped_at bigint not null
         );
         {ledger}
         {record}
         grant select on public._fleet_identity to {OWNER}, {READ}, {WRITE};
         commit;"
    )
}

/// SQL for the rights that each new object of the owner has by default, unless a migration changes them.
pub(in crate::postgres) fn default_rights() -> String {
    format!(
        "begin;
         alter default privileges for role {OWNER} grant usage on schemas to {READ}, {WRITE};
         alter default privileges for role {OWNER} grant select on tables to {READ};
         alter default privileges for role {OWNER} grant select, insert, update, delete on tables to {WRITE};
         alter default privileges for role {OWNER} grant select on sequences to {READ};
         alter default privileges for role {OWNER} grant usage, select on sequences to {WRITE};
         commit;"
    )
}

/// SQL for the ledger alone, in a database where it was dropped, or where sqlx's command line made it again.
pub(super) fn ledger_again(name: &LedgerName) -> String {
    format!("begin; {} commit;", ledger_sql(name))
}

fn ledger_sql(name: &LedgerName) -> String {
    let (create, table) = (ledger::create(name), ledger::table(name));
    format!(
        "{create}
         grant select on {table} to {OWNER}, {READ}, {WRITE};
         grant insert, update, delete on {table} to {OWNER};"
    )
}
