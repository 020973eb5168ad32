//! The contents of the servers: each server lists them, and databases are opened as far as requested.

use std::collections::{HashMap, HashSet};

use catalog::{ServerId, ServerRecord};
use futures_util::StreamExt as _;
use tenant_engine::{InspectionDepth, ServerListing};

use super::compare::{self, ComparisonInput};
use super::finding::DatabaseOwner;
use crate::error::Error;
use crate::operation::StepContext;

/// Databases opened at once, over all servers. Each costs a file or a connection for a moment.
const OPEN_MAX: usize = 16;
/// Servers listed at once.
const SERVERS_MAX: usize = 8;

/// The databases that are opened to read their identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InspectionScope {
    /// None: only names and metadata are used.
    Nothing,
    /// Every database that no operation works on.
    Everything,
    /// Of those, only these, by server and name.
    These(HashSet<(String, String)>),
}

/// A server and its contents, or the reason why it did not answer.
#[derive(Debug)]
pub(super) struct ServerContents {
    pub(super) server: ServerRecord,
    pub(super) listing: Result<ServerListing, Error>,
}

/// The identities of opened databases, or the errors of opening them.
pub(super) type InspectedDatabases = HashMap<(ServerId, String), Result<DatabaseOwner, Error>>;

/// The listing of every server, in the given order.
pub(super) async fn list_servers(context: &StepContext, servers: &[ServerRecord]) -> Vec<ServerContents> {
    let one = |server: ServerRecord| async move {
        let listing = list_server(context, &server).await;
        ServerContents { server, listing }
    };
    futures_util::stream::iter(servers.to_vec()).map(one).buffered(SERVERS_MAX).collect().await
}

async fn list_server(context: &StepContext, server: &ServerRecord) -> Result<ServerListing, Error> {
    let at = context.load_server(server.id).await?;
    Ok(context.engine_of_kind(server.engine)?.list_databases(&at, None).await?)
}

/// Reads the identities of databases, as far as `opening` requests it and opening is safe.
pub(super) async fn inspect_databases(
    context: &StepContext,
    seen: &ComparisonInput<'_>,
    opening: &InspectionScope,
) -> InspectedDatabases {
    let wanted = |server: &ServerRecord, name: &str| match opening {
        InspectionScope::Nothing => false,
        InspectionScope::Everything => true,
        InspectionScope::These(these) => these.contains(&(server.name.clone(), name.to_owned())),
    };
    let mut which: Vec<(ServerId, String)> = Vec::new();
    for (server, name) in compare::databases_to_inspect(seen) {
        if wanted(server, name) {
            which.push((server.id, name.to_owned()));
        }
    }
    let one = |(server, reference): (ServerId, String)| async move {
        let answer = inspect_owner(context, server, &reference).await;
        ((server, reference), answer)
    };
    futures_util::stream::iter(which).map(one).buffer_unordered(OPEN_MAX).collect().await
}

async fn inspect_owner(context: &StepContext, server: ServerId, reference: &str) -> Result<DatabaseOwner, Error> {
    let (engine, at) = context.resolve_placement(server, reference).await?;
    let found = engine.inspect_database(&at, None, InspectionDepth::Ledger).await?;
    Ok(DatabaseOwner::from(&found.identity))
}
