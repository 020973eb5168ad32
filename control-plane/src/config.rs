//! The configuration of a control plane at its start. Plain values: the binary reads flags, environment and files.

mod data_path;

use std::net::SocketAddr;
use std::path::PathBuf;

use catalog::TenantName;
use tenant_router::jwt::JwtIssuer;

pub use data_path::DataPath;

/// Settings of one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory for catalog, keys, tenants and local backups, unless configured otherwise. Absolute.
    pub data_dir: PathBuf,
    /// The address of a catalog on PostgreSQL. `None`: the file `catalog.db` in the data directory.
    pub catalog_url: Option<secrecy::SecretString>,
    /// The fleet's key; `None`: the file `fleet.key` in the data directory.
    pub fleet_key: Option<secrecy::SecretString>,
    /// The URL of the backup store, for instance `s3://bucket/prefix`. `None`: `file://<data_dir>/backups`.
    pub backup_url: Option<String>,
    /// Extra options of the backup store (endpoint, region, credentials), by the store's own names.
    pub backup_options: Vec<(String, secrecy::SecretString)>,
    /// The directory of `pg_dump` and `pg_restore`. `None`: the newest installed version.
    pub postgres_tools: Option<PathBuf>,
    /// Whether this process runs all operations, or only requested ones.
    pub role: ProcessRole,
    /// The address of the data API.
    pub listen: SocketAddr,
    /// The address of the admin API.
    pub admin_listen: SocketAddr,
    /// The path of the data API that names a tenant.
    pub data_path: DataPath,
    /// The domain under which `tenant.<domain>` names a tenant. `None`: tenants are named only by path.
    pub domain: Option<String>,
    /// The data API's own hosts, which name no tenant. Any other host then names the tenant of that custom domain. `None`:
    /// custom domains are off in the data API.
    pub own_hosts: Option<Vec<String>>,
    /// The issuers whose JSON Web Tokens the data API accepts, beside the tokens of the catalog.
    pub jwt_issuers: Vec<JwtIssuer>,
    /// The DNS server that is asked about custom domains and hosts of webhooks. `None`: those of `/etc/resolv.conf`.
    pub dns_server: Option<SocketAddr>,
    /// Certificate chain and key (PEM) of both listeners; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Limits of tenants' statements.
    pub limits: tenant_engine::SessionLimits,
    /// Maximum memory of SQLite, bytes. `None`: half of the machine's.
    pub sqlite_memory_bytes_max: Option<u64>,
    /// How long a request waits for an operation that blocks it, milliseconds.
    pub hold_ms: u64,
    /// Steps at once, over all operations, unless an operation requests fewer. `None`: the runner's own value for
    /// SQLite, where many steps in flight share one flush of the disk.
    pub concurrency: Option<usize>,
    /// How long a replaced database is retained for `restore undo`, milliseconds.
    pub undo_ms: i64,
    /// How long a deleted tenant can be undeleted, milliseconds.
    pub purge_after_ms: i64,
    /// What happens if SQLite files would be on a network file system.
    pub network_file_system: NetworkFileSystem,
    /// The time after which the catalog is copied into the backup store again although no tenant has changed,
    /// milliseconds.
    pub catalog_copy_ms: i64,
}

/// Which operations a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessRole {
    /// A command. Runs only the operations that it submits or waits for.
    Embedded,
    /// A server. Runs every operation, and the background tasks.
    Serving,
}

/// Whether SQLite files may be on a network file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkFileSystem {
    /// Refused.
    Refused,
    /// Allowed: the operator accepts that data can be lost.
    DataLossAccepted,
}

/// Files of a TLS listener.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl Config {
    /// The default configuration for this data directory.
    #[must_use]
    pub fn new(data_dir: PathBuf, role: ProcessRole) -> Self {
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
            data_path: DataPath::default(),
            domain: None,
            own_hosts: None,
            jwt_issuers: Vec::new(),
            dns_server: None,
            tls: None,
            limits: tenant_engine::SessionLimits::default(),
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

/// Parses hosts that are separated by commas, into their normal form.
///
/// # Errors
/// A text for people that says which part is not a host.
pub fn parse_hosts(text: &str) -> Result<Vec<String>, String> {
    let host = |part: &str| match TenantName::parse_host(part.trim()) {
        Ok(host) => Ok(host.to_string()),
        Err(error) => Err(error.to_string()),
    };
    text.split(',').map(host).collect()
}
