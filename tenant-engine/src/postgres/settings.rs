//! The settings that every session of this program in a tenant's database gives at its connect, for every login: the
//! tenant's logins, the login of migrations, the maintenance role, `pg_dump` and `pg_restore`.
//!
//! A parameter of the server, of a database or of a role would otherwise decide what a statement means. Then a
//! restored row, index or materialized view could differ from the one that was written. What is given at the connect
//! wins over all of them, and `reset all` returns to it.
//!
//! Only parameters that any role may set and that every supported version knows are here: a server refuses the whole
//! connection for an unknown one. `tests/pg/settings.rs` reads the parameters of a running server and fails for one
//! that is neither here nor in its list of parameters that do not change results.

use sqlx::postgres::PgConnectOptions;

/// The parameters that change what a statement means, returns or stores; each has the value that PostgreSQL itself
/// starts with, unless a comment says why not.
pub(super) const SESSION_SETTINGS: [(&str, &str); 36] = [
    ("search_path", "\"$user\", public"),
    // How values are read and printed.
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    // The driver gives it, too; pg_restore would take the server's.
    ("timezone", "UTC"),
    ("timezone_abbreviations", "Default"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("xmlbinary", "base64"),
    ("xmloption", "content"),
    ("quote_all_identifiers", "off"),
    // What texts mean as SQL.
    ("standard_conforming_strings", "on"),
    ("backslash_quote", "safe_encoding"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    // initdb writes this one on most servers, by their locale.
    ("default_text_search_config", "pg_catalog.english"),
    // Transactions.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("exit_on_error", "off"),
    // Which rows are found.
    ("row_security", "on"),
    ("gin_fuzzy_search_limit", "0"),
    // Where and how objects are made.
    ("default_tablespace", ""),
    ("temp_tablespaces", ""),
    ("default_table_access_method", "heap"),
    ("default_toast_compression", "pglz"),
    ("check_function_bodies", "on"),
    // Code that runs in the session, and what functions in PL/pgSQL do.
    ("local_preload_libraries", ""),
    ("plpgsql.check_asserts", "on"),
    ("plpgsql.extra_errors", "none"),
    ("plpgsql.extra_warnings", "none"),
    ("plpgsql.print_strict_params", "off"),
    // A limit that a server sets for others; where it matters, the session gives its own after these.
    ("lock_timeout", "0"),
    ("statement_timeout", "0"),
];

/// A connection that gives the settings. What the caller adds after them wins.
pub(super) fn with_session_settings(options: PgConnectOptions) -> PgConnectOptions {
    // The driver's own value is another one with the same meaning.
    options.extra_float_digits(None).options(SESSION_SETTINGS)
}

/// The same settings, and `more` after them, as the programs of PostgreSQL read them from `PGOPTIONS`.
pub(super) fn program_options(more: &[(&str, &str)]) -> String {
    let all = SESSION_SETTINGS.iter().chain(more);
    all.map(|(name, value)| format!("-c {name}={}", escaped(value))).collect::<Vec<_>>().join(" ")
}

/// The server splits the options at blanks.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(' ', "\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_given_values_with_blanks_whole() {
        let given = program_options(&[("statement_timeout", "1s")]);
        assert!(given.starts_with("-c search_path=\"$user\",\\ public -c datestyle=ISO,\\ MDY "), "{given}");
        assert!(given.ends_with("-c statement_timeout=0 -c statement_timeout=1s"), "{given}");
    }
}
