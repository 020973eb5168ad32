//! PURE: the statements of a migration that `references.rs` treats in a way of its own, known by their first words.
//!
//! These drop or rename a table, begin or end a transaction, or switch foreign keys. The rest is SQLite's to understand:
//! a statement that is taken for none of these simply runs.

use super::complexity::plain_name;
use super::tokens::{Token, Tokens};

/// The words that decide: `alter table "main"."a" rename to "main"."b"` has nine.
const WORDS_MAX: usize = 12;

/// What a statement is. Names are those that SQLite compares: without quotes, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// DROP TABLE.
    Drop {
        /// The table.
        table: String,
    },
    /// ALTER TABLE … RENAME TO.
    Rename {
        /// The name before.
        from: String,
        /// The name after.
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
    /// Any other.
    Other,
}

/// What the first statement of this text is.
pub(super) fn first(text: &str) -> Step {
    let mut tokens = Tokens::of(text);
    step(&head(&mut tokens))
}

/// Where the first statement of this text ends, its semicolon included.
pub(super) fn end(text: &str) -> usize {
    let mut tokens = Tokens::of(text);
    if is_trigger(&head(&mut tokens)) {
        while tokens.offset() < text.len() && head(&mut tokens).first().is_none_or(|word| word != "END") {}
    }
    tokens.offset()
}

/// True when the first BEGIN or COMMIT of this text is a BEGIN: its author means it to start outside a transaction.
pub(super) fn begins_outside(text: &str) -> bool {
    let mut tokens = Tokens::of(text);
    let mut in_trigger = false;
    while tokens.offset() < text.len() {
        let words = head(&mut tokens);
        match step(&words) {
            Step::Commit if in_trigger => in_trigger = false,
            Step::Begin if !in_trigger => return true,
            Step::Commit | Step::Rollback if !in_trigger => return false,
            _ => in_trigger |= is_trigger(&words),
        }
    }
    false
}

/// True when a statement of this text makes a table of this name, or gives a table this name.
pub(super) fn makes(text: &str, table: &str) -> bool {
    let mut tokens = Tokens::of(text);
    while tokens.offset() < text.len() {
        if made(&head(&mut tokens)).is_some_and(|name| name == table) {
            return true;
        }
    }
    false
}

/// The tables that statements of this text drop or rename.
pub(super) fn dropped_or_renamed(text: &str) -> Vec<String> {
    let mut tokens = Tokens::of(text);
    let mut tables = Vec::new();
    while tokens.offset() < text.len() {
        match step(&head(&mut tokens)) {
            Step::Drop { table } | Step::Rename { from: table, .. } => tables.push(table),
            _ => {}
        }
    }
    tables
}

/// True when a statement of this text inserts into this table.
pub(super) fn fills(text: &str, table: &str) -> bool {
    let mut tokens = Tokens::of(text);
    while tokens.offset() < text.len() {
        if filled(&words(&mut tokens, usize::MAX)).is_some_and(|name| name == table) {
            return true;
        }
    }
    false
}

/// The first words of the statement, with quoted names as they are written. Reads to its semicolon.
fn head(tokens: &mut Tokens<'_>) -> Vec<String> {
    words(tokens, WORDS_MAX)
}

fn words(tokens: &mut Tokens<'_>, words_max: usize) -> Vec<String> {
    let mut words = Vec::new();
    for token in tokens.by_ref() {
        let word = match token {
            Token::Sign(b';') if words.is_empty() => continue,
            Token::Sign(b';') => break,
            Token::Word(word) => word.to_ascii_uppercase(),
            Token::Quoted(name) => name.to_owned(),
            Token::Sign(byte) => char::from(byte).to_string(),
            Token::Variable => "?".to_owned(),
        };
        if words.len() < words_max {
            words.push(word);
        }
    }
    words
}

fn step(words: &[String]) -> Step {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let step = match words.as_slice() {
        ["DROP", "TABLE", "IF", "EXISTS", rest @ ..] | ["DROP", "TABLE", rest @ ..] => {
            name(rest).map(|(table, _)| Step::Drop { table })
        }
        ["ALTER", "TABLE", rest @ ..] => renamed(rest).map(|(from, to)| Step::Rename { from, to }),
        ["BEGIN", ..] => Some(Step::Begin),
        ["COMMIT" | "END", ..] => Some(Step::Commit),
        ["ROLLBACK", "TO", ..] | ["ROLLBACK", "TRANSACTION", "TO", ..] => None,
        ["ROLLBACK", ..] => Some(Step::Rollback),
        ["PRAGMA", "MAIN", ".", rest @ ..] | ["PRAGMA", rest @ ..] => foreign_keys(rest),
        _ => None,
    };
    step.unwrap_or(Step::Other)
}

fn foreign_keys(words: &[&str]) -> Option<Step> {
    match words {
        [pragma, "=" | "(", value, ..] if plain_name(pragma) == "foreign_keys" => {
            Some(Step::ForeignKeys(is_on(&plain_name(value))))
        }
        _ => None,
    }
}

/// As SQLite reads a boolean.
fn is_on(value: &str) -> bool {
    matches!(value, "on" | "yes" | "true") || value.parse::<i64>().is_ok_and(|number| number != 0)
}

fn renamed(words: &[&str]) -> Option<(String, String)> {
    let (from, rest) = name(words)?;
    match rest {
        ["RENAME", "TO", to, ..] => Some((from, plain_name(to))),
        _ => None,
    }
}

fn made(words: &[String]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["CREATE", "TABLE", "IF", "NOT", "EXISTS", rest @ ..]
        | ["CREATE", "TABLE", rest @ ..]
        | ["CREATE", "VIRTUAL", "TABLE", "IF", "NOT", "EXISTS", rest @ ..]
        | ["CREATE", "VIRTUAL", "TABLE", rest @ ..] => name(rest).map(|(table, _)| table),
        ["ALTER", "TABLE", rest @ ..] => renamed(rest).map(|(_, to)| to),
        _ => None,
    }
}

fn filled(words: &[String]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let inserts = |word: &&str| matches!(*word, "INSERT" | "REPLACE");
    let begin = match words.first() {
        // `WITH … INSERT INTO t`: what stands before only reads.
        Some(&"WITH") => words.windows(2).position(|pair| inserts(&pair[0]) && matches!(pair[1], "INTO" | "OR"))?,
        _ => 0,
    };
    match words.get(begin..)? {
        ["INSERT", "OR", _, "INTO", rest @ ..] | ["INSERT" | "REPLACE", "INTO", rest @ ..] => {
            name(rest).map(|(table, _)| table)
        }
        _ => None,
    }
}

/// The table of the main database that is named first, and the words behind it.
fn name<'a, 'w>(words: &'w [&'a str]) -> Option<(String, &'w [&'a str])> {
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
        let drop = || Step::Drop { table: "shop".to_owned() };
        let rename = || Step::Rename { from: "a b".to_owned(), to: "shop".to_owned() };
        for (text, step) in [
            ("; -- why\n drop table if exists main . [Shop];", drop()),
            ("DROP TABLE 'shop'", drop()),
            ("drop table temp.shop", Step::Other),
            ("drop view shop", Step::Other),
            ("alter table \"A b\" rename to `Shop`;", rename()),
            ("alter table \"main\".\"A b\" rename to shop", rename()),
            ("alter table a rename column b to c", Step::Other),
            ("alter table a rename b to c", Step::Other),
            ("begin immediate", Step::Begin),
            ("end transaction", Step::Commit),
            ("rollback to s", Step::Other),
            ("rollback transaction to savepoint s", Step::Other),
            ("rollback", Step::Rollback),
            ("savepoint s", Step::Other),
            ("pragma main.foreign_keys = 'on'", Step::ForeignKeys(true)),
            ("PRAGMA foreign_keys(0)", Step::ForeignKeys(false)),
            ("pragma foreign_keys", Step::Other),
            ("pragma foreign_key_check", Step::Other),
            ("explain drop table shop", Step::Other),
            ("", Step::Other),
        ] {
            assert_eq!(first(text), step, "{text}");
        }
    }

    #[test]
    fn a_later_statement_that_makes_the_table_is_found() {
        for text in [
            "insert into x values(';'); create table if not exists SHOP(a)",
            "alter table new rename to \"shop\"",
            "create table main.shop as select 1",
        ] {
            assert!(makes(text, "shop"), "{text}");
        }
        for text in [
            "create temp table shop(a)",
            "create table shops(a)",
            "-- create table shop(a)",
            "alter table shop rename to old",
            "insert into x values('create table shop(a)')",
        ] {
            assert!(!makes(text, "shop"), "{text}");
        }
    }

    #[test]
    fn an_insert_is_found() {
        for text in ["insert or ignore into main.shop select 1", "select 1; replace into \"Shop\" values(1)"] {
            assert!(fills(text, "shop"), "{text}");
        }
        assert!(!fills("insert into shops values('insert into shop')", "shop"));
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
        assert_eq!(end(" ;\ncommit /* ; */ ; select 1"), 19);
        assert_eq!(end("commit"), 6);
        let trigger = "create trigger t after insert on a begin select case when 1 then 2 end; select ';'; end ;";
        assert_eq!(end(&format!("{trigger} select 1;")), trigger.len());
    }
}
