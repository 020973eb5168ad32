//! PURE: what the `sqlx.toml` of a project says about its migrations.
//!
//! Its section `[migrate]` is followed, or refused with the key's name. Passed over in silence, another ledger would
//! have every version run twice. The file travels with the migrations, under its own name, so that each process that
//! reads a release reads the same checksums.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{Context, SHA384};
use toml::{Table, Value};

use super::invalid;
use crate::error::Result;

/// The file's name.
pub(super) const NAME: &str = "sqlx.toml";

/// How migrations are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settings {
    ignored: BTreeSet<char>,
}

impl Settings {
    /// What this text says.
    ///
    /// # Errors
    /// [`crate::ErrorKind::MigrationInvalid`] naming the key.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse().map_err(|error| invalid(format!("{NAME} cannot be read: {error}")))?;
        let mut settings = Self::default();
        let Some(section) = table.get("migrate") else { return Ok(settings) };
        let section = section.as_table().ok_or_else(|| invalid(format!("{NAME}: 'migrate' is not a section")))?;
        for (key, value) in section {
            match key.as_str() {
                "ignored-chars" => settings.ignored = characters(value)?,
                "table-name" => check_ledger(value)?,
                "create-schemas" if value.as_array().is_some_and(Vec::is_empty) => {}
                // Where `sqlx migrate` looks for files, and what `sqlx migrate add` makes.
                "migrations-dir" | "defaults" => {}
                _ => return Err(refused(key, "is not followed here; remove it")),
            }
        }
        Ok(settings)
    }

    /// SHA-384 of the text without the ignored characters, as sqlx computes it.
    pub(super) fn checksum(&self, sql: &str) -> Vec<u8> {
        let mut context = Context::new(&SHA384);
        for piece in sql.split(|c| self.ignored.contains(&c)) {
            context.update(piece.as_bytes());
        }
        context.finish().as_ref().to_vec()
    }
}

fn characters(value: &Value) -> Result<BTreeSet<char>> {
    let wrong = || refused("ignored-chars", "must be a list of single characters");
    let one = |value: &Value| {
        let mut characters = value.as_str()?.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    let values = value.as_array().ok_or_else(wrong)?;
    values.iter().map(|value| one(value).ok_or_else(wrong)).collect()
}

/// Only the name that every database of a fleet has for its ledger.
fn check_ledger(value: &Value) -> Result<()> {
    let name = value.as_str().map(|name| name.replace('"', "")).unwrap_or_default();
    match name.as_str() {
        "_sqlx_migrations" | "public._sqlx_migrations" | "main._sqlx_migrations" => Ok(()),
        _ => Err(refused(
            "table-name",
            &format!(
                "is {value}, but a fleet keeps its ledger in _sqlx_migrations: rename the table of each database that \
                 you adopt, then remove the key"
            ),
        )),
    }
}

fn refused(key: &str, why: &str) -> crate::Error {
    invalid(format!("{NAME}: the key '{key}' of [migrate] {why}"))
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
            assert_eq!(Settings::parse(text).unwrap(), Settings::default(), "{text}");
        }
        for (text, named) in [
            ("[migrate]\ntable-name = 'ops'", "table-name"),
            ("migrate.table-name = 3", "table-name"),
            ("migrate = { create-schemas = ['a'] }", "create-schemas"),
            ("[migrate]\nignored-chars = ['ab']", "ignored-chars"),
            ("[migrate]\nignored-chars = 'a'", "ignored-chars"),
            ("[migrate]\nnew-key = 1", "new-key"),
            ("migrate = 1", "section"),
            ("[migrate", "cannot be read"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::MigrationInvalid);
            assert!(error.message().contains(named), "{text}: {error}");
        }
    }
}
