//! The connections of one tenant's file: plain values, run by the shared workers.

use crate::error::Result;
use crate::pool::{Access, After, Limits, Statement};
use crate::value::Rows;

/// Read connections and one writer slot of one tenant. Clones are one pool.
#[derive(Debug, Clone)]
pub struct SqlitePool {}

impl SqlitePool {
    pub(crate) fn session(&self, _access: Access, _limits: Limits) -> SqliteSession {
        todo!()
    }
    pub(crate) async fn close(&self) {
        todo!()
    }
    pub(crate) fn connections(&self) -> usize {
        todo!()
    }
}

/// One transaction on one connection.
#[derive(Debug)]
pub struct SqliteSession {}

impl SqliteSession {
    pub(crate) async fn run(&mut self, _statements: Vec<Statement>, _after: After) -> Result<Vec<Rows>> {
        todo!()
    }
    pub(crate) async fn commit(&mut self) -> Result<()> {
        todo!()
    }
    pub(crate) async fn rollback(&mut self) -> Result<()> {
        todo!()
    }
}
