//! PURE: what a tenant's own SQL may be. The privileges of the logins are the wall; this is the second one, and what
//! keeps a connection clean for the next request: nothing a statement does may outlive it.
//!
//! Allowed are queries, DML and EXPLAIN of those, by their first word. Refused are transaction control, settings,
//! temporary objects, cursors, prepared statements, DDL, and functions that reach beyond the statement: those that
//! change settings, take locks of the session, signal other backends, read files, or run a text as SQL, which would
//! hide all this. Reads tokens (`lexer.rs`), never runs SQL. A function that a migration made may do what its body says:
//! it is the application's.

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

/// Functions that a tenant's SQL may not call.
const FUNCTIONS: [&str; 35] = [
    "set_config",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_notify",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_logical_emit_message",
    "pg_export_snapshot",
    "ts_stat",
    "ts_rewrite",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "crosstab",
    "connectby",
    "xpath_table",
    "pg_log_backend_memory_contexts",
    "pg_replication_origin_session_setup",
    "loread",
    // Large objects are nobody's table: no grant covers them, and a dump fails on what it may not read. By their exact
    // names: a table may well be called lo_orders.
    "lowrite",
    "lo_close",
    "lo_creat",
    "lo_create",
    "lo_export",
    "lo_from_bytea",
    "lo_get",
    "lo_import",
    "lo_lseek",
    "lo_lseek64",
    "lo_open",
    "lo_put",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
];

/// The same, by how they begin: whole families that read files, connect elsewhere, run a text as SQL, or take the
/// advisory locks by which migrations and fences know of each other.
const FUNCTION_FAMILIES: [&str; 13] = [
    "pg_advisory_",
    "pg_try_advisory_",
    "dblink",
    "query_to_xml",
    "table_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "pg_read_",
    "pg_ls_",
    "pg_file_",
    "pg_logical_slot_",
    "pg_stat_",
    "crosstab",
];

/// The same for functions that tell of the server's other databases, roles, sessions and locks, which are other tenants',
/// or of its files, its log and its replication. The views of the same names are refused, too, but anybody may call what
/// is beneath them, and only a superuser could take that right away. Names are those of versions 15 to 18.
const SERVER_FAMILIES: &[&str] = &[
    // Names and existence of roles and databases.
    "pg_describe_object",
    "pg_identify_object",
    "pg_get_object_address",
    "pg_get_userbyid",
    "pg_get_acl",
    "pg_has_role",
    "pg_input_",
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_function_privilege",
    "has_language_privilege",
    "has_largeobject_privilege",
    "has_parameter_privilege",
    "has_schema_privilege",
    "has_sequence_privilege",
    "has_server_privilege",
    "has_table_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "shobj_description",
    "to_regrole",
    "to_regdatabase",
    "regrole",
    "regdatabase",
    "aclexplode",
    "aclinsert",
    "aclremove",
    "aclcontains",
    "acldefault",
    "aclitem",
    "makeaclitem",
    "pg_database_",
    "pg_tablespace_",
    "pg_relation_file",
    "pg_filenode_",
    // Sessions, locks and transactions.
    "pg_lock_",
    "pg_blocking_pids",
    "pg_safe_snapshot_",
    "pg_isolation_",
    "pg_prepared_xact",
    "pg_get_multixact_",
    "pg_get_backend_",
    "pg_get_process_",
    "pg_get_shmem_",
    "pg_get_aios",
    "pg_postmaster_",
    "pg_conf_",
    // Files, log and replication.
    "pg_show_replication_",
    "pg_show_all_file_",
    "pg_hba_",
    "pg_ident_",
    "pg_control_",
    "pg_get_wal_",
    "pg_get_replication_",
    "pg_current_wal_",
    "pg_last_",
    "pg_wal",
    "pg_replication_",
    "pg_backup_",
    "pg_copy_",
    "pg_create_",
    "pg_drop_replication_",
    "pg_sync_replication_",
    "pg_is_wal_",
    "pg_split_walfile_",
    "pg_available_wal_",
    "binary_upgrade_",
];

/// What may not be named: updating the first changes settings; the others tell of the server's other databases, which are
/// other tenants'.
const RELATIONS: [&str; 32] = [
    "pg_settings",
    "pg_database",
    "pg_roles",
    "pg_user",
    "pg_shadow",
    "pg_group",
    "pg_authid",
    "pg_auth_members",
    "pg_locks",
    "pg_shdepend",
    "pg_shdescription",
    "pg_shseclabel",
    "pg_db_role_setting",
    "pg_prepared_xacts",
    "pg_replication_slots",
    "pg_tablespace",
    "pg_parameter_acl",
    "pg_subscription",
    "pg_user_mapping",
    "pg_user_mappings",
    "pg_seclabels",
    "pg_replication_origin",
    "pg_replication_origin_status",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_shmem_allocations",
    "pg_backend_memory_contexts",
    // Types whose input and output tell the names of roles and databases.
    "regrole",
    "_regrole",
    "regdatabase",
    "aclitem",
];

/// The same, by how they begin: who is connected, and how busy everybody is.
const RELATION_FAMILY: &str = "pg_stat_";

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
}

#[derive(Clone, Copy)]
enum Word<'a> {
    Plain(&'a str),
    Quoted(&'a str),
}

impl<'a> Reader<'a> {
    fn new(sql: &'a str) -> Self {
        Self { lexer: Lexer::new(sql), depth: 0, base: 0, verb: None, before: None }
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
        Ok(())
    }

    fn token(&mut self, token: Token<'a>) -> Result<()> {
        let before = self.before.take();
        match token {
            Token::Symbol('(') => {
                if let Some(Word::Plain(name) | Word::Quoted(name)) = before {
                    callable(name)?;
                }
                self.open()?;
            }
            Token::Symbol(')') => self.depth = self.depth.saturating_sub(1),
            Token::Word(word) => self.word(word, before)?,
            Token::Quoted(name) => {
                named(name)?;
                self.before = Some(Word::Quoted(name));
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
        Ok(())
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

/// Refuses what may not be named at all.
fn named(name: &str) -> Result<()> {
    let of_family = name.get(..RELATION_FAMILY.len()).is_some_and(|start| is(start, RELATION_FAMILY));
    let refused = of_family || RELATIONS.iter().any(|relation| is(name, relation));
    if refused { Err(forbidden(&name.to_ascii_lowercase())) } else { Ok(()) }
}

fn callable(name: &str) -> Result<()> {
    let begins = |family: &&str| name.get(..family.len()).is_some_and(|start| is(start, family));
    let of_family = FUNCTION_FAMILIES.iter().chain(SERVER_FAMILIES).any(begins);
    let refused = of_family || FUNCTIONS.iter().any(|function| is(name, function));
    if refused { Err(forbidden(&format!("the function {}", name.to_ascii_lowercase()))) } else { Ok(()) }
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
