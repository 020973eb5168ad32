//! Statements on the fleet's own tables (`crate::own_tables`), inside the transaction of a request. They are not checked by
//! the sandbox, which hides these tables from tenant SQL. Called by `session.rs`.

use super::sandbox::{StatementEffect, statement_effect};
use super::transaction::AllowedStatement;
use crate::own_tables::own_table_names;
use crate::statement::SqlStatement;
use crate::value::{Rows, SqlValue};

/// A statement of the fleet's own code: a constant text that begins with the word for its effect.
pub(super) fn allow_own(statement: SqlStatement) -> AllowedStatement {
    let verb = statement.sql.split_whitespace().next().and_then(statement_effect);
    (statement, verb.unwrap_or(StatementEffect::Reads))
}

/// Asks whether all the tables exist.
pub(super) fn look_for_tables() -> SqlStatement {
    let all: Vec<_> = own_table_names().map(|name| format!("to_regclass('public.{name}') is not null")).collect();
    SqlStatement { sql: format!("select ({})::int", all.join(" and ")), params: Vec::new() }
}

/// The answer to [`look_for_tables`].
pub(super) fn are_found(answers: &[Rows]) -> bool {
    answers.first().and_then(|rows| rows.rows.first()).and_then(|row| row.first()) == Some(&SqlValue::Integer(1))
}
