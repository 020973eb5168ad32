//! Room and reserve under each server's directory.
//!
//! `pool.rs` asks before a tenant writes; `verbs.rs` makes room before a verb changes anything.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::workers::lock;
use crate::disk::{DiskGauge, DiskReserve};

/// The disk under one server's directory.
#[derive(Debug)]
pub(super) struct Disk {
    /// Whether tenants may write.
    pub(super) gauge: DiskGauge,
    /// What is given up for the work that frees room.
    pub(super) reserve: DiskReserve,
}

/// One for each directory in use: a fleet has a few.
#[derive(Debug, Default)]
pub(super) struct Disks(Mutex<HashMap<PathBuf, Arc<Disk>>>);

impl Disks {
    /// The disk under a server's directory.
    pub(super) fn of(&self, root: &Path) -> Arc<Disk> {
        let mut known = lock(&self.0);
        if let Some(disk) = known.get(root) {
            return Arc::clone(disk);
        }
        let (gauge, reserve) = (DiskGauge::new(root.to_path_buf()), DiskReserve::of_base(root));
        let disk = Arc::new(Disk { gauge, reserve });
        known.insert(root.to_path_buf(), Arc::clone(&disk));
        disk
    }
}
