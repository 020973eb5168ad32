//! Fences among writers who do not pause: each is told whether its write was done, and it was exactly then.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, set};
use super::logins::enter;

/// Without care for what is on its way to a session, one in four goes wrong.
const ROUNDS: usize = 20;

/// What the writers share.
#[derive(Default)]
struct Desk {
    next: AtomicI64,
    done: Mutex<BTreeSet<i64>>,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Desk {
    /// Writes by this pool until it is fenced; one row at a time, or two in one transaction.
    async fn write(&self, pool: &Pool, rows: i64) {
        while !self.stop.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(rows, Ordering::Relaxed);
            let insert = |id| SqlStatement {
                sql: "insert into projects values ($1, 'p')".to_owned(),
                params: vec![SqlValue::Integer(id)],
            };
            let statements = (first..first + rows).map(insert).collect();
            match pool
                .new_session(AccessMode::Write, SessionLimits::default())
                .run_statements(statements, AfterStatements::Commit)
                .await
            {
                Ok(_) => self.done.lock().unwrap().extend(first..first + rows),
                Err(error) if error.kind() == ErrorKind::Fenced => return,
                Err(error) => self.wrong.lock().unwrap().push(format!("{rows} written: {error}")),
            }
        }
    }

    /// Reads by this pool, which every stamp of another generation fences as well.
    async fn read(&self, pool: &Pool) {
        while !self.stop.load(Ordering::Relaxed) {
            let statements = vec![SqlStatement { sql: "select count(*) from projects".to_owned(), params: Vec::new() }];
            match pool
                .new_session(AccessMode::Read, SessionLimits::default())
                .run_statements(statements, AfterStatements::Commit)
                .await
            {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Fenced => return,
                Err(error) => self.wrong.lock().unwrap().push(format!("read: {error}")),
            }
        }
    }
}

/// One round: writers and readers at this generation, and in the midst of it the next one with another state. The database
/// as it is then.
async fn restamped(kit: &Kit, desk: &Arc<Desk>, active: &Tenant, state: IdentityState) -> Tenant {
    let pool = kit.engine.open_pool(&active.at, &active.expected()).await.unwrap();
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (desk, pool) = (Arc::clone(desk), pool.clone());
            tokio::spawn(async move {
                match client {
                    0 => desk.read(&pool).await,
                    client => desk.write(&pool, client % 2 + 1).await,
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let next = active.at_generation(active.identity.generation.0 + 1, state);
    kit.engine.stamp_identity(&active.at, &active.expected(), &next.identity).await.unwrap();
    let behind = kit.ask(active, "select count(*) from projects");
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(kit.ask(active, "select count(*) from projects"), behind, "something was written behind the fence");
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_into_a_fence_knows_whether_it_was_done() {
    let kit = Kit::new();
    let mut one = kit.provisioned(&set(&BASE)).await;
    let desk = Arc::new(Desk::default());
    for _ in 0..ROUNDS {
        let frozen = restamped(&kit, &desk, &one, IdentityState::Frozen).await;
        let thawed = one.at_generation(frozen.identity.generation.0 + 1, IdentityState::Active);
        kit.engine.stamp_identity(&one.at, &frozen.expected(), &thawed.identity).await.unwrap();
        // A suspended tenant's database stays as it is, for nobody who knows only the generation before.
        one = restamped(&kit, &desk, &thawed, IdentityState::Active).await;
    }
    assert_eq!(*desk.wrong.lock().unwrap(), Vec::<String>::new());
    let found = kit.ask(&one, "select id from projects order by id");
    let found: BTreeSet<i64> = found.lines().map(|id| id.parse().unwrap()).collect();
    let done = desk.done.lock().unwrap();
    assert!(done.len() > 100, "hardly anything was written: {}", done.len());
    assert_eq!(found, *done, "written without having been told, or told without having been written");
}

/// Which of the two groups the writing login is in.
fn groups(kit: &Kit, one: &Tenant) -> String {
    let sql = "select coalesce(string_agg(g.rolname, ' ' order by g.rolname), '') from pg_auth_members m
               join pg_roles g on g.oid = m.roleid join pg_roles l on l.oid = m.member";
    kit.cluster.psql("postgres", &format!("{sql} where l.rolname = '{}'", one.login(AccessMode::Write)))
}

fn insert(id: i64) -> Vec<SqlStatement> {
    vec![SqlStatement { sql: format!("insert into projects values ({id}, 'p')"), params: Vec::new() }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_to_write_goes_and_comes_with_the_state() {
    use IdentityState::{Active, Frozen, Moved};
    let kit = Kit::new();
    let mut one = kit.provisioned(&set(&BASE)).await;
    assert_eq!(groups(&kit, &one), "fleet_write");
    for (state, groups_then) in [
        (Frozen, "fleet_read"),
        (Active, "fleet_write"),
        (Active, "fleet_write"),
        (Frozen, "fleet_read"),
        (Moved, "fleet_read"),
        (Active, "fleet_write"),
    ] {
        let next = one.at_generation(one.identity.generation.0 + 1, state);
        // Repeated, as by a worker that does not know whether it did it, and with a session inside.
        for _ in 0..2 {
            let inside = enter(&kit, &one, AccessMode::Read, one.database()).await;
            kit.engine.stamp_identity(&one.at, &one.expected(), &next.identity).await.unwrap();
            assert_eq!(groups(&kit, &one), groups_then, "{state:?}");
            drop(inside);
        }
        one = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_worker_takes_nothing_from_a_tenant_that_serves() {
    let kit = Kit::new();
    let one = kit.provisioned(&set(&BASE)).await;
    let next = one.at_generation(2, IdentityState::Active);
    kit.engine.stamp_identity(&one.at, &one.expected(), &next.identity).await.unwrap();
    let pool = kit.engine.open_pool(&next.at, &next.expected()).await.unwrap();
    for round in 0..20 {
        // The same stamp again, given up at any moment.
        let expected = one.expected();
        let again = kit.engine.stamp_identity(&one.at, &expected, &next.identity);
        drop(tokio::time::timeout(Duration::from_millis(2 * round), again).await);
        assert_eq!(groups(&kit, &one), "fleet_write");
        // What was given up may still be ending sessions: a write among that may be in doubt, but not denied.
        let more = pool
            .new_session(AccessMode::Write, SessionLimits::default())
            .run_statements(insert(i64::try_from(round).unwrap()), AfterStatements::Commit)
            .await;
        assert!(more.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::ConnectionLost), "{more:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_denied_for_another_reason_is_told_that_one() {
    let kit = Kit::new();
    let one = kit.provisioned(&set(&BASE)).await;
    let pool = kit.engine.open_pool(&one.at, &one.expected()).await.unwrap();
    let forbidden = || vec![SqlStatement { sql: "delete from _sqlx_migrations".to_owned(), params: Vec::new() }];
    for statements in [forbidden(), [insert(1), forbidden()].concat()] {
        let refused = pool
            .new_session(AccessMode::Write, SessionLimits::default())
            .run_statements(statements, AfterStatements::Commit)
            .await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::SqlForbidden);
    }
    assert_eq!(pool.connection_count(), 2, "one of each login, used again");
    pool.new_session(AccessMode::Write, SessionLimits::default())
        .run_statements(insert(1), AfterStatements::Commit)
        .await
        .unwrap();
    // A right that somebody took is not the caller's fault.
    kit.cluster.psql("postgres", &format!("revoke fleet_write from \"{}\"", one.login(AccessMode::Write)));
    kit.cluster.psql("postgres", &format!("grant fleet_read to \"{}\"", one.login(AccessMode::Write)));
    let denied = pool
        .new_session(AccessMode::Write, SessionLimits::default())
        .run_statements(insert(2), AfterStatements::Commit)
        .await;
    assert_eq!(denied.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_a_fence_finds_open_is_undone_and_says_fenced() {
    let kit = Kit::new();
    let one = kit.provisioned(&set(&BASE)).await;
    let pool = kit.engine.open_pool(&one.at, &one.expected()).await.unwrap();
    let mut session = pool.new_session(AccessMode::Write, SessionLimits::default());
    session.run_statements(insert(1), AfterStatements::Keep).await.unwrap();
    let frozen = one.at_generation(2, IdentityState::Frozen);
    let expected = one.expected();
    let (stamped, refused) = tokio::join!(kit.engine.freeze_database(&one.at, &expected, &frozen.identity), async {
        while groups(&kit, &one) != "fleet_read" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let more =
            SqlStatement { sql: "insert into tasks (title, project_id) values ('t', 1)".to_owned(), params: vec![] };
        session.run_statements(vec![more], AfterStatements::Keep).await
    });
    stamped.unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(kit.ask(&one, "select count(*) from projects"), "0");
}
