//! Holds the catalog against what is really on the servers.
//!
//! The catalog is read before and after the servers are looked at, so that what changes meanwhile is not taken for a
//! fault: a database is an orphan only if neither reading names it, and missing only if both do. `compare.rs` decides,
//! PURE; `quarantine.rs` acts on what a human has looked at. Nothing here deletes anything.

mod claims;
pub mod compare;
pub mod finding;
pub mod look;
pub mod quarantine;

use crate::error::Result;
use crate::operations::Fleet;
use claims::Claims;
use compare::{Seen, compare};
use finding::Finding;
pub use look::Opening;
use look::{Asked, Place};

/// What a scrub came to.
#[derive(Debug)]
pub struct Report {
    /// When the comparison was made, milliseconds since 1970.
    pub at: i64,
    /// Servers that answered.
    pub servers: usize,
    /// Tenants in the catalog.
    pub tenants: usize,
    /// Databases found.
    pub databases: usize,
    /// Of these, how many were opened and asked whose they are.
    pub opened: usize,
    /// Tenants that were left out, because an operation works on them or changed them meanwhile.
    pub busy: usize,
    /// Databases of other fleets, which are none of our business.
    pub foreign: usize,
    /// In the order of servers and names.
    pub findings: Vec<Finding>,
}

/// Everything one look has gathered.
struct Gathered {
    before: Claims,
    after: Claims,
    places: Vec<Place>,
    asked: Asked,
}

impl Gathered {
    fn seen(&self) -> Seen<'_> {
        Seen { before: &self.before, after: &self.after, places: &self.places, asked: &self.asked }
    }
}

/// Looks at every server and compares.
///
/// # Errors
/// Those of the catalog; a server or a database that does not answer is a finding.
pub async fn run(fleet: &Fleet, opening: &Opening) -> Result<Report> {
    Ok(compare(&gather(fleet, opening).await?.seen()))
}

async fn gather(fleet: &Fleet, opening: &Opening) -> Result<Gathered> {
    let before = Claims::read(&fleet.catalog).await?;
    let places = look::list(fleet, &before.servers).await;
    let nothing = Asked::new();
    let seen = Seen { before: &before, after: &before, places: &places, asked: &nothing };
    let asked = look::ask(fleet, &seen, opening).await;
    let after = Claims::read(&fleet.catalog).await?;
    Ok(Gathered { before, after, places, asked })
}
