//! Free space and reserve under each server's directory.
//!
//! `requests/pool.rs` asks before a tenant writes; `shared_state.rs` makes room before an engine operation changes
//! anything.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::disk::{DiskGauge, DiskReserve};
use crate::sqlite::locks::lock_ignoring_poison;

/// The disk under one server's directory.
#[derive(Debug)]
pub(in crate::sqlite) struct ServerDisk {
    /// Tells whether tenants may write.
    pub(in crate::sqlite) gauge: DiskGauge,
    /// The reserve that is removed for work that frees space.
    pub(in crate::sqlite) reserve: DiskReserve,
}

/// One entry for each directory in use: a fleet has a few.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct ServerDisks(Mutex<HashMap<PathBuf, Arc<ServerDisk>>>);

impl ServerDisks {
    /// The disk that holds a server's directory.
    pub(in crate::sqlite) fn under_root(&self, root: &Path) -> Arc<ServerDisk> {
        let mut known = lock_ignoring_poison(&self.0);
        if let Some(disk) = known.get(root) {
            return Arc::clone(disk);
        }
        let (gauge, reserve) = (DiskGauge::new(root.to_path_buf()), DiskReserve::of_base(root));
        let disk = Arc::new(ServerDisk { gauge, reserve });
        known.insert(root.to_path_buf(), Arc::clone(&disk));
        disk
    }
}
