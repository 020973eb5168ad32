//! PURE: the functions, relations and types of PostgreSQL itself that a tenant's SQL may name.
//!
//! It has two callers. `requests/sandbox.rs` refuses a statement that names any other function or relation. `rights.rs`
//! revokes the right to run the functions of [`FunctionUse::Server`] in each database. The names are those of versions
//! 15 to 18 (`functions.txt`). A name of a later version that begins with `pg_` is refused, because it has not been
//! reviewed yet.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use crate::own_tables::is_own_table;

/// The effect of a function of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FunctionUse {
    /// It reads or changes other databases, roles, sessions, files, or replication.
    Server,
    /// It runs a text as SQL, has effects beyond its statement, or reports rights.
    Statement,
    /// It affects only its own database.
    Own,
}

static FUNCTIONS: LazyLock<HashMap<&str, FunctionUse>> =
    LazyLock::new(|| function_lines().filter_map(parse_function).collect());

/// Tables, views and types that concern only their own database.
static OWN_RELATIONS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| function_lines().filter_map(|line| line.strip_prefix("relation ")).collect());

fn function_lines() -> impl Iterator<Item = &'static str> {
    include_str!("functions.txt").lines().filter(|line| !line.starts_with('#'))
}

fn parse_function(line: &'static str) -> Option<(&'static str, FunctionUse)> {
    let (what, name) = line.split_once(' ')?;
    let what = match what {
        "server" => FunctionUse::Server,
        "statement" => FunctionUse::Statement,
        "allowed" => FunctionUse::Own,
        _ => return None,
    };
    Some((name, what))
}

/// Prefixes of extension functions that run a text as SQL, connect elsewhere or read files.
const EXTENSIONS: [&str; 5] = ["dblink", "crosstab", "connectby", "xpath_table", "pgr_"];

/// Prefixes of families in which functions of later versions are refused, too.
const UNKNOWN: [&str; 3] = ["pg_", "binary_upgrade_", "to_regrole"];

/// Relations that may not be named: they show the server's other databases, or updating them changes settings.
const RELATIONS: [&str; 36] = [
    "pg_aios",
    "pg_auth_members",
    "pg_authid",
    "pg_backend_memory_contexts",
    "pg_config",
    "pg_database",
    "pg_db_role_setting",
    "pg_file_settings",
    "pg_group",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_largeobject",
    "pg_largeobject_metadata",
    "pg_locks",
    "pg_parameter_acl",
    "pg_prepared_xacts",
    "pg_replication_origin",
    "pg_replication_origin_status",
    "pg_replication_slots",
    "pg_roles",
    "pg_seclabels",
    "pg_settings",
    "pg_shadow",
    "pg_shdepend",
    "pg_shdescription",
    "pg_shmem_allocations",
    "pg_shmem_allocations_numa",
    "pg_shseclabel",
    "pg_subscription",
    "pg_subscription_rel",
    "pg_tablespace",
    "pg_user",
    "pg_user_mapping",
    "pg_user_mappings",
    "pg_wait_events",
    "pg_buffercache",
];

/// Prefixes of further refused relations. Statistics of columns show values of every readable table, including those
/// that list databases and roles.
const RELATION_FAMILIES: [&str; 3] = ["pg_stat", "pg_shmem_", "pg_buffercache_"];

/// Types whose text form holds names of roles and databases.
const TYPES: [&str; 6] = ["regrole", "_regrole", "regdatabase", "_regdatabase", "aclitem", "_aclitem"];

/// Whether a request may call a function of this name, as written.
pub(in crate::postgres) fn may_call(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let unknown = || UNKNOWN.iter().chain(&EXTENSIONS).any(|family| name.starts_with(family)) || is_privilege(&name);
    match FUNCTIONS.get(name.as_str()) {
        Some(found) => *found == FunctionUse::Own,
        None => !unknown() && !TYPES.iter().any(|known| name.starts_with(known)),
    }
}

/// Whether the name is `has_…_privilege`: each version adds some.
fn is_privilege(name: &str) -> bool {
    name.starts_with("has_") && name.ends_with("_privilege")
}

/// Whether a request may use this name, as a relation, a type, or anything else.
pub(in crate::postgres) fn may_name(name: &str) -> bool {
    let begins = |family: &&str| name.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family));
    if FUNCTIONS.get(name.to_ascii_lowercase().as_str()) == Some(&FunctionUse::Own) {
        return true;
    }
    let same = |known: &&str| name.eq_ignore_ascii_case(known);
    !RELATIONS.iter().chain(&TYPES).any(same) && !RELATION_FAMILIES.iter().any(begins) && !is_own_table(name)
}

/// Whether a request may read a relation of this name, if a name that begins with `pg_` is one of the server's.
pub(in crate::postgres) fn may_read(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.starts_with("pg_")
        || matches!(name.as_str(), "pg_catalog" | "pg_temp" | "pg_toast")
        || OWN_RELATIONS.contains(name.as_str())
        || FUNCTIONS.get(name.as_str()) == Some(&FunctionUse::Own)
}

/// Names of the functions that only the maintenance role of a server may run.
pub(super) fn of_server() -> Vec<&'static str> {
    let mut names: Vec<_> =
        FUNCTIONS.iter().filter(|(_, found)| **found == FunctionUse::Server).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names
}

/// Names of all reviewed functions in the families of [`of_server`].
pub(super) fn known_functions() -> Vec<&'static str> {
    let mut names: Vec<_> = FUNCTIONS.keys().copied().collect();
    names.sort_unstable();
    names
}

/// The relations that only the maintenance role of a server may read.
pub(super) fn restricted_relations() -> impl Iterator<Item = &'static str> {
    // Settings belong to a session, and reading the other two already requires a right.
    RELATIONS.into_iter().filter(|name| !matches!(*name, "pg_settings" | "pg_config" | "pg_wait_events"))
}
