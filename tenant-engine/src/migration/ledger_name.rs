//! PURE: the name of the table that lists the applied versions of a database. sqlx calls it `table-name`.
//!
//! The name is compared and rendered in one form: as Postgres stores it. It holds letters, digits and underscores only,
//! so each engine may put it between quotes unchanged. A database of a fleet records the name it was made with. Without
//! a record, the name is sqlx's own.

use std::fmt;
use std::sync::Arc;

/// The table's name in sqlx without a setting.
const OF_SQLX: &str = "_sqlx_migrations";
/// Maximum bytes of a name that Postgres stores without truncating it.
const BYTES_MAX: usize = 63;
/// Prefixes of the engines' and this program's own names.
const TAKEN: [&str; 3] = ["sqlite_", "pg_", "_fleet"];

/// A table's name, without its schema. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LedgerName(Arc<str>);

impl Default for LedgerName {
    fn default() -> Self {
        Self(OF_SQLX.into())
    }
}

impl LedgerName {
    /// The name as `sqlx.toml` writes it: `ops`, `"Ops"`, `public.ops` or `main.ops`.
    ///
    /// # Errors
    /// The reason for refusing it, worded to follow the name of the key.
    pub fn parse(written: &str) -> Result<Self, String> {
        let parts: Vec<String> = written.split('.').map(folded).collect();
        let name = match parts.as_slice() {
            [name] => name,
            [schema, name] if schema == "public" || schema == "main" => name,
            [schema, _] => {
                return Err(format!(
                    "names the schema '{schema}', but a fleet keeps its ledger in the schema public: leave the schema out"
                ));
            }
            _ => return Err(format!("is '{written}', which is not the name of a table")),
        };
        Self::stored(name)
    }

    /// The name as a database stores it.
    ///
    /// # Errors
    /// As [`LedgerName::parse`].
    pub fn stored(name: &str) -> Result<Self, String> {
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !begins || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("is '{name}', but a ledger's name holds only letters, digits and underscores"));
        }
        if name.len() > BYTES_MAX {
            return Err(format!("is longer than {BYTES_MAX} bytes"));
        }
        let lower = name.to_ascii_lowercase();
        match TAKEN.iter().find(|prefix| lower.starts_with(**prefix)) {
            Some(prefix) => Err(format!("is '{name}', but names that begin with {prefix} are taken")),
            None => Ok(Self(name.into())),
        }
    }

    /// The name without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for sqlx's own name, which no database records.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        &*self.0 == OF_SQLX
    }

    /// The name as SQL writes it. sqlx's own name stays without quotes, so that SQLite stores the text that sqlx
    /// writes.
    #[must_use]
    pub(crate) fn sql(&self) -> String {
        if self.is_usual() { OF_SQLX.to_owned() } else { format!("\"{}\"", self.0) }
    }
}

impl fmt::Display for LedgerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A quoted part keeps its case; an unquoted part is converted to lower case, as the server does.
fn folded(part: &str) -> String {
    match part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.to_owned(),
        None => part.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_a_server_reads_them() {
        for (written, stored) in [
            ("schema_migrations", "schema_migrations"),
            ("Ops", "ops"),
            ("\"Ops\"", "Ops"),
            ("public.ops", "ops"),
            ("PUBLIC.\"Ops\"", "Ops"),
            ("\"public\".\"ops_2\"", "ops_2"),
            ("main.ops", "ops"),
            ("_SQLX_MIGRATIONS", "_sqlx_migrations"),
        ] {
            assert_eq!(LedgerName::parse(written).unwrap().as_str(), stored, "{written}");
        }
        assert!(LedgerName::parse("public._sqlx_migrations").unwrap().is_usual());
        assert_eq!(LedgerName::parse("ops").unwrap().sql(), "\"ops\"");
    }

    #[test]
    fn other_names_are_refused_with_the_reason() {
        let long = "a".repeat(64);
        for (written, named) in [
            ("ops.ledger", "schema 'ops'"),
            ("\"Public\".x", "schema 'Public'"),
            ("temp.x", "schema 'temp'"),
            ("a.b.c", "not the name"),
            ("", "letters"),
            ("\"\"", "letters"),
            ("public.", "letters"),
            ("1a", "letters"),
            ("a b", "letters"),
            ("a\"b", "letters"),
            ("\"a", "letters"),
            ("a;drop", "letters"),
            ("m\u{f6}ve", "letters"),
            ("sqlite_x", "sqlite_"),
            ("PG_x", "pg_"),
            ("_fleet_identity", "_fleet"),
            ("\"_Fleet_ledger\"", "_fleet"),
            (&long, "63 bytes"),
        ] {
            let why = LedgerName::parse(written).unwrap_err();
            assert!(why.contains(named), "{written}: {why}");
        }
    }
}
