//! The application over HTTP, with a real fleet in a temporary directory, on both engines.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod background;
mod browser;
mod exports;
mod fleets;
mod isolation;
mod live;
mod members;
mod openapi;
mod processes;
mod refusals;
mod roles;
mod running;
mod sign_up;
mod support;
mod tasks;

/// Runs each test once with organisations on SQLite and once on PostgreSQL.
macro_rules! on_both_engines {
    ($($test:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(&crate::running::RunningTasks::start(None).await).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let cluster = postgres_fixture::Cluster::start();
                super::$test(&crate::running::RunningTasks::start(Some(&cluster)).await).await;
            })*
        }
    };
}
pub(crate) use on_both_engines;
