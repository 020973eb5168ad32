//! Where the suite's catalogs are: each in a directory of its own.

use catalog::db::CatalogLocation;
use sqlx::Connection as _;

/// A place for one catalog.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn location(&self) -> CatalogLocation {
        CatalogLocation::File(self.path())
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("catalog.db")
    }

    /// Runs SQL beside the catalog, as somebody with a database tool would.
    pub(crate) async fn tool(&self, sql: &'static str) {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}?mode=rwc", self.path().display());
        let mut tool = sqlx::AnyConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut tool).await.unwrap();
        tool.close().await.unwrap();
    }

    /// Everything that is stored, as bytes.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let files = ["catalog.db", "catalog.db-wal"].map(|name| self.directory.path().join(name));
        files.iter().filter_map(|file| std::fs::read(file).ok()).flatten().collect()
    }

    /// A catalog made of a snapshot.
    pub(crate) fn restored(&self, snapshot: &std::path::Path) -> Self {
        let world = Self::new();
        std::fs::copy(snapshot, world.path()).unwrap();
        world
    }
}
