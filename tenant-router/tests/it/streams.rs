//! Answers of any length that arrive while the database still reads them, on both engines.

use std::time::Duration;

use futures_util::StreamExt as _;
use postgres_fixture::Cluster;
use tenant_engine::{ErrorKind as EngineErrorKind, SessionLimits};
use tenant_router::test_fleet::TestFleet;
use tenant_router::{ErrorKind, Read, Role, Router, Tenant, Write, params};

use crate::world::open;

const SCHEMA: &str = "create table tasks (title text not null)";

/// More rows than an answer may have, and more bytes than the system's buffers of a connection hold.
const ROWS: i64 = 60_000;

/// What differs between the engines.
struct Site {
    fleet: TestFleet,
    /// A value of the row `i` that cannot be computed for the 30,000th row.
    failing: &'static str,
    /// The placeholder of the only parameter.
    parameter: &'static str,
    _cluster: Option<Cluster>,
}

async fn on_sqlite() -> Site {
    let fleet = TestFleet::start(SCHEMA, ["acme", "globex"]).await.unwrap();
    let failing = "abs(case when i = 30000 then -9223372036854775807 - 1 else i end)";
    Site { fleet, failing, parameter: "?1", _cluster: None }
}

async fn on_postgres() -> Site {
    let cluster = Cluster::start();
    let fleet = TestFleet::start_on_postgres(&cluster.dsn("postgres"), SCHEMA, ["acme", "globex"]).await.unwrap();
    Site { fleet, failing: "1 / (30000 - i)", parameter: "$1", _cluster: Some(cluster) }
}

/// A test of each name on each engine.
macro_rules! on_both_engines {
    ($($name:ident)*) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::on_sqlite().await).await; })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::on_postgres().await).await; })* }
    };
}

on_both_engines! {
    an_answer_of_any_length_arrives_whole_and_in_order
    an_answer_without_rows_ends_at_once
    a_refused_statement_is_an_error_before_the_first_row
    an_error_in_the_middle_ends_the_stream_as_an_error
    a_row_that_does_not_fit_ends_the_stream
    a_slow_reader_gets_an_error_and_the_connection_is_free_again
    a_reader_has_the_time_of_a_transaction_not_of_a_statement
    dropped_streams_leave_nothing
    no_row_is_lost_when_the_future_is_dropped
    a_stream_sees_the_columns_of_a_later_migration
}

impl Site {
    async fn acme<A: tenant_router::AccessLevel>(&self, router: &Router) -> Tenant<A> {
        let token = self.fleet.token("acme", Role::Writer).await.unwrap();
        open(router, "acme", &token).await.unwrap()
    }

    async fn reader(&self) -> Tenant<Read> {
        self.acme(self.fleet.router()).await
    }

    /// A reader whose transactions may take this long.
    async fn hasty_reader(&self, transaction_timeout: Duration) -> Tenant<Read> {
        self.limited_reader(SessionLimits { transaction_timeout, ..SessionLimits::default() }).await
    }

    async fn limited_reader(&self, limits: SessionLimits) -> Tenant<Read> {
        let router = self.fleet.router_builder().await.unwrap().limits(limits).build().await.unwrap();
        self.acme(&router).await
    }
}

/// The rows from 1 to `rows`, with this value.
fn counting(rows: i64, value: &str) -> String {
    format!(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows}) \
         select i, {value} as value, 'a title that is long enough to fill the buffers of a connection' as title from n"
    )
}

async fn an_answer_of_any_length_arrives_whole_and_in_order(site: Site) {
    let tenant = site.reader().await;
    let sql = counting(ROWS, &format!("i + {}", site.parameter));
    let mut stream = tenant.stream_as::<(i64, i64, String)>(&sql, [7]).await.unwrap();
    for i in 1..=ROWS {
        let (index, value, _) = stream.next_row().await.unwrap().unwrap();
        assert_eq!((index, value), (i, i + 7));
    }
    assert_eq!(stream.next_row().await.unwrap(), None);
    assert_eq!(stream.next_row().await.unwrap(), None, "it stays at its end");
    let too_long = tenant.query(&sql, [7]).await.unwrap_err();
    assert_eq!(too_long.code(), "rows_max", "the same as one answer is refused");
    let counted = tenant.stream_as::<(i64, i64, String)>(&sql, [7]).await.unwrap().count().await;
    assert_eq!(counted, ROWS as usize, "as a `Stream`");
}

async fn an_answer_without_rows_ends_at_once(site: Site) {
    let tenant = site.reader().await;
    let mut stream = tenant.stream_as::<String>("select title from tasks", ()).await.unwrap();
    assert_eq!(stream.next_row().await.unwrap(), None);
}

async fn a_refused_statement_is_an_error_before_the_first_row(site: Site) {
    let tenant = site.reader().await;
    for (sql, code) in [
        ("select nothing from tasks", "sql_invalid"),
        ("insert into tasks (title) values ('no')", "read_only_transaction"),
        ("select 1; select 2", "sql_invalid"),
        ("commit", "sql_forbidden"),
    ] {
        let refused = tenant.stream_as::<i64>(sql, ()).await.unwrap_err();
        let same = tenant.query(sql, ()).await.unwrap_err();
        assert_eq!(refused.code(), same.code(), "{sql}: a stream refuses as a query");
        assert!(same.code() == code || code == "sql_invalid", "{sql}: {same}");
    }
    let wrong = tenant.stream_as::<i64>("select 1", params![1]).await.unwrap_err();
    assert_eq!(wrong.code(), "parameter_mismatch");
    assert_eq!(tenant.query_as::<i64>("select count(*) from tasks", ()).fetch_one().await.unwrap(), 0);
}

async fn an_error_in_the_middle_ends_the_stream_as_an_error(site: Site) {
    let tenant = site.reader().await;
    let sql = counting(ROWS, site.failing);
    let mut stream = tenant.stream_as::<(i64, i64, String)>(&sql, ()).await.unwrap();
    let mut rows = 0;
    let error = loop {
        match stream.next_row().await {
            Ok(Some(_)) => rows += 1,
            Ok(None) => panic!("the answer ended after {rows} rows as if it were whole"),
            Err(error) => break error,
        }
    };
    assert!(rows < 30_000, "{rows}");
    assert!(matches!(error.kind(), ErrorKind::Database(_)), "{error:?}");
    assert_eq!(stream.next_row().await.unwrap(), None, "nothing follows an error");
}

async fn a_row_that_does_not_fit_ends_the_stream(site: Site) {
    let tenant = site.reader().await;
    let sql = counting(3, "case when i = 2 then null else i end");
    let mut stream = tenant.stream_as::<(i64, i64, String)>(&sql, ()).await.unwrap();
    assert_eq!(stream.next_row().await.unwrap().map(|row| row.0), Some(1));
    let error = stream.next_row().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RowMismatch);
    assert_eq!(stream.next_row().await.unwrap(), None);
}

async fn a_slow_reader_gets_an_error_and_the_connection_is_free_again(site: Site) {
    let tenant = site.hasty_reader(Duration::from_millis(400)).await;
    let mut stream = tenant.stream_as::<(i64, i64, String)>(&counting(ROWS, "i"), ()).await.unwrap();
    stream.next_row().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut rows = 1;
    let error = loop {
        match stream.next_row().await {
            Ok(Some(_)) => rows += 1,
            Ok(None) => panic!("the answer ended after {rows} rows as if it were whole"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::Database(EngineErrorKind::DeadlineExceeded)), "{error:?}");
    for _ in 0..8 {
        assert_eq!(tenant.query_as::<i64>("select 1", ()).fetch_one().await.unwrap(), 1);
    }
}

async fn a_reader_has_the_time_of_a_transaction_not_of_a_statement(site: Site) {
    let statement_timeout = Duration::from_millis(300);
    let tenant = site.limited_reader(SessionLimits { statement_timeout, ..SessionLimits::default() }).await;
    let mut stream = tenant.stream_as::<(i64, i64, String)>(&counting(ROWS, "i"), ()).await.unwrap();
    stream.next_row().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    for _ in 1..ROWS {
        stream.next_row().await.unwrap().unwrap();
    }
    assert_eq!(stream.next_row().await.unwrap(), None);
}

async fn dropped_streams_leave_nothing(site: Site) {
    let tenant = site.reader().await;
    for rows in 0..40 {
        let endless = counting(2_000_000_000, "i");
        let mut stream = tenant.stream_as::<(i64, i64, String)>(&endless, ()).await.unwrap();
        for _ in 0..rows * 50 {
            stream.next_row().await.unwrap().unwrap();
        }
    }
    assert_eq!(tenant.query_as::<i64>("select 1", ()).fetch_one().await.unwrap(), 1);
    let writer: Tenant<Write> = site.acme(site.fleet.router()).await;
    let insert = format!("insert into tasks (title) values ({})", site.parameter);
    writer.execute(&insert, ["written"]).await.unwrap();
    assert_eq!(tenant.query_as::<String>("select title from tasks", ()).fetch_one().await.unwrap(), "written");
}

async fn no_row_is_lost_when_the_future_is_dropped(site: Site) {
    let tenant = site.reader().await;
    let mut stream = tenant.stream_as::<(i64, i64, String)>(&counting(5_000, "i"), ()).await.unwrap();
    let mut expected = 1;
    while expected <= 5_000 {
        // Polled once, and dropped when it has to wait.
        match futures_util::poll!(Box::pin(stream.next_row())) {
            std::task::Poll::Pending => tokio::task::yield_now().await,
            std::task::Poll::Ready(row) => {
                assert_eq!(row.unwrap().unwrap().0, expected);
                expected += 1;
            }
        }
    }
    assert_eq!(stream.next_row().await.unwrap(), None);
}

async fn a_stream_sees_the_columns_of_a_later_migration(site: Site) {
    let (tenant, writer): (Tenant<Read>, Tenant<Write>) = (site.reader().await, site.acme(site.fleet.router()).await);
    writer.execute("insert into tasks (title) values ('first')", ()).await.unwrap();
    let all = "select * from tasks";
    let stream = tenant.stream_as::<serde_json::Value>(all, ()).await.unwrap();
    assert_eq!(stream.count().await, 1);
    site.add_column(&tenant).await;
    for _ in 0..3 {
        let mut stream = tenant.stream_as::<serde_json::Value>(all, ()).await.unwrap();
        let row = stream.next_row().await.unwrap().unwrap();
        assert_eq!(row, serde_json::json!({ "title": "first", "note": null }));
    }
}

impl Site {
    /// As a migration would, from outside of the router.
    async fn add_column(&self, tenant: &Tenant<Read>) {
        let placement = tenant.record().placement.clone().unwrap();
        let sql = "alter table tasks add column note text";
        match &self._cluster {
            Some(cluster) => drop(cluster.psql(&placement, sql)),
            None => {
                let file = self.fleet.data_dir().join("tenants").join(placement);
                rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn streams_of_a_tenant_do_not_take_all_of_its_readers() {
    let site = on_sqlite().await;
    let tenant = site.hasty_reader(Duration::from_secs(2)).await;
    let sql = counting(ROWS, "i");
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(tenant.stream_as::<(i64, i64, String)>(&sql, ()).await.unwrap());
    }
    let mut third = Box::pin(tenant.stream_as::<(i64, i64, String)>(&sql, ()));
    assert!(futures_util::poll!(&mut third).is_pending(), "it waits for a place");
    assert_eq!(tenant.query_as::<i64>("select 1", ()).fetch_one().await.unwrap(), 1, "other requests are served");
    held.clear();
    assert!(third.await.is_ok());
}
