//! Opens objects of a local store for reading, without trusting the store's contents.
//!
//! The store's directory may be shared, or mounted from elsewhere. An object must be a regular file. A link could lead
//! to another file of this machine, and opening a pipe could wait without end. Directories may be links, because an
//! operator may spread a store over disks.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};

use crate::tasks;

/// An open object and its length.
pub(super) type OpenObject = (tokio::fs::File, u64);

/// Opens the object at `key` below the store's directory.
///
/// # Errors
/// `NotFound`; `InvalidData` for anything but a regular file; others from the operating system.
pub(super) async fn open_object(root: &Arc<File>, key: &str) -> io::Result<OpenObject> {
    let (root, key) = (Arc::clone(root), key.to_owned());
    let file = tasks::run_blocking(move || open_regular_file(&root, &key)).await?;
    let length = file.1;
    Ok((tokio::fs::File::from_std(file.0), length))
}

fn open_regular_file(root: &File, key: &str) -> io::Result<(File, u64)> {
    // Without NONBLOCK, opening a pipe waits for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(root, key, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NXIO => not_regular_file(),
        rustix::io::Errno::NOTDIR => io::ErrorKind::NotFound.into(),
        other => other.into(),
    })?;
    let file = File::from(opened);
    let found = file.metadata()?;
    if found.is_file() { Ok((file, found.len())) } else { Err(not_regular_file()) }
}

fn not_regular_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a regular file")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{FileType, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_are_objects() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let root = File::open(folder.path()).unwrap();
        std::fs::write(path("plain"), "text").unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        symlink(path("plain"), path("link")).unwrap();
        symlink(path("nowhere"), path("dangling")).unwrap();
        symlink("/dev/zero", path("endless")).unwrap();
        mknodat(&root, "pipe", FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        assert_eq!(open_regular_file(&root, "plain").unwrap().1, 4);
        for name in ["directory", "link", "dangling", "endless", "pipe", "socket"] {
            assert_eq!(open_regular_file(&root, name).unwrap_err().kind(), io::ErrorKind::InvalidData, "{name}");
        }
        for name in ["none", "plain/below"] {
            assert_eq!(open_regular_file(&root, name).unwrap_err().kind(), io::ErrorKind::NotFound, "{name}");
        }
    }
}
