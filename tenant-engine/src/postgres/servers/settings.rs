//! The settings that every session of this program in a tenant's database sends when it connects. They apply to every
//! login: the tenant's logins, the login of migrations, the maintenance role, `pg_dump` and `pg_restore`.
//!
//! Otherwise a parameter of the server, of a database or of a role would decide what a statement means. A restored row,
//! index or materialized view could then differ from the original. Settings sent at the connect take precedence over
//! all of them, and `reset all` returns to them.
//!
//! The list has only parameters that any role may set and that every supported version knows: a server refuses the
//! whole connection for an unknown one. `tests/it/postgres/settings.rs` reads the parameters of a running server. It
//! fails for a parameter that is neither here nor in its list of parameters that do not change results.

use sqlx::postgres::PgConnectOptions;

/// The parameters that change what a statement means, returns or stores. Each has PostgreSQL's own initial value,
/// unless a comment gives a reason for another.
pub(in crate::postgres) const SESSION_SETTINGS: [(&str, &str); 36] = [
    ("search_path", "\"$user\", public"),
    // How values are read and printed.
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    // The driver sends it, too; pg_restore would use the server's value.
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
    // initdb sets this one on most servers, by their locale.
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
    // A server sets this limit for other programs; where it matters, the session sends its own value after these.
    ("lock_timeout", "0"),
    ("statement_timeout", "0"),
];

/// Adds the settings to a connection. Settings that the caller adds later take precedence.
pub(in crate::postgres) fn with_session_settings(options: PgConnectOptions) -> PgConnectOptions {
    // The driver's own value differs, with the same meaning.
    options.extra_float_digits(None).options(SESSION_SETTINGS)
}

/// The settings, followed by `more`, in the form of `PGOPTIONS` for the programs of PostgreSQL.
pub(in crate::postgres) fn program_options(more: &[(&str, &str)]) -> String {
    let all = SESSION_SETTINGS.iter().chain(more);
    all.map(|(name, value)| format!("-c {name}={}", escape_option(value))).collect::<Vec<_>>().join(" ")
}

/// The server splits the options at blanks.
fn escape_option(value: &str) -> String {
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
