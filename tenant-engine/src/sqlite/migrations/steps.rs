//! PURE: recognizes, by their first words, the statements of a migration that `references.rs` handles specially.
//!
//! These statements drop or rename a table, begin or end a transaction, or switch foreign keys. SQLite handles all
//! others: a statement that is not recognized simply runs.

use crate::sqlite::limits::complexity::plain_name;
use crate::sqlite::limits::tokens::{SqliteToken, SqliteTokens};

/// Number of words that decide: `alter table "main"."a" rename to "main"."b"` has nine.
const WORDS_MAX: usize = 12;

/// The kind of a statement. Names are in the form that SQLite compares: without quotes, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MigrationStep {
    /// DROP TABLE.
    Drop {
        /// Name of the dropped table.
        table: String,
    },
    /// ALTER TABLE … RENAME TO.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// BEGIN.
    Begin,
    /// COMMIT or END.
    Commit,
    /// ROLLBACK of the whole transaction.
    Rollback,
    /// `pragma foreign_keys = …`.
    ForeignKeys(bool),
    /// Any other statement.
    Other,
}

/// The kind of the first statement of this text.
pub(super) fn first_step(text: &str) -> MigrationStep {
    let mut tokens = SqliteTokens::from_text(text);
    classify_words(&leading_words(&mut tokens))
}

/// The end of the first statement of this text, including its semicolon.
pub(super) fn statement_end(text: &str) -> usize {
    let mut tokens = SqliteTokens::from_text(text);
    if is_trigger(&leading_words(&mut tokens)) {
        while tokens.byte_offset() < text.len() && leading_words(&mut tokens).first().is_none_or(|word| word != "END") {
        }
    }
    tokens.byte_offset()
}

/// True when the first BEGIN or COMMIT of this text is a BEGIN: its author expects it to start outside a transaction.
pub(super) fn begins_outside(text: &str) -> bool {
    let mut tokens = SqliteTokens::from_text(text);
    let mut in_trigger = false;
    while tokens.byte_offset() < text.len() {
        let words = leading_words(&mut tokens);
        match classify_words(&words) {
            MigrationStep::Commit if in_trigger => in_trigger = false,
            MigrationStep::Begin if !in_trigger => return true,
            MigrationStep::Commit | MigrationStep::Rollback if !in_trigger => return false,
            _ => in_trigger |= is_trigger(&words),
        }
    }
    false
}

/// True when a statement of this text makes a table of this name, or renames a table to it.
pub(super) fn makes_table(text: &str, table: &str) -> bool {
    let mut tokens = SqliteTokens::from_text(text);
    while tokens.byte_offset() < text.len() {
        if created_table(&leading_words(&mut tokens)).is_some_and(|name| name == table) {
            return true;
        }
    }
    false
}

/// The tables that statements of this text drop or rename.
pub(super) fn dropped_or_renamed(text: &str) -> Vec<String> {
    let mut tokens = SqliteTokens::from_text(text);
    let mut tables = Vec::new();
    while tokens.byte_offset() < text.len() {
        match classify_words(&leading_words(&mut tokens)) {
            MigrationStep::Drop { table } | MigrationStep::Rename { from: table, .. } => tables.push(table),
            _ => {}
        }
    }
    tables
}

/// True when a statement of this text inserts into this table.
pub(super) fn fills_table(text: &str, table: &str) -> bool {
    let mut tokens = SqliteTokens::from_text(text);
    while tokens.byte_offset() < text.len() {
        if filled_table(&statement_words(&mut tokens, usize::MAX)).is_some_and(|name| name == table) {
            return true;
        }
    }
    false
}

/// All words of the first statement; quoted names as they are written.
pub(super) fn head_words(text: &str) -> Vec<String> {
    statement_words(&mut SqliteTokens::from_text(text), usize::MAX)
}

/// The first words of the statement; quoted names as they are written. Reads to its semicolon.
fn leading_words(tokens: &mut SqliteTokens<'_>) -> Vec<String> {
    statement_words(tokens, WORDS_MAX)
}

fn statement_words(tokens: &mut SqliteTokens<'_>, words_max: usize) -> Vec<String> {
    let mut words = Vec::new();
    for token in tokens.by_ref() {
        let word = match token {
            SqliteToken::Sign(b';') if words.is_empty() => continue,
            SqliteToken::Sign(b';') => break,
            SqliteToken::Word(word) => word.to_ascii_uppercase(),
            SqliteToken::Quoted(name) => name.to_owned(),
            SqliteToken::Sign(byte) => char::from(byte).to_string(),
            SqliteToken::Variable => "?".to_owned(),
        };
        if words.len() < words_max {
            words.push(word);
        }
    }
    words
}

fn classify_words(words: &[String]) -> MigrationStep {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let step = match words.as_slice() {
        ["DROP", "TABLE", "IF", "EXISTS", rest @ ..] | ["DROP", "TABLE", rest @ ..] => {
            table_name(rest).map(|(table, _)| MigrationStep::Drop { table })
        }
        ["ALTER", "TABLE", rest @ ..] => parse_rename(rest).map(|(from, to)| MigrationStep::Rename { from, to }),
        ["BEGIN", ..] => Some(MigrationStep::Begin),
        ["COMMIT" | "END", ..] => Some(MigrationStep::Commit),
        ["ROLLBACK", "TO", ..] | ["ROLLBACK", "TRANSACTION", "TO", ..] => None,
        ["ROLLBACK", ..] => Some(MigrationStep::Rollback),
        ["PRAGMA", "MAIN", ".", rest @ ..] | ["PRAGMA", rest @ ..] => foreign_keys(rest),
        _ => None,
    };
    step.unwrap_or(MigrationStep::Other)
}

fn foreign_keys(words: &[&str]) -> Option<MigrationStep> {
    match words {
        [pragma, "=" | "(", value, ..] if plain_name(pragma) == "foreign_keys" => {
            Some(MigrationStep::ForeignKeys(is_on(&plain_name(value))))
        }
        _ => None,
    }
}

/// Parses a boolean as SQLite does.
fn is_on(value: &str) -> bool {
    matches!(value, "on" | "yes" | "true") || value.parse::<i64>().is_ok_and(|number| number != 0)
}

fn parse_rename(words: &[&str]) -> Option<(String, String)> {
    let (from, rest) = table_name(words)?;
    match rest {
        ["RENAME", "TO", to, ..] => Some((from, plain_name(to))),
        _ => None,
    }
}

fn created_table(words: &[String]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["CREATE", "TABLE", "IF", "NOT", "EXISTS", rest @ ..]
        | ["CREATE", "TABLE", rest @ ..]
        | ["CREATE", "VIRTUAL", "TABLE", "IF", "NOT", "EXISTS", rest @ ..]
        | ["CREATE", "VIRTUAL", "TABLE", rest @ ..] => table_name(rest).map(|(table, _)| table),
        ["ALTER", "TABLE", rest @ ..] => parse_rename(rest).map(|(_, to)| to),
        _ => None,
    }
}

fn filled_table(words: &[String]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let inserts = |word: &&str| matches!(*word, "INSERT" | "REPLACE");
    let begin = match words.first() {
        // `WITH … INSERT INTO t`: the part before INSERT only reads.
        Some(&"WITH") => words.windows(2).position(|pair| inserts(&pair[0]) && matches!(pair[1], "INTO" | "OR"))?,
        _ => 0,
    };
    match words.get(begin..)? {
        ["INSERT", "OR", _, "INTO", rest @ ..] | ["INSERT" | "REPLACE", "INTO", rest @ ..] => {
            table_name(rest).map(|(table, _)| table)
        }
        _ => None,
    }
}

/// The first named table of the main database, and the words after it.
fn table_name<'a, 'w>(words: &'w [&'a str]) -> Option<(String, &'w [&'a str])> {
    match words {
        [schema, ".", table, rest @ ..] if plain_name(schema) == "main" => Some((plain_name(table), rest)),
        [_, ".", ..] | [] => None,
        [table, rest @ ..] => Some((plain_name(table), rest)),
    }
}

fn is_trigger(words: &[String]) -> bool {
    let is = |at: usize, word: &str| words.get(at).is_some_and(|found| found == word);
    is(0, "CREATE") && (is(1, "TRIGGER") || is(2, "TRIGGER"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_decide() {
        let drop = || MigrationStep::Drop { table: "shop".to_owned() };
        let rename = || MigrationStep::Rename { from: "a b".to_owned(), to: "shop".to_owned() };
        for (text, step) in [
            ("; -- why\n drop table if exists main . [Shop];", drop()),
            ("DROP TABLE 'shop'", drop()),
            ("drop table temp.shop", MigrationStep::Other),
            ("drop view shop", MigrationStep::Other),
            ("alter table \"A b\" rename to `Shop`;", rename()),
            ("alter table \"main\".\"A b\" rename to shop", rename()),
            ("alter table a rename column b to c", MigrationStep::Other),
            ("alter table a rename b to c", MigrationStep::Other),
            ("begin immediate", MigrationStep::Begin),
            ("end transaction", MigrationStep::Commit),
            ("rollback to s", MigrationStep::Other),
            ("rollback transaction to savepoint s", MigrationStep::Other),
            ("rollback", MigrationStep::Rollback),
            ("savepoint s", MigrationStep::Other),
            ("pragma main.foreign_keys = 'on'", MigrationStep::ForeignKeys(true)),
            ("PRAGMA foreign_keys(0)", MigrationStep::ForeignKeys(false)),
            ("pragma foreign_keys", MigrationStep::Other),
            ("pragma foreign_key_check", MigrationStep::Other),
            ("explain drop table shop", MigrationStep::Other),
            ("", MigrationStep::Other),
        ] {
            assert_eq!(first_step(text), step, "{text}");
        }
    }

    #[test]
    fn a_later_statement_that_makes_the_table_is_found() {
        for text in [
            "insert into x values(';'); create table if not exists SHOP(a)",
            "alter table new rename to \"shop\"",
            "create table main.shop as select 1",
        ] {
            assert!(makes_table(text, "shop"), "{text}");
        }
        for text in [
            "create temp table shop(a)",
            "create table shops(a)",
            "-- create table shop(a)",
            "alter table shop rename to old",
            "insert into x values('create table shop(a)')",
        ] {
            assert!(!makes_table(text, "shop"), "{text}");
        }
    }

    #[test]
    fn an_insert_is_found() {
        for text in ["insert or ignore into main.shop select 1", "select 1; replace into \"Shop\" values(1)"] {
            assert!(fills_table(text, "shop"), "{text}");
        }
        assert!(!fills_table("insert into shops values('insert into shop')", "shop"));
    }

    #[test]
    fn the_first_begin_or_commit_says_where_the_file_starts() {
        let trigger = "create temp trigger t after insert on a begin select 1; select case when 1 then 2 end; end;";
        for (text, outside) in [
            ("create table a(b); begin; commit", true),
            ("commit; begin", false),
            ("select 1", false),
            (&format!("{trigger} begin; commit"), true),
            (&format!("{trigger} commit; begin"), false),
        ] {
            assert_eq!(begins_outside(text), outside, "{text}");
        }
    }

    #[test]
    fn a_statement_ends_with_its_semicolon() {
        assert_eq!(statement_end(" ;\ncommit /* ; */ ; select 1"), 19);
        assert_eq!(statement_end("commit"), 6);
        let trigger = "create trigger t after insert on a begin select case when 1 then 2 end; select ';'; end ;";
        assert_eq!(statement_end(&format!("{trigger} select 1;")), trigger.len());
    }
}
