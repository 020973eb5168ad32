//! Decides which copy of a fleet's data directory may use a server.
//!
//! A fleet has a list of random ids, the newest last. One id is added each time its data directory is accepted at
//! another place. A server carries the newest id. A process that knows the server's id belongs to the copy that wrote
//! it, or to a later copy. A copy that was left behind does not know the ids that were added since, and is refused.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::server::BASE_MARKER;

/// A marker has some hundred bytes; a larger file is not a marker.
pub const MARKER_BYTES_MAX: u64 = 4_096;
/// Number of ids that are kept. A server that missed more moves than this must be taken over by a command.
const IDS_MAX: usize = 64;

/// The ids of one fleet, oldest first; empty for a fleet that claims no servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetClaims(Vec<String>);

/// What to do about the id that a server carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimStatus {
    /// The server carries the newest id; nothing to do.
    Held,
    /// The newest id must be written to the server.
    Due,
    /// Another copy holds the server.
    Others,
}

impl FleetClaims {
    /// Claims with these ids, oldest first.
    #[must_use]
    pub fn new(mut ids: Vec<String>) -> Self {
        ids.drain(..ids.len().saturating_sub(IDS_MAX));
        Self(ids)
    }

    /// All ids, newest last.
    #[must_use]
    pub fn all_ids(&self) -> &[String] {
        &self.0
    }

    /// The id that the servers must carry; `None` for a fleet that claims no servers.
    #[must_use]
    pub fn newest_id(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }

    /// These claims with one more random id at the end.
    #[must_use]
    pub fn with_new_id(&self) -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        let id = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::new(self.0.iter().cloned().chain([id]).collect())
    }

    /// These claims and the additional ids of `later`: a catalog restored from an older copy does not know the last
    /// ids.
    #[must_use]
    pub fn joined_with(&self, later: &Self) -> Self {
        let added = later.0.iter().filter(|id| !self.0.contains(id));
        Self::new(self.0.iter().chain(added).cloned().collect())
    }

    /// PURE: compares these claims with `found`, the id that a server carries.
    #[must_use]
    pub fn compare_with_server(&self, found: Option<&str>) -> ClaimStatus {
        match (self.newest_id(), found) {
            (None, _) => ClaimStatus::Held,
            (Some(_), None) => ClaimStatus::Due,
            (Some(newest), Some(found)) if newest == found => ClaimStatus::Held,
            (Some(_), Some(found)) if self.0.iter().any(|id| id == found) => ClaimStatus::Due,
            (Some(_), Some(_)) => ClaimStatus::Others,
        }
    }
}

/// The id in the marker of a directory; `None` without a marker, or in a marker of an earlier version.
#[must_use]
pub fn of_directory(base: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(base.join(BASE_MARKER)).ok()?.take(MARKER_BYTES_MAX).read_to_string(&mut text).ok()?;
    let marker: serde_json::Value = serde_json::from_str(&text).ok()?;
    marker["claim"].as_str().map(str::to_owned)
}

/// Refuses a server that another copy holds.
///
/// # Errors
/// [`ErrorKind::ServerClaimed`].
pub fn refuse_others(claim: ClaimStatus, server: impl fmt::Display) -> Result<()> {
    if claim != ClaimStatus::Others {
        return Ok(());
    }
    let message = format!("the server {server} is used by a copy of this data directory that was opened later");
    Err(Error::new(ErrorKind::ServerClaimed, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_knows_its_own_ids_and_no_others() {
        let first = FleetClaims::default().with_new_id();
        let (one, other) = (first.with_new_id(), first.with_new_id());
        let newest = |claims: &FleetClaims| claims.newest_id().map(str::to_owned);
        assert_eq!(one.compare_with_server(None), ClaimStatus::Due);
        assert_eq!(one.compare_with_server(newest(&one).as_deref()), ClaimStatus::Held);
        assert_eq!(one.compare_with_server(newest(&first).as_deref()), ClaimStatus::Due, "it comes after");
        assert_eq!(first.compare_with_server(newest(&one).as_deref()), ClaimStatus::Others, "it was left behind");
        assert_eq!(one.compare_with_server(newest(&other).as_deref()), ClaimStatus::Others);
        assert_eq!(FleetClaims::default().compare_with_server(Some("x")), ClaimStatus::Held, "it claims nothing");
    }

    #[test]
    fn a_catalog_that_was_set_back_learns_its_ids_again() {
        let first = FleetClaims::default().with_new_id();
        let (second, third) = (first.with_new_id(), first.with_new_id().with_new_id());
        assert_eq!(first.joined_with(&third), third);
        assert_eq!(third.joined_with(&first).all_ids().len(), 3);
        assert_eq!(second.joined_with(&first), second);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_newest() {
        let many = (0..200).fold(FleetClaims::default(), |claims, _| claims.with_new_id());
        assert_eq!(many.all_ids().len(), IDS_MAX);
        assert_eq!(many.with_new_id().compare_with_server(many.newest_id()), ClaimStatus::Due);
    }
}
