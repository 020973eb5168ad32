//! What the servers hold: listed by each, and opened as far as is asked.

use std::collections::{HashMap, HashSet};

use catalog::{ServerId, ServerRecord};
use futures_util::StreamExt as _;
use tenant_engine::{Depth, Listing};

use super::compare::{self, Seen};
use super::finding::Whose;
use crate::error::Error;
use crate::operations::Fleet;

/// Databases opened at once, over all servers: each is a file or a connection for a moment.
const OPEN_MAX: usize = 16;
/// Servers listed at once.
const SERVERS_MAX: usize = 8;

/// Which databases are opened to be asked whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// None: names and metadata only.
    Nothing,
    /// Every one that no operation works on.
    Everything,
    /// Of those, these: by server and name.
    These(HashSet<(String, String)>),
}

/// A server and what it holds, or why it does not say.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) server: ServerRecord,
    pub(super) listing: Result<Listing, Error>,
}

/// What opened databases say of themselves, or why they do not.
pub(super) type Asked = HashMap<(ServerId, String), Result<Whose, Error>>;

/// Every server's listing, in the order given.
pub(super) async fn list(fleet: &Fleet, servers: &[ServerRecord]) -> Vec<Place> {
    let one = |server: ServerRecord| async move {
        let listing = listing(fleet, &server).await;
        Place { server, listing }
    };
    futures_util::stream::iter(servers.to_vec()).map(one).buffered(SERVERS_MAX).collect().await
}

async fn listing(fleet: &Fleet, server: &ServerRecord) -> Result<Listing, Error> {
    let at = fleet.server(server.id).await?;
    Ok(fleet.engine(server.engine)?.databases(&at, None).await?)
}

/// Asks databases whose they are, as far as `opening` wishes and it is safe.
pub(super) async fn ask(fleet: &Fleet, seen: &Seen<'_>, opening: &Opening) -> Asked {
    let wanted = |server: &ServerRecord, name: &str| match opening {
        Opening::Nothing => false,
        Opening::Everything => true,
        Opening::These(these) => these.contains(&(server.name.clone(), name.to_owned())),
    };
    let mut which: Vec<(ServerId, String)> = Vec::new();
    for (server, name) in compare::askable(seen) {
        if wanted(server, name) {
            which.push((server.id, name.to_owned()));
        }
    }
    let one = |(server, reference): (ServerId, String)| async move {
        let answer = inspect(fleet, server, &reference).await;
        ((server, reference), answer)
    };
    futures_util::stream::iter(which).map(one).buffer_unordered(OPEN_MAX).collect().await
}

async fn inspect(fleet: &Fleet, server: ServerId, reference: &str) -> Result<Whose, Error> {
    let (engine, at) = fleet.at(server, reference).await?;
    let found = engine.inspect(&at, None, Depth::Ledger).await?;
    Ok(Whose::from(&found.identity))
}
