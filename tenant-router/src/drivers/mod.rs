//! The drivers themselves on a tenant's database: `rusqlite` on SQLite, `sqlx` on PostgreSQL.
//!
//! Both are lent for one checked transaction, and never together with a path, an address or a connection that outlives
//! it. The transaction begins like all others (`tenant.rs`): if the database is not the one that the catalog names,
//! nothing has run, and it is begun again on the right one.

#[cfg(feature = "sqlite")]
mod lent_rusqlite;
#[cfg(feature = "postgres")]
mod lent_sqlx;

#[cfg(feature = "postgres")]
pub use lent_sqlx::SqlxTx;
#[cfg(feature = "sqlite")]
pub use tenant_engine::sqlite::RusqliteTx;
