//! What every tenant database has besides the tenant's own tables: the identity, the ledger, and the rights of the
//! groups. Made in a template, and in an empty database that a dump is restored into.
//!
//! Both tables belong to the maintenance role, so no migration can drop or change them (the schema `public` belongs to
//! the database's owner, which is that role, too). Rows of the ledger are written by whoever runs migrations.

use super::ledger;
use super::prepare::{OWNER, READ, WRITE};

/// Everything, for a database that migrations are to fill.
pub(super) fn statements() -> String {
    tables() + &default_rights()
}

/// The tables and the rights on them, in one transaction.
pub(super) fn tables() -> String {
    let ledger = ledger();
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
         grant select on public._fleet_identity to {OWNER}, {READ}, {WRITE};
         commit;"
    )
}

/// What each object of the owner's is open to as it is made, unless a migration says otherwise.
pub(super) fn default_rights() -> String {
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

/// The ledger alone: in a database where somebody dropped it, or made it anew with sqlx's command line.
pub(super) fn ledger_again() -> String {
    format!("begin; {} commit;", ledger())
}

fn ledger() -> String {
    let create = ledger::CREATE;
    format!(
        "{create}
         grant select on public._sqlx_migrations to {OWNER}, {READ}, {WRITE};
         grant insert, update, delete on public._sqlx_migrations to {OWNER};"
    )
}
