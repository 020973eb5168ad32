//! PURE: which PRAGMAs a migration may use, and how.
//!
//! A PRAGMA may change the tenant's file, the connection, or the whole process. Files of migrations may do the first,
//! and the second where the engine's promises do not stand on it. The list is closed: a name that is not in it is
//! refused, so that a newer SQLite brings nothing new unseen. Asked by `watch.rs`; SQLite announces the form
//! `pragma_x(…)` in the same way as the statement. The list for requests is in `sandbox.rs`.

/// What a migration may do with one PRAGMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Read it and set it.
    Any,
    /// Read it; its value is the engine's, or the process's.
    Read,
    /// Nothing.
    Never,
}

/// Every PRAGMA of the bundled SQLite.
const PRAGMAS: [(&str, Use); 66] = [
    ("analysis_limit", Use::Any),
    ("application_id", Use::Any),
    ("auto_vacuum", Use::Any),
    ("automatic_index", Use::Any),
    ("busy_timeout", Use::Any),
    ("cache_size", Use::Any),
    ("cache_spill", Use::Any),
    ("case_sensitive_like", Use::Any),
    ("cell_size_check", Use::Any),
    ("checkpoint_fullfsync", Use::Any),
    ("collation_list", Use::Any),
    ("compile_options", Use::Any),
    // Makes the engine's own INSERT return a row.
    ("count_changes", Use::Read),
    ("data_version", Use::Any),
    ("database_list", Use::Any),
    ("default_cache_size", Use::Any),
    ("defer_foreign_keys", Use::Any),
    ("empty_result_callbacks", Use::Any),
    ("encoding", Use::Any),
    ("foreign_key_check", Use::Any),
    ("foreign_key_list", Use::Any),
    ("foreign_keys", Use::Any),
    ("freelist_count", Use::Any),
    ("full_column_names", Use::Any),
    ("fullfsync", Use::Any),
    ("function_list", Use::Any),
    // Of the whole process.
    ("hard_heap_limit", Use::Read),
    ("ignore_check_constraints", Use::Any),
    ("incremental_vacuum", Use::Any),
    ("index_info", Use::Any),
    ("index_list", Use::Any),
    ("index_xinfo", Use::Any),
    ("integrity_check", Use::Any),
    ("journal_mode", Use::Read),
    ("journal_size_limit", Use::Any),
    ("legacy_alter_table", Use::Any),
    ("locking_mode", Use::Read),
    ("max_page_count", Use::Any),
    // A file that shrinks under a mapping ends the process.
    ("mmap_size", Use::Read),
    ("module_list", Use::Any),
    ("optimize", Use::Any),
    ("page_count", Use::Any),
    ("page_size", Use::Any),
    ("pragma_list", Use::Any),
    ("query_only", Use::Read),
    ("quick_check", Use::Any),
    ("read_uncommitted", Use::Any),
    ("recursive_triggers", Use::Any),
    ("reverse_unordered_selects", Use::Any),
    // Other connections know a changed schema by this number.
    ("schema_version", Use::Read),
    ("secure_delete", Use::Any),
    ("short_column_names", Use::Any),
    ("shrink_memory", Use::Any),
    // Of the whole process.
    ("soft_heap_limit", Use::Read),
    ("synchronous", Use::Read),
    ("table_info", Use::Any),
    ("table_list", Use::Any),
    ("table_xinfo", Use::Any),
    ("temp_store", Use::Any),
    // Of the whole process, and a path of its machine.
    ("temp_store_directory", Use::Never),
    ("threads", Use::Any),
    ("trusted_schema", Use::Any),
    ("user_version", Use::Any),
    ("wal_autocheckpoint", Use::Read),
    // Without an argument it writes, too.
    ("wal_checkpoint", Use::Never),
    ("writable_schema", Use::Read),
];

/// Allows one use of a PRAGMA in a migration, or says why not.
///
/// # Errors
/// The reason as a sentence.
pub(super) fn check(name: &str, value: Option<&str>) -> Result<(), String> {
    let name = name.to_ascii_lowercase();
    let Ok(found) = PRAGMAS.binary_search_by(|(listed, _)| (*listed).cmp(name.as_str())) else {
        return Err(format!("PRAGMA {name} is not known to this SQLite, or not allowed in a migration; remove it"));
    };
    match (PRAGMAS[found].1, value) {
        (Use::Any, _) | (Use::Read, None) => Ok(()),
        // Every database is in WAL mode, so a file that says so too changes nothing.
        (Use::Read, Some(mode)) if name == "journal_mode" && mode.eq_ignore_ascii_case("wal") => Ok(()),
        (Use::Read | Use::Never, _) => Err(format!("PRAGMA {name} is set by the engine; remove it")),
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
            assert!(check(name, Some("1")).is_err() && check(name, None).is_err(), "{name}");
        }
        assert!(check("JOURNAL_MODE", Some("WAL")).is_ok() && check("Journal_Mode", Some("off")).is_err());
    }
}
