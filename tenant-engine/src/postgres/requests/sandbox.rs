//! PURE: decides which SQL a tenant may run. The first protection is the privileges of the logins; this check is the
//! second. It also keeps a connection clean for the next request: no effect on the session may outlive the statement.
//!
//! The first word decides: queries, INSERT, UPDATE, DELETE and EXPLAIN of those are allowed. Transaction control,
//! settings, temporary objects, cursors, prepared statements and DDL are refused. So are functions that reach beyond
//! the statement: those that change settings, take locks of the session, signal other backends, read files, or run a
//! text as SQL (`servers/functions.rs`). SQL in a text would hide all this. It reads tokens (`lexer.rs`) and never runs
//! SQL. A function that a migration made may do what its body says: it belongs to the application.

use super::lexer::{PostgresLexer, PostgresToken};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::servers::functions;

/// Maximum bytes of one SQL text: far beyond what a person or an ORM writes, small enough to parse in milliseconds.
const SQL_LENGTH_MAX: usize = 1_000_000;

/// Maximum depth of nested parentheses. The stack limits the server's parser, too, but with a less clear message.
const DEPTH_MAX: usize = 500;

/// The effect of a statement. It decides what the number of affected rows means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatementEffect {
    /// The statement returns rows and changes none.
    Reads,
    /// The statement changes rows.
    Changes,
}

/// Allows the single statement in `sql`, or says why it is refused.
///
/// # Errors
/// [`ErrorKind::SqlForbidden`]; [`ErrorKind::SqlInvalid`] when the text is not a statement.
pub(super) fn check_statement(sql: &str) -> Result<StatementEffect> {
    if sql.len() > SQL_LENGTH_MAX {
        let message = format!("the SQL is {} bytes long, at most {SQL_LENGTH_MAX} are allowed", sql.len());
        return Err(Error::new(ErrorKind::SqlInvalid, message));
    }
    // NUL ends texts in the protocol, so the text after it would be read as something else.
    if sql.contains('\0') {
        return Err(Error::new(ErrorKind::SqlInvalid, "the SQL contains a NUL character"));
    }
    SandboxReader::new(sql).read_statement()
}

struct SandboxReader<'a> {
    lexer: PostgresLexer<'a>,
    depth: usize,
    /// Depth of the parentheses around the statement itself.
    base: usize,
    verb: Option<StatementEffect>,
    /// The last token, if it was a name or a word.
    before: Option<SqlWord<'a>>,
    /// The role of the next name.
    next: NamePlace,
    /// Depth of the list of relations that is being read.
    relations: Option<usize>,
}

/// The place of a name in the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamePlace {
    /// In an expression: a column, a function or a keyword.
    Anywhere,
    /// The name of a relation that is read.
    Relation,
    /// The name of a relation that rows are written to.
    Target,
    /// Right after that name. A parenthesis there contains columns.
    AfterTarget,
}

#[derive(Clone, Copy)]
enum SqlWord<'a> {
    Plain(&'a str),
    Quoted(&'a str),
}

impl<'a> SandboxReader<'a> {
    fn new(sql: &'a str) -> Self {
        let (verb, before, next, relations) = (None, None, NamePlace::Anywhere, None);
        Self { lexer: PostgresLexer::new(sql), depth: 0, base: 0, verb, before, next, relations }
    }

    fn read_statement(mut self) -> Result<StatementEffect> {
        self.read_beginning()?;
        while let Some(token) = self.lexer.next() {
            self.read_token(token)?;
        }
        self.verb.ok_or_else(|| sql_invalid("the WITH clause has no statement after it"))
    }

    /// Reads up to the word that names the kind of statement.
    fn read_beginning(&mut self) -> Result<()> {
        let mut explains = false;
        loop {
            match self.lexer.next() {
                None => return Err(sql_invalid("the text holds no SQL statement")),
                Some(PostgresToken::Symbol('(')) if !explains => self.open_parenthesis()?,
                Some(PostgresToken::Symbol('(')) => self.options_or_query()?,
                Some(PostgresToken::Word(word))
                    if explains && (same_word(word, "analyze") || same_word(word, "verbose")) => {}
                Some(PostgresToken::Word(word)) if !explains && same_word(word, "explain") => explains = true,
                Some(PostgresToken::Word(word)) => {
                    self.read_first_word(word)?;
                    if explains {
                        self.verb = Some(StatementEffect::Reads);
                    }
                    return Ok(());
                }
                Some(_) => return Err(sql_forbidden("a statement that begins like this")),
            }
        }
    }

    /// After EXPLAIN, a parenthesis contains either options or the query.
    fn options_or_query(&mut self) -> Result<()> {
        let ahead = self.lexer.clone().find(|token| !matches!(token, PostgresToken::Symbol('(')));
        let query = matches!(ahead, Some(PostgresToken::Word(word)) if is_query(word));
        if query {
            return self.open_parenthesis();
        }
        for token in self.lexer.by_ref() {
            if matches!(token, PostgresToken::Symbol(')')) {
                return Ok(());
            }
        }
        Err(sql_invalid("a parenthesis is not closed"))
    }

    fn read_first_word(&mut self, word: &'a str) -> Result<()> {
        self.verb = statement_effect(word);
        self.base = self.depth;
        if self.verb.is_none() && !same_word(word, "with") {
            return Err(forbidden_word(word));
        }
        self.before = Some(SqlWord::Plain(word));
        self.follow_keyword(word);
        Ok(())
    }

    fn read_token(&mut self, token: PostgresToken<'a>) -> Result<()> {
        let before = self.before.take();
        let place = std::mem::replace(&mut self.next, NamePlace::Anywhere);
        match token {
            PostgresToken::Symbol('(') => {
                if let Some(SqlWord::Plain(name) | SqlWord::Quoted(name)) = before
                    && place != NamePlace::AfterTarget
                {
                    check_callable(name)?;
                }
                self.open_parenthesis()?;
            }
            PostgresToken::Symbol(')') => self.depth = self.depth.saturating_sub(1),
            PostgresToken::Symbol('.') => self.next = after_dot(before, place),
            PostgresToken::Symbol(',') if self.relations == Some(self.depth) => self.next = NamePlace::Relation,
            PostgresToken::Word(word) => {
                check_relation(word, place)?;
                self.read_word(word, before)?;
                self.after_target_name(place);
            }
            PostgresToken::Quoted(name) => {
                check_name(name)?;
                check_relation(name, place)?;
                self.before = Some(SqlWord::Quoted(name));
                self.after_target_name(place);
            }
            PostgresToken::UnicodeQuoted => return Err(sql_forbidden("a name with Unicode escapes")),
            PostgresToken::Symbol(_) | PostgresToken::Other => {}
        }
        Ok(())
    }

    fn read_word(&mut self, word: &'a str, before: Option<SqlWord<'a>>) -> Result<()> {
        check_name(word)?;
        if same_word(word, "into")
            && !matches!(before, Some(SqlWord::Plain(before)) if same_word(before, "insert") || same_word(before, "merge"))
        {
            return Err(sql_forbidden("SELECT INTO"));
        }
        // After the queries of a WITH, the word outside all parentheses names the kind of statement.
        if self.verb.is_none() && self.depth == self.base {
            self.verb = statement_effect(word);
        }
        self.before = Some(SqlWord::Plain(word));
        self.follow_keyword(word);
        Ok(())
    }

    /// Handles the text after the name of a relation that rows are written to.
    fn after_target_name(&mut self, place: NamePlace) {
        if place == NamePlace::Target && self.next == NamePlace::Anywhere {
            self.next = NamePlace::AfterTarget;
        }
    }

    /// Derives the role of the next name from a keyword.
    fn follow_keyword(&mut self, word: &str) {
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
        let among = |words: &[&str]| words.iter().any(|known| same_word(word, known));
        if same_word(word, "into") || same_word(word, "update") {
            self.next = NamePlace::Target;
        } else if among(&READS) {
            (self.next, self.relations) = (NamePlace::Relation, Some(self.depth));
        } else if among(&ENDS) {
            self.relations = None;
        }
    }

    fn open_parenthesis(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(sql_invalid("the parentheses are nested too deeply"));
        }
        Ok(())
    }
}

pub(super) fn statement_effect(word: &str) -> Option<StatementEffect> {
    const READS: [&str; 3] = ["select", "values", "table"];
    const CHANGES: [&str; 4] = ["insert", "update", "delete", "merge"];
    let among = |words: &[&str]| words.iter().any(|known| same_word(word, known));
    if among(&READS) {
        return Some(StatementEffect::Reads);
    }
    among(&CHANGES).then_some(StatementEffect::Changes)
}

fn is_query(word: &str) -> bool {
    same_word(word, "with") || statement_effect(word) == Some(StatementEffect::Reads)
}

/// After `pg_catalog.` a name is the server's own. After another schema its role does not change.
fn after_dot(before: Option<SqlWord<'_>>, place: NamePlace) -> NamePlace {
    match before {
        Some(SqlWord::Plain(schema) | SqlWord::Quoted(schema)) if same_word(schema, "pg_catalog") => {
            NamePlace::Relation
        }
        _ if place == NamePlace::AfterTarget => NamePlace::Target,
        _ => NamePlace::Anywhere,
    }
}

/// Refuses a relation of the server that was not reviewed.
fn check_relation(name: &str, place: NamePlace) -> Result<()> {
    if matches!(place, NamePlace::Anywhere | NamePlace::AfterTarget) || functions::may_read(name) {
        return Ok(());
    }
    Err(sql_forbidden(&name.to_ascii_lowercase()))
}

/// Refuses a name that may not be used at all.
fn check_name(name: &str) -> Result<()> {
    if functions::may_name(name) { Ok(()) } else { Err(sql_forbidden(&name.to_ascii_lowercase())) }
}

fn check_callable(name: &str) -> Result<()> {
    if functions::may_call(name) {
        Ok(())
    } else {
        Err(sql_forbidden(&format!("the function {}", name.to_ascii_lowercase())))
    }
}

fn same_word(word: &str, known: &str) -> bool {
    word.eq_ignore_ascii_case(known)
}

fn forbidden_word(word: &str) -> Error {
    const TRANSACTION: [&str; 8] = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"];
    const SCHEMA: [&str; 8] = ["create", "alter", "drop", "truncate", "comment", "grant", "revoke", "reindex"];
    let among = |words: &[&str]| words.iter().any(|known| same_word(word, known));
    if among(&TRANSACTION) {
        let message = "transaction control is not allowed here: send the statements together as one batch";
        return Error::new(ErrorKind::SqlForbidden, message);
    }
    if among(&SCHEMA) {
        let message = "changing the schema is not allowed here: that is what migrations are for";
        return Error::new(ErrorKind::SqlForbidden, message);
    }
    // A word may be of any length, so the message shows its beginning.
    let shown: String = word.chars().take(30).collect();
    sql_forbidden(&shown.to_uppercase())
}

fn sql_forbidden(what: &str) -> Error {
    Error::new(ErrorKind::SqlForbidden, format!("{what} is not allowed in tenant SQL"))
}

fn sql_invalid(why: &str) -> Error {
    Error::new(ErrorKind::SqlInvalid, why)
}

#[cfg(test)]
mod tests;
