//! Stands for the PostgreSQL engine in a program that is built without the feature `postgres`. Its types have no values, so
//! a tenant on PostgreSQL is refused where its server would be made.

use std::convert::Infallible;

use secrecy::SecretString;

use crate::answers::AnswerShare;
use crate::claim::FleetClaims;
use crate::error::{Error, ErrorKind, Result};
use crate::row_stream::RowStream;
use crate::statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
use crate::value::Rows;

/// A server that this program cannot use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PostgresServer(Infallible);

impl PostgresServer {
    /// # Errors
    /// Always [`ErrorKind::ServerInvalid`].
    pub fn from_secret(_secret: &SecretString) -> Result<Self> {
        let message = "this program was built without the feature `postgres`, and the tenant is on PostgreSQL";
        Err(Error::new(ErrorKind::ServerInvalid, message))
    }

    /// Never called, because the type has no values.
    #[must_use]
    pub fn with_claims(self, _claims: FleetClaims) -> Self {
        match self.0 {}
    }

    /// Never called, because the type has no values.
    #[must_use]
    pub fn host_and_port(&self) -> &str {
        match self.0 {}
    }
}

/// A pool that does not exist.
#[derive(Debug, Clone)]
pub struct PostgresPool(Infallible);

impl PostgresPool {
    pub(crate) fn new_session(&self, _access: AccessMode, _limits: SessionLimits) -> PostgresSession {
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

    pub(crate) fn connection_count(&self) -> usize {
        match self.0 {}
    }
}

/// A session that does not exist.
#[derive(Debug)]
pub struct PostgresSession(Infallible);

impl PostgresSession {
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

pub(crate) fn content_hash(_image: impl std::io::Read) -> std::io::Result<String> {
    Err(std::io::Error::other("this program was built without the feature `postgres`"))
}

pub(crate) fn migration_refusals(_migration: &crate::migration::Migration) -> Vec<crate::text_rules::MigrationRefusal> {
    let why = "this program was built without the feature `postgres`, so it cannot check this file".to_owned();
    vec![crate::text_rules::MigrationRefusal { line: 1, why }]
}
