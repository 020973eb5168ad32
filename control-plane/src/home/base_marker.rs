//! The marker of a directory of databases: it tells other fleets whose the directory is.
//!
//! Written when a server is added, and at first use for a directory of an earlier version, which had none.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tenant_engine::server::BASE_MARKER;

/// A marker is some hundred bytes; more is not one.
const MARKER_BYTES_MAX: u64 = 4_096;

/// Whose a directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseMarker {
    /// The fleet.
    pub(crate) fleet_id: String,
    /// The server it was marked for; the fleet may have removed that one since.
    pub(crate) server_id: String,
}

/// What is found under the marker's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundMarker {
    /// A marker.
    Marked(BaseMarker),
    /// Nothing.
    Nothing,
    /// Something that is not a marker, or that cannot be read.
    Unreadable,
}

impl BaseMarker {
    /// Looks at a directory.
    pub(crate) fn read(base: &Path) -> FoundMarker {
        let file = base.join(BASE_MARKER);
        let text = match std::fs::symlink_metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return FoundMarker::Nothing,
            Ok(found) if found.is_file() && found.len() <= MARKER_BYTES_MAX => std::fs::read_to_string(&file),
            _ => return FoundMarker::Unreadable,
        };
        let marker = text.ok().and_then(|text| serde_json::from_str(&text).ok());
        marker.map_or(FoundMarker::Unreadable, FoundMarker::Marked)
    }

    /// Writes the marker, durably; one that is there already is replaced.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn write(&self, base: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(base)?;
        file.write_all(serde_json::to_string(self).expect("a marker is plain JSON").as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(base.join(BASE_MARKER)).map_err(|error| error.error)?;
        File::open(base)?.sync_all()
    }
}
