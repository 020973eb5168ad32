//! PURE: which functions, relations and types of PostgreSQL itself a tenant's SQL may name.
//!
//! Two readers: `requests/sandbox.rs` refuses a statement that names another one, and `rights.rs` takes the right to
//! run the functions of [`Use::Server`] away in each database. The names are those of versions 15 to 18
//! (`functions.txt`). A name of a later version that begins with `pg_` is refused, because nobody has judged it yet.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// What a function of the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It tells of other databases, roles, sessions, files, or replication, or changes them.
    Server,
    /// It runs a text as SQL, outlives its statement, or tells of rights.
    Statement,
    /// It concerns its own database.
    Own,
}

static FUNCTIONS: LazyLock<HashMap<&str, Use>> = LazyLock::new(|| lines().filter_map(function).collect());

/// Tables, views and types that concern their own database.
static OWN_RELATIONS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| lines().filter_map(|line| line.strip_prefix("relation ")).collect());

fn lines() -> impl Iterator<Item = &'static str> {
    include_str!("functions.txt").lines().filter(|line| !line.starts_with('#'))
}

fn function(line: &'static str) -> Option<(&'static str, Use)> {
    let (what, name) = line.split_once(' ')?;
    let what = match what {
        "server" => Use::Server,
        "statement" => Use::Statement,
        "allowed" => Use::Own,
        _ => return None,
    };
    Some((name, what))
}

/// Functions of extensions that run a text as SQL, connect elsewhere or read files, by how they begin.
const EXTENSIONS: [&str; 5] = ["dblink", "crosstab", "connectby", "xpath_table", "pgr_"];

/// Functions of later versions of these families are refused, too.
const UNKNOWN: [&str; 3] = ["pg_", "binary_upgrade_", "to_regrole"];

/// Relations that may not be named: they tell of the server's other databases, or updating them changes settings.
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

/// The same, by how they begin. Statistics of columns show values of every table that may be read, also of those that
/// list databases and roles.
const RELATION_FAMILIES: [&str; 3] = ["pg_stat", "pg_shmem_", "pg_buffercache_"];

/// Types whose text form holds names of roles and databases.
const TYPES: [&str; 6] = ["regrole", "_regrole", "regdatabase", "_regdatabase", "aclitem", "_aclitem"];

/// Whether a request may call a function of this name, as written.
pub(super) fn may_call(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let unknown = || UNKNOWN.iter().chain(&EXTENSIONS).any(|family| name.starts_with(family)) || is_privilege(&name);
    match FUNCTIONS.get(name.as_str()) {
        Some(found) => *found == Use::Own,
        None => !unknown() && !TYPES.iter().any(|known| name.starts_with(known)),
    }
}

/// `has_…_privilege`: each version adds some.
fn is_privilege(name: &str) -> bool {
    name.starts_with("has_") && name.ends_with("_privilege")
}

/// Whether a request may write this name, as a relation, a type, or anything else.
pub(super) fn may_name(name: &str) -> bool {
    let begins = |family: &&str| name.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family));
    if FUNCTIONS.get(name.to_ascii_lowercase().as_str()) == Some(&Use::Own) {
        return true;
    }
    let same = |known: &&str| name.eq_ignore_ascii_case(known);
    !RELATIONS.iter().chain(&TYPES).any(same) && !RELATION_FAMILIES.iter().any(begins)
}

/// Whether a request may read a relation of this name, where a name that begins with `pg_` is one of the server's.
pub(super) fn may_read(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.starts_with("pg_")
        || matches!(name.as_str(), "pg_catalog" | "pg_temp" | "pg_toast")
        || OWN_RELATIONS.contains(name.as_str())
        || FUNCTIONS.get(name.as_str()) == Some(&Use::Own)
}

/// The functions that only the role that maintains a server may run, by name.
pub(super) fn of_server() -> Vec<&'static str> {
    let mut names: Vec<_> =
        FUNCTIONS.iter().filter(|(_, found)| **found == Use::Server).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names
}

/// Every function of the families of [`of_server`] that somebody has judged, by name.
pub(super) fn known() -> Vec<&'static str> {
    let mut names: Vec<_> = FUNCTIONS.keys().copied().collect();
    names.sort_unstable();
    names
}

/// The relations that only the role that maintains a server may read.
pub(super) fn relations() -> impl Iterator<Item = &'static str> {
    // Settings are a session's own, and nobody may read the rest without a right to it.
    RELATIONS.into_iter().filter(|name| !matches!(*name, "pg_settings" | "pg_config" | "pg_wait_events"))
}
