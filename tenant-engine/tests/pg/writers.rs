//! Fences among writers who do not pause: each is told whether its write was done, and it was exactly then.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenant_engine::*;

use crate::kit::{BASE, Kit, Tenant, set};

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
            let insert = |id| Statement {
                sql: "insert into projects values ($1, 'p')".to_owned(),
                params: vec![Value::Integer(id)],
            };
            let statements = (first..first + rows).map(insert).collect();
            match pool.session(Access::Write, Limits::default()).run(statements, After::Commit).await {
                Ok(_) => self.done.lock().unwrap().extend(first..first + rows),
                Err(error) if error.kind() == ErrorKind::Fenced => return,
                Err(error) => self.wrong.lock().unwrap().push(format!("{rows} written: {error}")),
            }
        }
    }

    /// Reads by this pool, which every stamp of another generation fences as well.
    async fn read(&self, pool: &Pool) {
        while !self.stop.load(Ordering::Relaxed) {
            let statements = vec![Statement { sql: "select count(*) from projects".to_owned(), params: Vec::new() }];
            match pool.session(Access::Read, Limits::default()).run(statements, After::Commit).await {
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
    let pool = kit.engine.connect(&active.at, &active.expected()).await.unwrap();
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
    kit.engine.stamp(&active.at, &active.expected(), &next.identity).await.unwrap();
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
        kit.engine.stamp(&one.at, &frozen.expected(), &thawed.identity).await.unwrap();
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
