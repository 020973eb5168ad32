//! Transactions of a [`Tenant`] over several statements: [`ReadTx`] and [`WriteTx`].
//!
//! The first statement begins the transaction, in one hop with the identity check. If the database is not the expected one,
//! nothing has run, and this hop is repeated. Later statements are never repeated.

use serde::de::DeserializeOwned;
use tenant_engine::{self as engine, AfterStatements, DatabaseSession, Rows, SqlStatement};

use crate::error::Result;
use crate::jobs::CommitMark;
use crate::limits::ConnectionHold;
use crate::params::Params;
use crate::tenant::{AccessLevel, CanWrite, Tenant, fenced_transaction_error, new_statement, only_answer};
use crate::typed::TypedQuery;

/// The common part of both kinds of transaction.
pub(crate) struct TenantTransaction<'a, A: AccessLevel> {
    tenant: &'a Tenant<A>,
    access: engine::AccessMode,
    /// `None` until the first statement.
    session: Option<DatabaseSession>,
    /// Counts the session's connection as used.
    held: Option<ConnectionHold>,
    /// When the first of this transaction's new jobs is due.
    job_due_at: Option<i64>,
}

impl<'a, A: AccessLevel> TenantTransaction<'a, A> {
    pub(crate) fn new(tenant: &'a Tenant<A>, access: engine::AccessMode) -> Self {
        Self { tenant, access, session: None, held: None, job_due_at: None }
    }

    async fn run_in_transaction(&mut self, sql: &str, params: Params) -> Result<Rows> {
        let values = params.into_values()?;
        let answers = match &mut self.session {
            Some(session) => session
                .run_statements(vec![new_statement(sql, values)], AfterStatements::Keep)
                .await
                .map_err(fenced_transaction_error)?,
            None => {
                let statements = || vec![new_statement(sql, values.clone())];
                let hop = self.tenant.first_hop(self.access, &statements, AfterStatements::Keep).await?;
                (self.session, self.held) = (Some(hop.session), hop.held);
                hop.answers
            }
        };
        only_answer(answers)
    }

    /// Runs one statement on the fleet's own tables.
    async fn run_own_in_transaction(&mut self, statement: SqlStatement) -> Result<Rows> {
        let answers = match &mut self.session {
            Some(session) => session
                .run_own_statements(vec![statement], AfterStatements::Keep)
                .await
                .map_err(fenced_transaction_error)?,
            None => {
                let hop = self.tenant.first_own_hop(self.access, &statement, AfterStatements::Keep).await?;
                (self.session, self.held) = (Some(hop.session), hop.held);
                hop.answers
            }
        };
        only_answer(answers)
    }
}

/// A transaction that reads; see [`Tenant::read`].
pub struct ReadTx<'a, A: AccessLevel>(pub(crate) TenantTransaction<'a, A>);

impl<A: AccessLevel> ReadTx<'_, A> {
    /// Runs one reading statement.
    ///
    /// # Errors
    /// As [`Tenant::query`]; the error ends the transaction.
    pub async fn query(&mut self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.0.run_in_transaction(sql, params.into()).await
    }

    /// As [`ReadTx::query`], with rows of the type `T`.
    pub fn query_as<'q, T: DeserializeOwned>(
        &'q mut self,
        sql: &'q str,
        params: impl Into<Params>,
    ) -> TypedQuery<'q, T> {
        TypedQuery::new(self.0.run_in_transaction(sql, params.into()))
    }
}

/// A transaction that may write; see [`Tenant::write`].
pub struct WriteTx<'a, A: CanWrite>(pub(crate) TenantTransaction<'a, A>);

impl<A: CanWrite> WriteTx<'_, A> {
    /// Runs one reading statement. It sees the changes of this transaction.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the error rolls the transaction back.
    pub async fn query(&mut self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.0.run_in_transaction(sql, params.into()).await
    }

    /// As [`WriteTx::query`], with rows of the type `T`.
    pub fn query_as<'q, T: DeserializeOwned>(
        &'q mut self,
        sql: &'q str,
        params: impl Into<Params>,
    ) -> TypedQuery<'q, T> {
        TypedQuery::new(self.0.run_in_transaction(sql, params.into()))
    }

    /// Runs one statement that may write.
    ///
    /// # Errors
    /// As [`Tenant::execute`]; the error rolls the transaction back.
    pub async fn execute(&mut self, sql: &str, params: impl Into<Params>) -> Result<Rows> {
        self.0.run_in_transaction(sql, params.into()).await
    }

    /// As [`WriteTx::execute`], with `RETURNING` rows of the type `T`.
    pub fn execute_as<'q, T: DeserializeOwned>(
        &'q mut self,
        sql: &'q str,
        params: impl Into<Params>,
    ) -> TypedQuery<'q, T> {
        TypedQuery::new(self.0.run_in_transaction(sql, params.into()))
    }

    /// Makes all changes durable and visible at once.
    ///
    /// # Errors
    /// When the commit fails; all changes are then rolled back.
    pub async fn commit(mut self) -> Result<()> {
        let mark = self.0.job_due_at.map(|due_at| CommitMark::new(&self.0.tenant.router, self.0.tenant.id(), due_at));
        if let Some(session) = &mut self.0.session {
            session.commit().await.map_err(fenced_transaction_error)?;
        }
        mark.into_iter().for_each(CommitMark::confirm);
        Ok(())
    }

    /// Records that this transaction enqueued a job. The catalog learns of it after the commit.
    pub(crate) fn mark_job(&mut self, due_at: i64) {
        self.0.job_due_at = Some(self.0.job_due_at.map_or(due_at, |known| known.min(due_at)));
    }

    /// The tenant of this transaction.
    pub(crate) fn tenant(&self) -> &Tenant<A> {
        self.0.tenant
    }

    /// Runs one statement on the fleet's own tables in this transaction.
    pub(crate) async fn run_own(&mut self, statement: SqlStatement) -> Result<Rows> {
        self.0.run_own_in_transaction(statement).await
    }

    /// Rolls back all changes and waits for the end of the rollback. Dropping rolls back without waiting.
    ///
    /// # Errors
    /// When the connection is lost; the database then rolls back by itself.
    pub async fn rollback(mut self) -> Result<()> {
        match &mut self.0.session {
            Some(session) => Ok(session.rollback().await?),
            None => Ok(()),
        }
    }
}
