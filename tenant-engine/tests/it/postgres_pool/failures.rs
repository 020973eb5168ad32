//! A server that goes away, hangs, is full; databases that are fenced or gone.

use std::time::{Duration, Instant};

use postgres_fixture::Settings;
use tenant_engine::{AccessMode, ErrorKind, Pool, SessionLimits, SqlValue};

use super::fixture::{Fixture, cell, keep, limits, one_with, read, write};

/// Ends all sessions of tenants, as a fence does.
fn end_sessions(fixture: &Fixture) {
    fixture
        .cluster
        .psql("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where usename like 't\\_%'");
    while fixture.sessions() > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn works_again(pool: &Pool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = read(pool, "select 1").await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn connections_ended_while_idle_cost_no_request() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    for round in 0..10 {
        let mut sessions: Vec<_> =
            (0..4).map(|_| pool.new_session(AccessMode::Read, SessionLimits::default())).collect();
        for session in &mut sessions {
            keep(session, "select 1").await.unwrap();
        }
        for session in &mut sessions {
            session.commit().await.unwrap();
        }
        write(&pool, "update t set v = v").await.unwrap();
        end_sessions(&fixture);
        assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(round + 1));
        // The session says why it ended before anything runs: also a write is repeated.
        write(&pool, &format!("insert into t values({}, 'n{round}')", round + 2)).await.unwrap();
        write(&pool, "update t set v = v").await.unwrap();
    }
    fixture.settles().await;
}

#[tokio::test]
async fn a_transaction_whose_connection_is_ended_is_lost_and_says_so() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    keep(&mut session, "insert into t values(2, 'two')").await.unwrap();
    end_sessions(&fixture);
    let error = keep(&mut session, "insert into t values(3, 'three')").await.unwrap_err();
    // Not "may or may not have been done": the commit was not sent.
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(session.commit().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test]
async fn a_fence_is_found_by_the_next_request() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let pool = fixture.pool(&tenant).await;
    write(&pool, "update t set v = 'one'").await.unwrap();
    fixture.cluster.psql(tenant.database(), "update _fleet_identity set generation = 9");
    end_sessions(&fixture);
    for _ in 0..3 {
        assert_eq!(read(&pool, "select 1").await.unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(write(&pool, "delete from t").await.unwrap_err().kind(), ErrorKind::Fenced);
    }
    fixture.settles().await;
}

#[tokio::test]
async fn a_login_or_a_database_that_is_gone_concerns_its_tenant_only() {
    let fixture = Fixture::new();
    let (tenant, other) = (fixture.tenant().await, fixture.tenant().await);
    let (pool, neighbour) = (fixture.pool(&tenant).await, fixture.pool(&other).await);
    write(&pool, "update t set v = 'one'").await.unwrap();
    let database = tenant.database();
    fixture.cluster.psql("postgres", &format!("revoke connect on database {database} from {database}_w"));
    end_sessions(&fixture);
    let error = write(&pool, "delete from t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
    end_sessions(&fixture);
    fixture.cluster.psql("postgres", &format!("drop database {database}"));
    let error = read(&pool, "select 1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    fixture.cluster.psql("postgres", &format!("drop role {database}_r"));
    let error = read(&pool, "select 1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    assert_eq!(cell(&neighbour, "select count(*) from t").await, SqlValue::Integer(1));
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_in_the_middle_of_requests_is_used_again() {
    let fixture = Fixture::budget(4);
    let pools = fixture.pools(6).await;
    let until = Instant::now() + Duration::from_millis(1_500);
    let running: Vec<_> = pools
        .iter()
        .cloned()
        .map(|pool| {
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while Instant::now() < until {
                    // A write is in doubt while its commit is on the way, alone or behind its rows.
                    let certain = [read(&pool, "select count(*) from t").await];
                    let doubtful = write(&pool, "update t set v = v returning v").await;
                    let doubtful = doubtful.and(write(&pool, "update t set v = v").await);
                    let kinds = |error: tenant_engine::Error| (error.kind(), error.to_string());
                    failed.extend(certain.into_iter().filter_map(Result::err).map(|error| (true, kinds(error))));
                    failed.extend(doubtful.err().map(|error| (false, kinds(error))));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                failed
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| fixture.cluster.stop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let error = read(&pools[0], "select 1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerUnreachable, "{error}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    tokio::task::block_in_place(|| fixture.cluster.start_again());
    for task in running {
        for (certain, (kind, message)) in task.await.unwrap() {
            let fine = kind == ErrorKind::ServerUnreachable || (!certain && kind == ErrorKind::ConnectionLost);
            assert!(fine, "{kind:?}: {message}");
        }
    }
    for pool in &pools {
        works_again(pool).await;
    }
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_delays_requests_to_their_deadline_only() {
    let fixture = Fixture::budget(4);
    let pools = fixture.pools(6).await;
    fixture.cluster.freeze();
    let begun = Instant::now();
    let waiting: Vec<_> = (0..24)
        .map(|n| {
            let (pool, access) = (pools[n % 6].clone(), if n % 2 == 0 { AccessMode::Read } else { AccessMode::Write });
            tokio::spawn(async move { one_with(&pool, access, limits(500, 1_000), "select 1", vec![]).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in waiting {
        answers.push(task.await.unwrap());
    }
    let took = begun.elapsed();
    fixture.cluster.thaw();
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    for answer in answers {
        let error = answer.unwrap_err();
        let fine = [ErrorKind::DeadlineExceeded, ErrorKind::ConnectionsMax, ErrorKind::ServerUnreachable];
        assert!(fine.contains(&error.kind()), "{error}");
    }
    for pool in &pools {
        works_again(pool).await;
    }
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_hangs_does_not_claim_to_be_undone() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    one_with(&pool, AccessMode::Write, limits(300, 1_000), "update t set v = v", vec![]).await.unwrap();
    fixture.cluster.freeze();
    let error = one_with(&pool, AccessMode::Write, limits(300, 1_000), "update t set v = v", vec![]).await.unwrap_err();
    // Before anything can fail: a frozen server does not end.
    fixture.cluster.thaw();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
    works_again(&pool).await;
    fixture.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_others_fill_makes_requests_wait_for_a_bounded_time() {
    let fixture = Fixture::with(&Settings { connections_max: 16, ..Settings::default() });
    let pools = fixture.pools(6).await;
    let mut held: Vec<_> =
        pools.iter().map(|pool| pool.new_session(AccessMode::Read, SessionLimits::default())).collect();
    for session in &mut held {
        keep(session, "select 1").await.unwrap();
    }
    let others = fill(&fixture, 16).await;
    let begun = Instant::now();
    let asked: Vec<_> = (0..12)
        .map(|n| {
            let pool = pools[n % 6].clone();
            tokio::spawn(
                async move { one_with(&pool, AccessMode::Write, limits(700, 2_000), "select 1", vec![]).await },
            )
        })
        .collect();
    for task in asked {
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ServerFull, "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(fixture.report().budget, 6);
    drop(held);
    // One that is idle makes room, on a server that is full.
    write(&pools[0], "update t set v = v").await.unwrap();
    drop(others);
    for pool in &pools {
        works_again(pool).await;
    }
    // Trust comes back one connection a second.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    for pool in &pools {
        write(pool, "update t set v = v").await.unwrap();
    }
    assert!(fixture.report().budget >= 8, "{:?}", fixture.report());
    fixture.settles().await;
}

/// Connections of somebody else, until the server takes no more; it has some for superusers only.
async fn fill(fixture: &Fixture, count: usize) -> Vec<sqlx::PgConnection> {
    use sqlx::Connection as _;
    let mut others = Vec::new();
    for _ in 0..count {
        match sqlx::PgConnection::connect(&fixture.cluster.dsn("postgres")).await {
            Ok(connection) => others.push(connection),
            Err(_) => break,
        }
    }
    others
}
