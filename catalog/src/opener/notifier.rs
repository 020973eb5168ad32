//! [`CatalogNotifier`]: hears the notifications that commits of other processes send. Only Postgres has them.

use crate::dsn::CatalogDsn;
use crate::error::Result;

/// A connection that listens. Without the feature `postgres` it has no values.
pub(crate) struct CatalogNotifier(
    #[cfg(feature = "postgres")] sqlx::postgres::PgListener,
    #[cfg(not(feature = "postgres"))] std::convert::Infallible,
);

#[cfg(feature = "postgres")]
impl CatalogNotifier {
    pub(super) async fn connect(dsn: &CatalogDsn) -> Result<Self> {
        use super::postgres::{CHANNEL, CONNECT_MAX, answer_within, application_name};
        use sqlx::ConnectOptions as _;
        use sqlx::postgres::{PgListener, PgPoolOptions};

        let options = dsn.listener_options(&format!("{}, listening", application_name()))?.disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_MAX);
        let pool = pool.max_lifetime(None).idle_timeout(None).connect_lazy_with(options);
        let attempt = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // A lost connection must be reported and not silently replaced, because missed notifications require a poll.
            listener.eager_reconnect(false);
            listener.ignore_pool_close_event(true);
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        answer_within(CONNECT_MAX, attempt).await.map(Self).map_err(crate::error_mapping::catalog_error)
    }

    /// Waits for a notification. False when the connection is lost.
    pub(crate) async fn next_notice(&mut self) -> bool {
        matches!(self.0.try_recv().await, Ok(Some(_)))
    }
}

#[cfg(not(feature = "postgres"))]
impl CatalogNotifier {
    pub(super) async fn connect(_dsn: &CatalogDsn) -> Result<Self> {
        let message = "this program was built without the feature `postgres`";
        Err(crate::error::Error::new(crate::error::ErrorKind::Refused, message))
    }

    pub(crate) async fn next_notice(&mut self) -> bool {
        match self.0 {}
    }
}
