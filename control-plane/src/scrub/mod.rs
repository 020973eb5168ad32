//! Compares the catalog with the contents of the servers.
//!
//! The catalog is read before and after the servers are listed, so that concurrent changes are not reported as faults.
//! A database is an orphan only if neither reading names it, and missing only if both do. `compare.rs` decides, PURE.
//! `quarantine.rs` acts on findings that a person has confirmed. Nothing here deletes anything.

mod catalog_claims;
pub mod compare;
pub mod finding;
pub mod quarantine;
pub mod server_contents;

use crate::error::Result;
use crate::operation::StepContext;
use catalog_claims::CatalogClaims;
use compare::{ComparisonInput, compare_claims};
use finding::Finding;
pub use server_contents::InspectionScope;
use server_contents::{InspectedDatabases, ServerContents};

/// The result of a scrub.
#[derive(Debug)]
pub struct ScrubSummary {
    /// When the comparison was made, milliseconds since 1970.
    pub at: i64,
    /// Servers that answered.
    pub servers: usize,
    /// Tenants in the catalog.
    pub tenants: usize,
    /// Databases found.
    pub databases: usize,
    /// Databases that were opened to read their identity.
    pub opened: usize,
    /// Tenants that were left out, because an operation works on them or changed them meanwhile.
    pub busy: usize,
    /// Databases of other fleets. They are counted and not judged.
    pub foreign: usize,
    /// The findings, in the order of servers and names.
    pub findings: Vec<Finding>,
}

/// Everything that one scrub has gathered.
struct ScrubEvidence {
    before: CatalogClaims,
    after: CatalogClaims,
    places: Vec<ServerContents>,
    asked: InspectedDatabases,
}

impl ScrubEvidence {
    fn comparison_input(&self) -> ComparisonInput<'_> {
        ComparisonInput { before: &self.before, after: &self.after, places: &self.places, asked: &self.asked }
    }
}

/// Lists every server and compares.
///
/// # Errors
/// Those of the catalog. A server or database that does not answer is a finding.
pub async fn run_scrub(context: &StepContext, opening: &InspectionScope) -> Result<ScrubSummary> {
    Ok(compare_claims(&gather_evidence(context, opening).await?.comparison_input()))
}

async fn gather_evidence(context: &StepContext, opening: &InspectionScope) -> Result<ScrubEvidence> {
    let before = CatalogClaims::read_claims(&context.catalog).await?;
    let places = server_contents::list_servers(context, &before.servers).await;
    let nothing = InspectedDatabases::new();
    let seen = ComparisonInput { before: &before, after: &before, places: &places, asked: &nothing };
    let asked = server_contents::inspect_databases(context, &seen, opening).await;
    let after = CatalogClaims::read_claims(&context.catalog).await?;
    Ok(ScrubEvidence { before, after, places, asked })
}
