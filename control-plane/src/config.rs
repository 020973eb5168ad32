//! What a control plane is told at its start. Plain values: the binary reads flags, environment and files.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings of one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds catalog, keys, tenants and local backups unless told otherwise; absolute.
    pub data_dir: PathBuf,
    /// The address of a catalog on Postgres; `None`: the file `catalog.db` in the data directory.
    pub catalog_url: Option<secrecy::SecretString>,
    /// The fleet's key; `None`: the file `fleet.key` in the data directory.
    pub fleet_key: Option<secrecy::SecretString>,
    /// Where backups go; `None`: `file://<data_dir>/backups`. `s3://bucket/prefix` and what else the store knows.
    pub backup_url: Option<String>,
    /// Extra options of the backup store (endpoint, region, credentials), by the store's own names.
    pub backup_options: Vec<(String, secrecy::SecretString)>,
    /// The directory of `pg_dump` and `pg_restore`; `None`: the newest that are installed.
    pub postgres_tools: Option<PathBuf>,
    /// Whether this process runs everything or only what it is asked to.
    pub role: Role,
    /// The data API.
    pub listen: SocketAddr,
    /// The admin API.
    pub admin_listen: SocketAddr,
    /// `tenant.<domain>` names a tenant; `None`: only by path.
    pub domain: Option<String>,
    /// Certificate chain and key (PEM) of both listeners; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Caps of tenants' statements.
    pub limits: tenant_engine::Limits,
    /// Memory that SQLite may take, bytes; `None`: half of the machine's.
    pub sqlite_memory_bytes_max: Option<u64>,
    /// How long a request waits for an operation that blocks it, milliseconds.
    pub hold_ms: u64,
    /// Steps at once, over all operations, unless an operation asks for fewer; `None`: what the runner finds right for
    /// SQLite, where many steps in flight share one flush of the disk.
    pub concurrency: Option<usize>,
    /// How long a replaced database is kept for `restore undo`, milliseconds.
    pub undo_ms: i64,
    /// How long a deleted tenant can come back, milliseconds.
    pub purge_after_ms: i64,
    /// What happens when SQLite files would lie on a network file system.
    pub network_file_system: NetworkFileSystem,
    /// A catalog whose tenants did not change is copied into the backup store again after this time, milliseconds.
    pub catalog_copy_ms: i64,
}

/// Who runs the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A command: runs only the operations it submits or waits for.
    Embedded,
    /// A server: runs every operation, and the background tasks.
    Serving,
}

/// Whether SQLite files may lie on a network file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkFileSystem {
    /// They may not.
    Refused,
    /// They may: the operator accepts that data can be lost.
    DataLossAccepted,
}

/// Files of a TLS listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Config {
    /// The defaults on this data directory.
    #[must_use]
    pub fn new(data_dir: PathBuf, role: Role) -> Self {
        Self {
            data_dir,
            catalog_url: None,
            fleet_key: None,
            backup_url: None,
            backup_options: Vec::new(),
            postgres_tools: None,
            role,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            domain: None,
            tls: None,
            limits: tenant_engine::Limits::default(),
            sqlite_memory_bytes_max: None,
            hold_ms: 2_000,
            concurrency: None,
            undo_ms: 7 * 24 * 3_600_000,
            purge_after_ms: 7 * 24 * 3_600_000,
            network_file_system: NetworkFileSystem::Refused,
            catalog_copy_ms: 3_600_000,
        }
    }
}
