//! Releases: the migrations of one version of the application.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::PageLimit;
use crate::changes::is_false;

/// A release: an immutable set of migrations.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Release)]
pub struct ReleaseView {
    /// Id of the release: `rel_…`.
    pub id: String,
    /// Digest of the versions and checksums of the migrations.
    pub digest: String,
    /// Engines that the SQL is for: any, sqlite, postgres or sqlite+postgres.
    pub engine: String,
    /// Version of the newest migration; null if there is none.
    pub head_version: Option<i64>,
    /// Migrations of the release, ordered by version.
    pub versions: Vec<ReleaseVersion>,
    /// True if new tenants start from this release.
    pub current: bool,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Actor that stored the release.
    pub created_by: String,
    /// Names of the files of the release. Only in answers about one release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// Files of the request that are not migrations. Only in the answer that stores the release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<IgnoredFile>,
    /// Notes to read before the release is used. Only in the answer that stores the release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One migration of a release.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReleaseVersion {
    /// Version: the number before the first underscore of the file's name.
    pub version: i64,
    /// Description: the rest of the file's name.
    pub description: String,
    /// True: runs in a transaction. False: runs outside a transaction.
    pub transactional: bool,
}

/// A migration file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFile {
    /// Name of the file as in the directory: `0001_tasks.sql`, or `postgres/0001_tasks.sql` if each engine has its own.
    pub name: String,
    /// Content of the file, byte for byte.
    pub sql: String,
}

/// A file of a request that is not a migration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IgnoredFile {
    /// Name of the file as it was sent.
    pub name: String,
    /// Reason why the file is not a migration.
    pub why: String,
}

/// Page of a list of releases.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReleaseListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A release to store.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRelease {
    /// All migration files of the directory.
    pub files: Vec<ReleaseFile>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
