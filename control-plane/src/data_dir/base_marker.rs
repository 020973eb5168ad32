//! The marker of a directory of databases. It tells other fleets who owns the directory.
//!
//! It is written when a server is added. A directory of an earlier version has none and gets one at its first use.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tenant_engine::claim::MARKER_BYTES_MAX;
use tenant_engine::server::BASE_MARKER;

/// The owner of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseMarker {
    /// The id of the owning fleet.
    pub(crate) fleet_id: String,
    /// The id of the server that it was marked for. The fleet may have removed that server since.
    pub(crate) server_id: String,
    /// The newest of the fleet's claims, for a directory outside the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<String>,
}

/// The result of reading a marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundMarker {
    /// A valid marker.
    Marked(BaseMarker),
    /// There is no marker.
    Nothing,
    /// A file that is not a marker, or cannot be read.
    Unreadable,
}

impl BaseMarker {
    /// Reads the marker of a directory.
    pub(crate) fn read_marker(base: &Path) -> FoundMarker {
        let file = base.join(BASE_MARKER);
        let text = match std::fs::symlink_metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return FoundMarker::Nothing,
            Ok(found) if found.is_file() && found.len() <= MARKER_BYTES_MAX => std::fs::read_to_string(&file),
            _ => return FoundMarker::Unreadable,
        };
        let marker = text.ok().and_then(|text| serde_json::from_str(&text).ok());
        marker.map_or(FoundMarker::Unreadable, FoundMarker::Marked)
    }

    /// Writes the marker durably. An existing marker is replaced.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn write_marker(&self, base: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(base)?;
        file.write_all(serde_json::to_string(self).expect("a marker is plain JSON").as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(base.join(BASE_MARKER)).map_err(|error| error.error)?;
        File::open(base)?.sync_all()
    }
}
