//! PURE: which PRAGMAs a migration may use, and how.
//!
//! A PRAGMA may change the tenant's file, the connection, or the whole process. Files of migrations may change the
//! tenant's file. They may change the connection where the engine's guarantees do not depend on it. The list is
//! complete: a name that is not in it is refused, so that a newer SQLite cannot add anything unnoticed. Called by
//! `migration_guard.rs`; SQLite announces the form `pragma_x(…)` in the same way as the statement. The list for
//! requests is in `requests/sandbox.rs`.

/// What a migration may do with one PRAGMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PragmaUse {
    /// It may read and set the PRAGMA.
    Any,
    /// It may read the PRAGMA; the engine or the process sets the value.
    Read,
    /// It may not use the PRAGMA.
    Never,
}

/// Every PRAGMA of the bundled SQLite.
const PRAGMAS: [(&str, PragmaUse); 66] = [
    ("analysis_limit", PragmaUse::Any),
    ("application_id", PragmaUse::Any),
    ("auto_vacuum", PragmaUse::Any),
    ("automatic_index", PragmaUse::Any),
    ("busy_timeout", PragmaUse::Any),
    ("cache_size", PragmaUse::Any),
    ("cache_spill", PragmaUse::Any),
    ("case_sensitive_like", PragmaUse::Any),
    ("cell_size_check", PragmaUse::Any),
    ("checkpoint_fullfsync", PragmaUse::Any),
    ("collation_list", PragmaUse::Any),
    ("compile_options", PragmaUse::Any),
    // It would make the engine's own INSERT return a row.
    ("count_changes", PragmaUse::Read),
    ("data_version", PragmaUse::Any),
    ("database_list", PragmaUse::Any),
    ("default_cache_size", PragmaUse::Any),
    ("defer_foreign_keys", PragmaUse::Any),
    ("empty_result_callbacks", PragmaUse::Any),
    ("encoding", PragmaUse::Any),
    ("foreign_key_check", PragmaUse::Any),
    ("foreign_key_list", PragmaUse::Any),
    ("foreign_keys", PragmaUse::Any),
    ("freelist_count", PragmaUse::Any),
    ("full_column_names", PragmaUse::Any),
    ("fullfsync", PragmaUse::Any),
    ("function_list", PragmaUse::Any),
    // A limit of the whole process.
    ("hard_heap_limit", PragmaUse::Read),
    ("ignore_check_constraints", PragmaUse::Any),
    ("incremental_vacuum", PragmaUse::Any),
    ("index_info", PragmaUse::Any),
    ("index_list", PragmaUse::Any),
    ("index_xinfo", PragmaUse::Any),
    ("integrity_check", PragmaUse::Any),
    ("journal_mode", PragmaUse::Read),
    ("journal_size_limit", PragmaUse::Any),
    ("legacy_alter_table", PragmaUse::Any),
    ("locking_mode", PragmaUse::Read),
    ("max_page_count", PragmaUse::Any),
    // A file that shrinks while it is mapped ends the process.
    ("mmap_size", PragmaUse::Read),
    ("module_list", PragmaUse::Any),
    ("optimize", PragmaUse::Any),
    ("page_count", PragmaUse::Any),
    ("page_size", PragmaUse::Any),
    ("pragma_list", PragmaUse::Any),
    ("query_only", PragmaUse::Read),
    ("quick_check", PragmaUse::Any),
    ("read_uncommitted", PragmaUse::Any),
    ("recursive_triggers", PragmaUse::Any),
    ("reverse_unordered_selects", PragmaUse::Any),
    // Other connections recognize a changed schema by this number.
    ("schema_version", PragmaUse::Read),
    ("secure_delete", PragmaUse::Any),
    ("short_column_names", PragmaUse::Any),
    ("shrink_memory", PragmaUse::Any),
    // A limit of the whole process.
    ("soft_heap_limit", PragmaUse::Read),
    ("synchronous", PragmaUse::Read),
    ("table_info", PragmaUse::Any),
    ("table_list", PragmaUse::Any),
    ("table_xinfo", PragmaUse::Any),
    ("temp_store", PragmaUse::Any),
    // A setting of the whole process, with a path on its machine.
    ("temp_store_directory", PragmaUse::Never),
    ("threads", PragmaUse::Any),
    ("trusted_schema", PragmaUse::Any),
    ("user_version", PragmaUse::Any),
    ("wal_autocheckpoint", PragmaUse::Read),
    // It writes even without an argument.
    ("wal_checkpoint", PragmaUse::Never),
    ("writable_schema", PragmaUse::Read),
];

/// Allows one use of a PRAGMA in a migration, or says why it is refused.
///
/// # Errors
/// The reason as a sentence.
pub(super) fn check_pragma(name: &str, value: Option<&str>) -> Result<(), String> {
    let name = name.to_ascii_lowercase();
    let Ok(found) = PRAGMAS.binary_search_by(|(listed, _)| (*listed).cmp(name.as_str())) else {
        return Err(format!("PRAGMA {name} is not known to this SQLite, or not allowed in a migration; remove it"));
    };
    match (PRAGMAS[found].1, value) {
        (PragmaUse::Any, _) | (PragmaUse::Read, None) => Ok(()),
        // Every database is in WAL mode, so a file that sets WAL mode changes nothing.
        (PragmaUse::Read, Some(mode)) if name == "journal_mode" && mode.eq_ignore_ascii_case("wal") => Ok(()),
        (PragmaUse::Read | PragmaUse::Never, _) => Err(format!("PRAGMA {name} is set by the engine; remove it")),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn listed(db: &Connection) -> Vec<String> {
        let mut statement = db.prepare("select name from pragma_pragma_list order by 1").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn every_pragma_of_this_sqlite_is_in_the_list_and_no_other() {
        let names: Vec<&str> = PRAGMAS.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed(&Connection::open_in_memory().unwrap()), names);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for name in ["data_store_directory", "lock_proxy_file", "key", "", "temp_store_directory "] {
            assert!(check_pragma(name, Some("1")).is_err() && check_pragma(name, None).is_err(), "{name}");
        }
        assert!(
            check_pragma("JOURNAL_MODE", Some("WAL")).is_ok() && check_pragma("Journal_Mode", Some("off")).is_err()
        );
    }
}
