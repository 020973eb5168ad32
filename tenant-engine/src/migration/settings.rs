//! PURE: the settings for migrations in a project's `sqlx.toml`.
//!
//! The keys of its section `[migrate]` are followed, or refused by name. A ledger name that was ignored silently would
//! make every version run twice. So `table-name` sets the ledger of each database (`ledger_name.rs`). The file is
//! stored with the migrations, under its own name, so that each process that reads a release computes equal checksums.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{Context, SHA384};
use toml::{Table, Value};

use super::{LedgerName, migration_invalid};
use crate::error::Result;

/// The name of the settings file.
pub const NAME: &str = "sqlx.toml";

/// How migration files are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SqlxSettings {
    ignored: BTreeSet<char>,
    /// The table that lists the applied versions of a database.
    pub(super) ledger: LedgerName,
}

impl SqlxSettings {
    /// Reads the settings from the text of the file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::MigrationInvalid`] naming the key.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let table: Table =
            text.parse().map_err(|error| migration_invalid(format!("{NAME} cannot be read: {error}")))?;
        let mut settings = Self::default();
        let Some(section) = table.get("migrate") else { return Ok(settings) };
        let section =
            section.as_table().ok_or_else(|| migration_invalid(format!("{NAME}: 'migrate' is not a section")))?;
        for (key, value) in section {
            match key.as_str() {
                "ignored-chars" => settings.ignored = parse_characters(value)?,
                "table-name" => settings.ledger = ledger(value)?,
                "create-schemas" if value.as_array().is_some_and(Vec::is_empty) => {}
                // `migrations-dir` tells `sqlx migrate` where to look for files; `defaults` tells `sqlx migrate add`
                // what to make.
                "migrations-dir" | "defaults" => {}
                _ => return Err(refused_key(key, "is not followed here; remove it")),
            }
        }
        Ok(settings)
    }

    /// SHA-384 of the text without the ignored characters, as sqlx computes it.
    pub(super) fn text_checksum(&self, sql: &str) -> Vec<u8> {
        let mut context = Context::new(&SHA384);
        for piece in sql.split(|c| self.ignored.contains(&c)) {
            context.update(piece.as_bytes());
        }
        context.finish().as_ref().to_vec()
    }
}

fn parse_characters(value: &Value) -> Result<BTreeSet<char>> {
    let wrong = || refused_key("ignored-chars", "must be a list of single characters");
    let one = |value: &Value| {
        let mut characters = value.as_str()?.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    let values = value.as_array().ok_or_else(wrong)?;
    values.iter().map(|value| one(value).ok_or_else(wrong)).collect()
}

fn ledger(value: &Value) -> Result<LedgerName> {
    let name = value.as_str().ok_or_else(|| refused_key("table-name", "must be a text"))?;
    LedgerName::parse(name).map_err(|why| refused_key("table-name", &why))
}

fn refused_key(key: &str, why: &str) -> crate::Error {
    migration_invalid(format!("{NAME}: the key '{key}' of [migrate] {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_followed_or_named() {
        for text in [
            "",
            "[common]\ndatabase-url-var = 'X'",
            "[migrate]",
            "[migrate]\ntable-name = 'public.\"_sqlx_migrations\"'\nmigrations-dir = 'db'\ncreate-schemas = []",
            "[migrate.defaults]\nmigration-type = 'reversible'",
            "migrate.ignored-chars = []",
        ] {
            assert_eq!(SqlxSettings::parse(text).unwrap(), SqlxSettings::default(), "{text}");
        }
        let named = SqlxSettings::parse("[migrate]\ntable-name = 'public.\"Ops\"'").unwrap();
        assert_eq!(named.ledger.as_str(), "Ops");
        for (text, named) in [
            ("[migrate]\ntable-name = 'ops.ledger'", "table-name"),
            ("[migrate]\ntable-name = 'sqlite_x'", "table-name"),
            ("migrate.table-name = 3", "table-name"),
            ("migrate = { create-schemas = ['a'] }", "create-schemas"),
            ("[migrate]\nignored-chars = ['ab']", "ignored-chars"),
            ("[migrate]\nignored-chars = 'a'", "ignored-chars"),
            ("[migrate]\nnew-key = 1", "new-key"),
            ("migrate = 1", "section"),
            ("[migrate", "cannot be read"),
        ] {
            let error = SqlxSettings::parse(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::MigrationInvalid);
            assert!(error.message().contains(named), "{text}: {error}");
        }
    }
}
