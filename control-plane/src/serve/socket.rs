//! The admin API for commands on the same machine: a Unix socket in the data directory, `socket/admin.sock`.
//!
//! Commands on the same machine need neither the server's address nor trust in its certificate. The file system decides
//! who may connect: the folder (0700) and the socket (0600) belong to their owner alone. A request still needs an
//! operator's token. The server holds `serve.lock` when it binds, so a socket without a listener belongs to a dead
//! process.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{Error as IoError, ErrorKind as IoErrorKind, Result as IoResult};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::net::UnixStream;

use super::bounded::AcceptedConnection;
use crate::error::{Error, ErrorKind, Result};

const FOLDER: &str = "socket";
const NAME: &str = "admin.sock";
/// The path of the socket, relative to the data directory.
pub(super) const RELATIVE: &str = "socket/admin.sock";
/// How long to wait for an answer. A live process accepts at once, or its queue is full, which also counts as alive.
const PROBE: Duration = Duration::from_secs(1);

/// The path of the socket. A socket address holds about a hundred bytes. If the path is longer, its folder is held open
/// and named by its descriptor.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    _folder: Option<File>,
}

impl AdminSocket {
    /// The socket of a server on this data directory. Whether it exists is not checked.
    ///
    /// # Errors
    /// When the path is too long and its folder cannot be opened.
    pub fn of_data_dir(data_dir: &Path) -> IoResult<Self> {
        let path = data_dir.join(RELATIVE);
        if SocketAddr::from_pathname(&path).is_ok() {
            return Ok(Self { path, _folder: None });
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags((OFlags::DIRECTORY | OFlags::CLOEXEC).bits().cast_signed());
        let folder = options.open(data_dir.join(FOLDER))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }

    /// The path to connect to, valid while this value lives.
    #[must_use]
    pub fn socket_path(&self) -> &Path {
        &self.path
    }
}

/// A socket that this process listens on. Its file is removed on drop.
#[derive(Debug)]
pub(super) struct BoundSocket {
    address: AdminSocket,
    /// Device and inode of the socket. A different file at the path belongs to another process.
    file: (u64, u64),
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let same =
            std::fs::symlink_metadata(self.address.socket_path()).is_ok_and(|now| (now.dev(), now.ino()) == self.file);
        if same {
            // A file that remains is replaced by the next server.
            let _ = std::fs::remove_file(self.address.socket_path());
        }
    }
}

/// Binds the socket. The caller must hold the right to serve. `None` if the file system takes no sockets: the server
/// continues, and commands use its address.
///
/// # Errors
/// `already_serving` when another process listens there; `data_dir_unusable` when the path belongs to another user.
pub(super) async fn bind_socket(data_dir: &Path) -> Result<Option<(UnixListener, BoundSocket)>> {
    let bound = match ready_folder(data_dir)? {
        Ok(()) => listen_on_socket(data_dir).await?,
        Err(error) => Err(error),
    };
    Ok(bound
        .inspect_err(|error| tracing::warn!(%error, "no local socket; commands beside this server use its address"))
        .ok())
}

/// Prepares a folder that belongs to this user alone. The outer error is a refusal, the inner one a file system that
/// does not support it.
fn ready_folder(data_dir: &Path) -> Result<IoResult<()>> {
    let folder = data_dir.join(FOLDER);
    let owner = |of: &Metadata| of.uid();
    let found = match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != IoErrorKind::AlreadyExists => return Ok(Err(error)),
        _ => std::fs::symlink_metadata(&folder),
    };
    let (found, above) = match (found, std::fs::metadata(data_dir)) {
        (Ok(found), Ok(above)) => (found, above),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
    };
    let own = [rustix::process::geteuid().as_raw(), owner(&above)].contains(&owner(&found));
    if !found.is_dir() || !own {
        return Err(socket_path_taken("it is not a folder that belongs to this user"));
    }
    if found.permissions().mode() & 0o077 == 0 {
        return Ok(Ok(()));
    }
    Ok(std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)))
}

/// Listens on the socket. The errors are as in [`ready_folder`].
async fn listen_on_socket(data_dir: &Path) -> Result<IoResult<(UnixListener, BoundSocket)>> {
    let address = match AdminSocket::of_data_dir(data_dir) {
        Ok(address) => address,
        Err(error) => return Ok(Err(error)),
    };
    match std::fs::symlink_metadata(address.socket_path()) {
        Err(_) => {}
        Ok(found) if !found.file_type().is_socket() => return Err(socket_path_taken("admin.sock is not a socket")),
        Ok(_) if is_alive(address.socket_path()).await => {
            let detail = format!("another process listens on {RELATIVE} in this data directory");
            return Err(
                Error::new(ErrorKind::AlreadyServing, detail).try_next("use the server that runs, or stop it first")
            );
        }
        Ok(_) => drop(std::fs::remove_file(address.socket_path())),
    }
    Ok(bind_at(address))
}

fn bind_at(address: AdminSocket) -> IoResult<(UnixListener, BoundSocket)> {
    let listener = UnixListener::bind(address.socket_path())?;
    std::fs::set_permissions(address.socket_path(), std::fs::Permissions::from_mode(0o600))?;
    let file = std::fs::symlink_metadata(address.socket_path())?;
    Ok((listener, BoundSocket { address, file: (file.dev(), file.ino()) }))
}

async fn is_alive(path: &Path) -> bool {
    match tokio::time::timeout(PROBE, UnixStream::connect(path)).await {
        Ok(Err(error)) => !matches!(error.kind(), IoErrorKind::ConnectionRefused | IoErrorKind::NotFound),
        Ok(Ok(_)) | Err(_) => true,
    }
}

fn socket_path_taken(why: &str) -> Error {
    Error::new(ErrorKind::DataDirUnusable, format!("cannot use {RELATIVE} in the data directory: {why}"))
        .try_next("remove it, and check who may write in the data directory")
}

impl AcceptedConnection for UnixStream {
    /// The file system has already decided who may connect. If it keeps no modes, the operating system still knows the
    /// user who connects.
    fn prepare_connection(&self) -> IoResult<()> {
        let peer = self.peer_cred()?.uid();
        if [0, rustix::process::geteuid().as_raw()].contains(&peer) {
            return Ok(());
        }
        Err(IoError::new(IoErrorKind::PermissionDenied, format!("the local socket is not for user {peer}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn it_is_its_owners_alone_and_goes_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FOLDER)).unwrap();
        let bound = bind_socket(dir.path()).await.unwrap().unwrap();
        assert_eq!((mode(&dir.path().join(FOLDER)), mode(&dir.path().join(RELATIVE))), (0o700, 0o600));
        assert!(UnixStream::connect(dir.path().join(RELATIVE)).await.is_ok());
        drop(bound);
        assert!(!dir.path().join(RELATIVE).exists());
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, bound) = bind_socket(dir.path()).await.unwrap().unwrap();
        let refused = bind_socket(dir.path()).await.unwrap_err();
        assert_eq!(refused.code(), "already_serving");
        assert!(UnixStream::connect(dir.path().join(RELATIVE)).await.is_ok(), "the live one stays");
        // A killed process leaves its file.
        std::mem::forget(bound);
        drop(listener);
        let (_listener, second) = bind_socket(dir.path()).await.unwrap().unwrap();
        assert!(UnixStream::connect(dir.path().join(RELATIVE)).await.is_ok());
        // A file that replaced the socket stays when the old server ends.
        std::fs::remove_file(dir.path().join(RELATIVE)).unwrap();
        let _third = UnixListener::bind(dir.path().join(RELATIVE)).unwrap();
        drop(second);
        assert!(dir.path().join(RELATIVE).exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_stays_and_stops_the_server() {
        for place in [FOLDER, RELATIVE] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(place);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "mine").unwrap();
            assert_eq!(bind_socket(dir.path()).await.unwrap_err().code(), "data_dir_unusable");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        }
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(FOLDER)).unwrap();
        assert_eq!(
            bind_socket(dir.path()).await.unwrap_err().code(),
            "data_dir_unusable",
            "a link may lead to anyone's folder"
        );
    }

    #[tokio::test]
    async fn a_path_may_be_longer_than_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let bound = bind_socket(&deep).await.unwrap().unwrap();
        assert_eq!(mode(&deep.join(RELATIVE)), 0o600);
        let address = AdminSocket::of_data_dir(&deep).unwrap();
        assert!(UnixStream::connect(address.socket_path()).await.is_ok());
        drop(bound);
        assert!(!deep.join(RELATIVE).exists());
    }
}
