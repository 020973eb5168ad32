//! Stands for the SQLite engine in a program that is built without the feature `sqlite`. Its types have no values. The
//! router refuses a tenant on SQLite, because it has no engine for it.

use std::convert::Infallible;

use crate::answers::AnswerShare;
use crate::error::Result;
use crate::row_reader::RowReader;
use crate::row_stream::RowStream;
use crate::statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
use crate::value::Rows;

/// A pool that does not exist.
#[derive(Debug, Clone)]
pub struct SqlitePool(Infallible);

impl SqlitePool {
    pub(crate) fn new_session(&self, _access: AccessMode, _limits: SessionLimits) -> SqliteSession {
        match self.0 {}
    }

    pub(crate) async fn read_rows<R: RowReader>(
        &self,
        _statement: SqlStatement,
        _limits: SessionLimits,
        _reader: R,
    ) -> Result<R> {
        match self.0 {}
    }

    pub(crate) async fn stream_rows(&self, _statement: SqlStatement, _limits: SessionLimits) -> Result<RowStream> {
        match self.0 {}
    }

    pub(crate) fn with_answer_share(self, _share: AnswerShare) -> Self {
        match self.0 {}
    }

    pub(crate) fn answer_share(&self) -> &AnswerShare {
        match self.0 {}
    }

    pub(crate) async fn close(&self) {
        match self.0 {}
    }

    pub(crate) fn close_idle(&self) {
        match self.0 {}
    }

    pub(crate) fn connection_count(&self) -> usize {
        match self.0 {}
    }
}

/// A session that does not exist.
#[derive(Debug)]
pub struct SqliteSession(Infallible);

impl SqliteSession {
    pub(crate) async fn run_statements(
        &mut self,
        _all: Vec<SqlStatement>,
        _after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        match self.0 {}
    }

    pub(crate) async fn run_own_statements(
        &mut self,
        _all: Vec<SqlStatement>,
        _after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        match self.0 {}
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        match self.0 {}
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        match self.0 {}
    }
}

pub(crate) fn content_hash(_image: impl std::io::Read) -> std::io::Result<(String, u64)> {
    Err(std::io::Error::other("this program was built without the feature `sqlite`"))
}

pub(crate) fn migration_refusals(_migration: &crate::migration::Migration) -> Vec<crate::text_rules::MigrationRefusal> {
    let why = "this program was built without the feature `sqlite`, so it cannot check this file".to_owned();
    vec![crate::text_rules::MigrationRefusal { line: 1, why }]
}
