//! PURE: what a tenant's own SQL may be. The privileges of the logins are the wall; this is the second one, and what
//! keeps a connection clean for the next request: nothing a statement does may outlive it.
//!
//! Allowed are queries, DML and EXPLAIN of those, by their first word. Refused are transaction control, settings,
//! temporary objects, cursors, prepared statements, DDL, and functions that reach beyond the statement: those that
//! change settings, take locks of the session, signal other backends, read files, or run a text as SQL, which would
//! hide all this (`functions.rs`). Reads tokens (`lexer.rs`), never runs SQL. A function that a migration made may do
//! what its body says: it is the application's.

use super::functions;
use super::lexer::{Lexer, Token};
use crate::error::{Error, ErrorKind, Result};

/// Length of one SQL text in bytes: far beyond what a person or an ORM writes, small enough to parse in milliseconds.
const SQL_LENGTH_MAX: usize = 1_000_000;

/// Parentheses in parentheses: the server's parser is limited by its stack, and says so less clearly.
const DEPTH_MAX: usize = 500;

/// What the number of affected rows means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Rows are answered.
    Reads,
    /// Rows are changed.
    Changes,
}

/// Allows the one statement in `sql`, or says why not.
///
/// # Errors
/// [`ErrorKind::SqlForbidden`]; [`ErrorKind::SqlInvalid`] when it is no statement at all.
pub(super) fn check(sql: &str) -> Result<Verb> {
    if sql.len() > SQL_LENGTH_MAX {
        let message = format!("the SQL is {} bytes long, at most {SQL_LENGTH_MAX} are allowed", sql.len());
        return Err(Error::new(ErrorKind::SqlInvalid, message));
    }
    // The protocol ends texts with it: what follows would be read as something else.
    if sql.contains('\0') {
        return Err(Error::new(ErrorKind::SqlInvalid, "the SQL contains a NUL character"));
    }
    Reader::new(sql).statement()
}

struct Reader<'a> {
    lexer: Lexer<'a>,
    depth: usize,
    /// How deep the statement itself is.
    base: usize,
    verb: Option<Verb>,
    /// What the last token was, if it was a name or a word.
    before: Option<Word<'a>>,
    /// What the next name is.
    next: Place,
    /// How deep the list of relations is that is being read.
    relations: Option<usize>,
}

/// Where a name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In an expression: a column, a function, a key word.
    Anywhere,
    /// Where a relation is read.
    Relation,
    /// Where rows go to.
    Target,
    /// Right behind that name. A parenthesis there holds columns.
    AfterTarget,
}

#[derive(Clone, Copy)]
enum Word<'a> {
    Plain(&'a str),
    Quoted(&'a str),
}

impl<'a> Reader<'a> {
    fn new(sql: &'a str) -> Self {
        let (verb, before, next, relations) = (None, None, Place::Anywhere, None);
        Self { lexer: Lexer::new(sql), depth: 0, base: 0, verb, before, next, relations }
    }

    fn statement(mut self) -> Result<Verb> {
        self.beginning()?;
        while let Some(token) = self.lexer.next() {
            self.token(token)?;
        }
        self.verb.ok_or_else(|| invalid("the WITH clause has no statement after it"))
    }

    /// Up to the word that says what the statement does.
    fn beginning(&mut self) -> Result<()> {
        let mut explains = false;
        loop {
            match self.lexer.next() {
                None => return Err(invalid("the text holds no SQL statement")),
                Some(Token::Symbol('(')) if !explains => self.open()?,
                Some(Token::Symbol('(')) => self.options_or_query()?,
                Some(Token::Word(word)) if explains && (is(word, "analyze") || is(word, "verbose")) => {}
                Some(Token::Word(word)) if !explains && is(word, "explain") => explains = true,
                Some(Token::Word(word)) => {
                    self.first(word)?;
                    if explains {
                        self.verb = Some(Verb::Reads);
                    }
                    return Ok(());
                }
                Some(_) => return Err(forbidden("a statement that begins like this")),
            }
        }
    }

    /// After EXPLAIN, a parenthesis holds either options, or the query.
    fn options_or_query(&mut self) -> Result<()> {
        let ahead = self.lexer.clone().find(|token| !matches!(token, Token::Symbol('(')));
        let query = matches!(ahead, Some(Token::Word(word)) if is_query(word));
        if query {
            return self.open();
        }
        for token in self.lexer.by_ref() {
            if matches!(token, Token::Symbol(')')) {
                return Ok(());
            }
        }
        Err(invalid("a parenthesis is not closed"))
    }

    fn first(&mut self, word: &'a str) -> Result<()> {
        self.verb = verb(word);
        self.base = self.depth;
        if self.verb.is_none() && !is(word, "with") {
            return Err(forbidden_word(word));
        }
        self.before = Some(Word::Plain(word));
        self.follow(word);
        Ok(())
    }

    fn token(&mut self, token: Token<'a>) -> Result<()> {
        let before = self.before.take();
        let place = std::mem::replace(&mut self.next, Place::Anywhere);
        match token {
            Token::Symbol('(') => {
                if let Some(Word::Plain(name) | Word::Quoted(name)) = before
                    && place != Place::AfterTarget
                {
                    callable(name)?;
                }
                self.open()?;
            }
            Token::Symbol(')') => self.depth = self.depth.saturating_sub(1),
            Token::Symbol('.') => self.next = after_dot(before, place),
            Token::Symbol(',') if self.relations == Some(self.depth) => self.next = Place::Relation,
            Token::Word(word) => {
                relation(word, place)?;
                self.word(word, before)?;
                self.target(place);
            }
            Token::Quoted(name) => {
                named(name)?;
                relation(name, place)?;
                self.before = Some(Word::Quoted(name));
                self.target(place);
            }
            Token::UnicodeQuoted => return Err(forbidden("a name with Unicode escapes")),
            Token::Symbol(_) | Token::Other => {}
        }
        Ok(())
    }

    fn word(&mut self, word: &'a str, before: Option<Word<'a>>) -> Result<()> {
        named(word)?;
        if is(word, "into")
            && !matches!(before, Some(Word::Plain(before)) if is(before, "insert") || is(before, "merge"))
        {
            return Err(forbidden("SELECT INTO"));
        }
        // After the queries of a WITH, the word outside all parentheses that says what the statement does.
        if self.verb.is_none() && self.depth == self.base {
            self.verb = verb(word);
        }
        self.before = Some(Word::Plain(word));
        self.follow(word);
        Ok(())
    }

    /// After the name of a relation that rows go to.
    fn target(&mut self, place: Place) {
        if place == Place::Target && self.next == Place::Anywhere {
            self.next = Place::AfterTarget;
        }
    }

    /// What a key word says about the next name.
    fn follow(&mut self, word: &str) {
        const READS: [&str; 6] = ["from", "join", "table", "using", "only", "lateral"];
        const ENDS: [&str; 12] = [
            "where",
            "group",
            "having",
            "order",
            "limit",
            "offset",
            "union",
            "except",
            "intersect",
            "set",
            "returning",
            "on",
        ];
        let among = |words: &[&str]| words.iter().any(|known| is(word, known));
        if is(word, "into") || is(word, "update") {
            self.next = Place::Target;
        } else if among(&READS) {
            (self.next, self.relations) = (Place::Relation, Some(self.depth));
        } else if among(&ENDS) {
            self.relations = None;
        }
    }

    fn open(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(invalid("the parentheses are nested too deeply"));
        }
        Ok(())
    }
}

fn verb(word: &str) -> Option<Verb> {
    const READS: [&str; 3] = ["select", "values", "table"];
    const CHANGES: [&str; 4] = ["insert", "update", "delete", "merge"];
    let among = |words: &[&str]| words.iter().any(|known| is(word, known));
    if among(&READS) {
        return Some(Verb::Reads);
    }
    among(&CHANGES).then_some(Verb::Changes)
}

fn is_query(word: &str) -> bool {
    is(word, "with") || verb(word) == Some(Verb::Reads)
}

/// After `pg_catalog.` a name is the server's own; after another schema it is what it was before.
fn after_dot(before: Option<Word<'_>>, place: Place) -> Place {
    match before {
        Some(Word::Plain(schema) | Word::Quoted(schema)) if is(schema, "pg_catalog") => Place::Relation,
        _ if place == Place::AfterTarget => Place::Target,
        _ => Place::Anywhere,
    }
}

/// Refuses a relation of the server that nobody has judged.
fn relation(name: &str, place: Place) -> Result<()> {
    if matches!(place, Place::Anywhere | Place::AfterTarget) || functions::may_read(name) {
        return Ok(());
    }
    Err(forbidden(&name.to_ascii_lowercase()))
}

/// Refuses what may not be named at all.
fn named(name: &str) -> Result<()> {
    if functions::may_name(name) { Ok(()) } else { Err(forbidden(&name.to_ascii_lowercase())) }
}

fn callable(name: &str) -> Result<()> {
    if functions::may_call(name) {
        Ok(())
    } else {
        Err(forbidden(&format!("the function {}", name.to_ascii_lowercase())))
    }
}

fn is(word: &str, known: &str) -> bool {
    word.eq_ignore_ascii_case(known)
}

fn forbidden_word(word: &str) -> Error {
    const TRANSACTION: [&str; 8] = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"];
    const SCHEMA: [&str; 8] = ["create", "alter", "drop", "truncate", "comment", "grant", "revoke", "reindex"];
    let among = |words: &[&str]| words.iter().any(|known| is(word, known));
    if among(&TRANSACTION) {
        let message = "transaction control is not allowed here: send the statements together as one batch";
        return Error::new(ErrorKind::SqlForbidden, message);
    }
    if among(&SCHEMA) {
        let message = "changing the schema is not allowed here: that is what migrations are for";
        return Error::new(ErrorKind::SqlForbidden, message);
    }
    // Words are as long as their writer likes.
    let shown: String = word.chars().take(30).collect();
    forbidden(&shown.to_uppercase())
}

fn forbidden(what: &str) -> Error {
    Error::new(ErrorKind::SqlForbidden, format!("{what} is not allowed in tenant SQL"))
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::SqlInvalid, why)
}

#[cfg(test)]
mod tests;
