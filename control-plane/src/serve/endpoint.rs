//! One server per data directory, and how commands find it: `serve.lock` is held while it serves, `endpoint.json` says
//! where.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const LOCK: &str = "serve.lock";
const ENDPOINT: &str = "endpoint.json";
/// A command that asks whether somebody serves holds the lock for a moment; so often and so long is it waited for.
const PROBES_MAX: u32 = 10;
const PROBE: Duration = Duration::from_millis(20);

/// Where a server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The admin API.
    pub admin_url: String,
    /// The data API.
    pub data_url: String,
    /// The process.
    pub pid: u32,
}

impl Endpoint {
    pub(super) fn new(admin: SocketAddr, data: SocketAddr, tls: bool) -> Self {
        let scheme = if tls { "https" } else { "http" };
        let url = |at| format!("{scheme}://{}", reachable(at));
        Self { admin_url: url(admin), data_url: url(data), pid: std::process::id() }
    }
}

/// Nobody connects to 0.0.0.0; on this machine, loopback reaches it.
fn reachable(at: SocketAddr) -> SocketAddr {
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, at.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, at.port())),
        _ => at,
    }
}

/// The right to serve a data directory; the operating system ends it with the process.
#[derive(Debug)]
pub(crate) struct ServeLock {
    directory: PathBuf,
    _file: File,
}

/// Takes the right to serve.
///
/// # Errors
/// `already_serving` when another process has it, `data_dir_unusable` when the directory cannot be written.
pub(crate) async fn lock(data_dir: &Path) -> Result<ServeLock> {
    let file = open(data_dir)?;
    for _ in 0..PROBES_MAX {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let lock = ServeLock { directory: data_dir.to_path_buf(), _file: file };
                // What a killed server left must not be taken for this one's.
                lock.withdraw();
                return Ok(lock);
            }
            Err(Errno::WOULDBLOCK) => tokio::time::sleep(PROBE).await,
            Err(error) => return Err(unusable(LOCK, error.into())),
        }
    }
    Err(already_serving(read(data_dir).ok().as_ref()))
}

/// The server of a data directory, if one runs; `None` also while it is starting. Makes nothing.
///
/// # Errors
/// `data_dir_unusable`.
pub fn running(data_dir: &Path) -> Result<Option<Endpoint>> {
    let Ok(file) = File::open(data_dir.join(LOCK)) else { return Ok(None) };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(read(data_dir).ok()),
        Err(error) => Err(unusable(LOCK, error.into())),
    }
}

impl ServeLock {
    /// Says where the server is; whole or not at all.
    pub(super) fn publish(&self, endpoint: &Endpoint) -> Result<()> {
        let write = || {
            // Made readable to its owner only.
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            file.write_all(serde_json::to_string(endpoint).expect("an endpoint is plain JSON").as_bytes())?;
            file.persist(self.directory.join(ENDPOINT)).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| unusable(ENDPOINT, error))
    }

    /// Says that there is none any more.
    pub(super) fn withdraw(&self) {
        // Nothing to be done if it stays: without the lock nobody believes it.
        let _ = std::fs::remove_file(self.directory.join(ENDPOINT));
    }
}

fn open(data_dir: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(data_dir.join(LOCK)).map_err(|error| unusable(LOCK, error))
}

fn read(data_dir: &Path) -> std::io::Result<Endpoint> {
    let text = std::fs::read_to_string(data_dir.join(ENDPOINT))?;
    serde_json::from_str(&text).map_err(std::io::Error::other)
}

fn already_serving(endpoint: Option<&Endpoint>) -> Error {
    let who = endpoint.map_or_else(String::new, |e| format!(" (process {}, {})", e.pid, e.admin_url));
    Error::new(409, "already_serving", format!("this data directory is served already{who}"))
        .try_next("use the server that runs, or stop it first")
}

fn unusable(file: &str, error: std::io::Error) -> Error {
    Error::new(500, "data_dir_unusable", format!("cannot use {file} in the data directory: {error}"))
        .try_next("check that the directory exists and that this user may write there")
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn endpoint() -> Endpoint {
        Endpoint::new("0.0.0.0:81".parse().unwrap(), "[::1]:80".parse().unwrap(), true)
    }

    #[tokio::test]
    async fn one_serves_and_the_others_learn_where() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path()).unwrap(), None);
        let held = lock(dir.path()).await.unwrap();
        assert_eq!(running(dir.path()).unwrap(), None, "locked but not yet published");
        held.publish(&endpoint()).unwrap();
        assert_eq!(running(dir.path()).unwrap(), Some(endpoint()));
        let refused = lock(dir.path()).await.unwrap_err();
        assert_eq!(refused.code, "already_serving");
        assert!(refused.detail.contains("https://127.0.0.1:81"), "{}", refused.detail);
        let mode = std::fs::metadata(dir.path().join(ENDPOINT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_a_killed_server_left_misleads_nobody() {
        let dir = tempfile::tempdir().unwrap();
        lock(dir.path()).await.unwrap().publish(&endpoint()).unwrap();
        assert_eq!(running(dir.path()).unwrap(), None);
        assert!(lock(dir.path()).await.is_ok());
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_an_error() {
        assert_eq!(lock(Path::new("/no/such/place")).await.unwrap_err().code, "data_dir_unusable");
        assert_eq!(running(Path::new("/no/such/place")).unwrap(), None);
    }
}
