//! PURE: entries of a migration directory that are not read, with reasons. Entries that look like migrations must be
//! reported.

use serde_json::{Value, json};

/// Folders of a migration directory that hold one engine's files each.
pub(crate) const ENGINES: [&str; 2] = ["sqlite", "postgres"];

/// Other names that people give to these folders.
const ALIKE: [(&str, &str); 9] = [
    ("sqlite", "sqlite"),
    ("sqlite3", "sqlite"),
    ("lite", "sqlite"),
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("pg", "postgres"),
    ("pgsql", "postgres"),
    ("psql", "postgres"),
    ("postgre", "postgres"),
];

/// The kind of a folder's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A file, also behind a link.
    File,
    /// A directory inside the migration directory.
    Folder {
        /// True when some of its names end with `.sql`.
        has_sql: bool,
    },
    /// A broken link, a socket and the like.
    Other,
}

/// An entry that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IgnoredEntry {
    /// The entry's name; a folder's name ends with a slash.
    pub(crate) name: String,
    /// The reason, for an entry that looks like a migration.
    pub(crate) why: Option<String>,
}

impl IgnoredEntry {
    /// The entry as it appears in JSON output.
    pub(crate) fn to_json(&self) -> Value {
        json!({"name": self.name, "why": self.why.as_deref().unwrap_or("it is not a migration")})
    }
}

/// The entry, if it is not read. `folder` is the engine's folder that contains it, or empty.
pub(crate) fn ignored_entry(folder: &str, name: &str, kind: &EntryKind) -> Option<IgnoredEntry> {
    let why = match kind {
        EntryKind::Folder { .. } if folder.is_empty() && ENGINES.contains(&name) => return None,
        EntryKind::Folder { has_sql } => unread_folder(name, *has_sql),
        EntryKind::File if is_migration(name) || name == "sqlx.toml" => return None,
        EntryKind::File => unread_file(name),
        EntryKind::Other => looks_like_sql(name).then(|| "it is not a file that can be read".to_owned()),
    };
    let slash = if matches!(kind, EntryKind::Folder { .. }) { "/" } else { "" };
    let name = if folder.is_empty() { format!("{name}{slash}") } else { format!("{folder}/{name}{slash}") };
    Some(IgnoredEntry { name, why })
}

/// True for a name that the server reads or refuses.
fn is_migration(name: &str) -> bool {
    name.ends_with(".sql") && name.contains('_')
}

fn unread_folder(name: &str, has_sql: bool) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let meant = ALIKE.iter().find(|(alike, _)| *alike == lower).map(|(_, meant)| meant);
    match meant {
        Some(meant) => Some(format!("did you mean '{meant}/'?")),
        None if has_sql => Some("only the folders sqlite/ and postgres/ are read".to_owned()),
        None => None,
    }
}

fn unread_file(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let why = match name {
        _ if name.ends_with(".sql") => "a name is a number, an underscore and words, as 0001_tasks.sql",
        _ if lower.ends_with(".sql") => "the ending must be '.sql' in lower case",
        _ if looks_like_sql(name) || begins_like_migration(name) => "only names that end with '.sql' are read",
        _ => return None,
    };
    Some(why.to_owned())
}

fn looks_like_sql(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.contains(".sql") || [".psql", ".pgsql", ".ddl"].iter().any(|end| lower.ends_with(end))
}

/// `0003_words` and `V3__words`.
fn begins_like_migration(name: &str) -> bool {
    let rest = name.strip_prefix(['V', 'v']).unwrap_or(name);
    let words = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    words.len() < rest.len() && words.starts_with(['_', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_migration_is_told_with_its_reason() {
        let folder = |has_sql| EntryKind::Folder { has_sql };
        for (name, kind, why) in [
            ("postgresql", folder(true), "did you mean 'postgres/'?"),
            ("PG", folder(false), "did you mean 'postgres/'?"),
            ("Postgres", folder(true), "did you mean 'postgres/'?"),
            ("sqlite3", folder(true), "did you mean 'sqlite/'?"),
            ("mysql", folder(true), "only the folders"),
            ("0001_a.SQL", EntryKind::File, "lower case"),
            ("0001_a.Sql", EntryKind::File, "lower case"),
            ("0001.sql", EntryKind::File, "0001_tasks.sql"),
            ("0001-a.sql", EntryKind::File, "0001_tasks.sql"),
            ("tasks.sql", EntryKind::File, "0001_tasks.sql"),
            ("0001_a.sql.bak", EntryKind::File, "end with '.sql'"),
            ("0001_a.sql~", EntryKind::File, "end with '.sql'"),
            ("0001_a.psql", EntryKind::File, "end with '.sql'"),
            ("0001_a.txt", EntryKind::File, "end with '.sql'"),
            ("0001_a", EntryKind::File, "end with '.sql'"),
            ("V1__a", EntryKind::File, "end with '.sql'"),
            ("0001_a.sql", EntryKind::Other, "not a file"),
            ("0001_a.sql", folder(true), "only the folders"),
        ] {
            let found = ignored_entry("", name, &kind).unwrap();
            assert!(found.why.as_ref().is_some_and(|said| said.contains(why)), "{name}: {found:?}");
        }
        assert_eq!(ignored_entry("postgres", "sqlite", &folder(true)).unwrap().name, "postgres/sqlite/");
    }

    #[test]
    fn the_rest_is_read_or_plainly_ignored() {
        for (name, kind) in [
            ("0001_a.sql", EntryKind::File),
            ("0001_a.up.sql", EntryKind::File),
            ("x_y.sql", EntryKind::File),
            ("sqlx.toml", EntryKind::File),
            ("sqlite", EntryKind::Folder { has_sql: true }),
            ("postgres", EntryKind::Folder { has_sql: false }),
        ] {
            assert_eq!(ignored_entry("", name, &kind), None, "{name}");
        }
        for (name, kind) in [
            ("README.md", EntryKind::File),
            (".gitkeep", EntryKind::File),
            ("2024.md", EntryKind::File),
            ("docs", EntryKind::Folder { has_sql: false }),
            ("socket", EntryKind::Other),
        ] {
            assert_eq!(ignored_entry("", name, &kind).unwrap().why, None, "{name}");
        }
    }
}
