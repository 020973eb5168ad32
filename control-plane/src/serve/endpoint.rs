//! One server per data directory, and how commands find it. A server holds `serve.lock`, and `endpoint.json` contains
//! its addresses.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

const LOCK: &str = "serve.lock";
const ENDPOINT: &str = "endpoint.json";
/// Attempts to take the lock. A command that checks for a server holds it for a moment only.
const PROBES_MAX: u32 = 10;
const PROBE: Duration = Duration::from_millis(20);

/// The addresses of a running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerEndpoint {
    /// The URL of the admin API.
    pub admin_url: String,
    /// The URL of the data API.
    pub data_url: String,
    /// The id of the process.
    pub pid: u32,
    /// The path of the admin API's Unix socket, relative to the data directory. `None` if the file system takes no
    /// sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_socket: Option<String>,
    /// The name of the process in the catalog. Its successor releases what the process held there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Device and inode of the lock file. A copy of the directory has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
}

impl ServerEndpoint {
    pub(super) fn new(admin: SocketAddr, data: SocketAddr, tls: bool) -> Self {
        let scheme = if tls { "https" } else { "http" };
        let url = |at| format!("{scheme}://{}", reachable_address(at));
        Self {
            admin_url: url(admin),
            data_url: url(data),
            pid: std::process::id(),
            admin_socket: None,
            owner: None,
            lock: None,
        }
    }
}

/// Replaces an unspecified address such as 0.0.0.0 with loopback, which reaches it on this machine.
fn reachable_address(at: SocketAddr) -> SocketAddr {
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, at.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, at.port())),
        _ => at,
    }
}

/// The right to serve a data directory. The operating system releases it when the process ends.
#[derive(Debug)]
pub(crate) struct ServeLock {
    directory: PathBuf,
    /// The endpoint of a previous process that was killed.
    pub(super) killed: Option<ServerEndpoint>,
    file: File,
}

/// Takes the right to serve.
///
/// # Errors
/// `already_serving` when another process has it; `data_dir_unusable` when the directory cannot be written.
pub(crate) async fn acquire_lock(data_dir: &Path) -> Result<ServeLock> {
    let file = open_lock_file(data_dir)?;
    for _ in 0..PROBES_MAX {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let killed = read_endpoint(data_dir).ok();
                let lock = ServeLock { directory: data_dir.to_path_buf(), killed, file };
                // The endpoint of a killed server must not be mistaken for this server's.
                lock.withdraw_endpoint();
                return Ok(lock);
            }
            Err(Errno::WOULDBLOCK) => tokio::time::sleep(PROBE).await,
            Err(error) => return Err(lock_unusable(LOCK, error.into())),
        }
    }
    Err(already_serving(read_endpoint(data_dir).ok().as_ref()))
}

/// The running server of a data directory. `None` also while a server is starting. Creates nothing.
///
/// # Errors
/// `data_dir_unusable`.
pub fn find_running(data_dir: &Path) -> Result<Option<ServerEndpoint>> {
    let Ok(file) = File::open(data_dir.join(LOCK)) else { return Ok(None) };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(read_endpoint(data_dir).ok()),
        Err(error) => Err(lock_unusable(LOCK, error.into())),
    }
}

impl ServeLock {
    /// Device and inode of the lock file. `None` if the system does not tell.
    pub(super) fn lock_name(&self) -> Option<String> {
        let found = self.file.metadata().ok()?;
        Some(format!("{}:{}", found.dev(), found.ino()))
    }

    /// The catalog's name for the process that held this lock and was killed. An endpoint file that was copied names
    /// another process, which may still run, so it is ignored.
    pub(super) fn owner_before(&self) -> Option<&String> {
        let killed = self.killed.as_ref().filter(|killed| killed.lock.is_some() && killed.lock == self.lock_name())?;
        killed.owner.as_ref()
    }

    /// Writes the endpoint file, completely or not at all.
    pub(super) fn publish_endpoint(&self, endpoint: &ServerEndpoint) -> Result<()> {
        let write = || {
            // A temporary file is readable by its owner only.
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            file.write_all(serde_json::to_string(endpoint).expect("an endpoint is plain JSON").as_bytes())?;
            file.persist(self.directory.join(ENDPOINT)).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| lock_unusable(ENDPOINT, error))
    }

    /// Removes the endpoint file.
    pub(super) fn withdraw_endpoint(&self) {
        // An error does no harm: without the lock nobody trusts the file.
        let _ = std::fs::remove_file(self.directory.join(ENDPOINT));
    }
}

fn open_lock_file(data_dir: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(data_dir.join(LOCK)).map_err(|error| lock_unusable(LOCK, error))
}

fn read_endpoint(data_dir: &Path) -> std::io::Result<ServerEndpoint> {
    let text = std::fs::read_to_string(data_dir.join(ENDPOINT))?;
    serde_json::from_str(&text).map_err(std::io::Error::other)
}

fn already_serving(endpoint: Option<&ServerEndpoint>) -> Error {
    let who = endpoint.map_or_else(String::new, |e| format!(" (process {}, {})", e.pid, e.admin_url));
    Error::new(ErrorKind::AlreadyServing, format!("this data directory is served already{who}"))
        .try_next("use the server that runs, or stop it first")
}

fn lock_unusable(file: &str, error: std::io::Error) -> Error {
    let next = "check that the directory exists and that this user may write there";
    Error::data_dir_unusable(&format!("{file} in the data directory"), next, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn endpoint() -> ServerEndpoint {
        ServerEndpoint::new("0.0.0.0:81".parse().unwrap(), "[::1]:80".parse().unwrap(), true)
    }

    #[tokio::test]
    async fn one_serves_and_the_others_learn_where() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find_running(dir.path()).unwrap(), None);
        let held = acquire_lock(dir.path()).await.unwrap();
        assert_eq!(find_running(dir.path()).unwrap(), None, "locked but not yet published");
        held.publish_endpoint(&endpoint()).unwrap();
        assert_eq!(find_running(dir.path()).unwrap(), Some(endpoint()));
        let refused = acquire_lock(dir.path()).await.unwrap_err();
        assert_eq!(refused.code(), "already_serving");
        assert!(refused.detail.contains("https://127.0.0.1:81"), "{}", refused.detail);
        let mode = std::fs::metadata(dir.path().join(ENDPOINT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_a_killed_server_left_misleads_nobody() {
        let dir = tempfile::tempdir().unwrap();
        acquire_lock(dir.path()).await.unwrap().publish_endpoint(&endpoint()).unwrap();
        assert_eq!(find_running(dir.path()).unwrap(), None);
        assert_eq!(acquire_lock(dir.path()).await.unwrap().killed, Some(endpoint()));
        assert_eq!(acquire_lock(dir.path()).await.unwrap().killed, None, "told once");
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_an_error() {
        assert_eq!(acquire_lock(Path::new("/no/such/place")).await.unwrap_err().code(), "data_dir_unusable");
        assert_eq!(find_running(Path::new("/no/such/place")).unwrap(), None);
    }
}
