//! A server that goes away: while nobody asks, inside a transaction, under load, in silence.

use std::time::{Duration, Instant};

use catalog::tenants::{self, TenantCriteria};
use catalog::{Catalog, ErrorKind};
use postgres_fixture::Settings;

use super::suite::opening::refused_while_busy;
use super::suite::{Fixture, new_tenant, seed};
use super::world::World;

async fn alone() -> Fixture {
    Fixture::in_world(World::alone(&Settings::default())).await
}

async fn count(catalog: &Catalog) -> catalog::Result<i64> {
    tenants::count_tenants(&mut catalog.read().await?, &TenantCriteria::default()).await
}

#[tokio::test]
async fn a_restart_while_nobody_asks_is_not_noticed() {
    let fixture = alone().await;
    let (server, _) = seed(&fixture.catalog, 1).await;
    assert_eq!(count(&fixture.catalog).await.unwrap(), 1);
    for kill in [false, true] {
        if kill {
            fixture.world.cluster.kill()
        } else {
            fixture.world.cluster.stop()
        }
        fixture.world.cluster.start_again();
        count(&fixture.catalog).await.unwrap();
        let mut tx = fixture.catalog.write().await.unwrap();
        tenants::insert_many(&mut tx, &[new_tenant(&format!("after-{kill}"), server)]).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(count(&fixture.catalog).await.unwrap(), 3);
}

#[tokio::test]
async fn a_restart_inside_a_transaction_ends_it_and_nothing_else() {
    let fixture = alone().await;
    let (server, _) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &[new_tenant("lost", server)]).await.unwrap();
    fixture.world.cluster.stop();
    fixture.world.cluster.start_again();
    let error = tenants::insert_many(&mut tx, &[new_tenant("more", server)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(count(&fixture.catalog).await.unwrap(), 1);

    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &[new_tenant("doubtful", server)]).await.unwrap();
    fixture.world.cluster.stop();
    fixture.world.cluster.start_again();
    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("may or may not have been made"), "{error}");
    drop(fixture.catalog.write().await.unwrap());
}

#[tokio::test]
async fn while_the_server_is_away_it_is_said_soon() {
    let fixture = alone().await;
    count(&fixture.catalog).await.unwrap();
    fixture.world.cluster.stop();
    let started = Instant::now();
    let error = count(&fixture.catalog).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().code()), (ErrorKind::Unavailable, "catalog_unavailable"));
    assert!(started.elapsed() < Duration::from_secs(10));
    fixture.world.cluster.start_again();
    count(&fixture.catalog).await.unwrap();
}

#[tokio::test]
async fn while_the_server_is_known_to_be_away_nobody_waits_and_it_is_found_again() {
    let fixture = alone().await;
    count(&fixture.catalog).await.unwrap();
    fixture.world.cluster.stop();
    count(&fixture.catalog).await.unwrap_err();
    assert!(fixture.catalog.write().await.is_err());
    // Each of these would wait for 3 s; together they take less than one of them.
    let started = Instant::now();
    for _ in 0..50 {
        assert_eq!(count(&fixture.catalog).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(fixture.catalog.write().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    fixture.world.cluster.start_again();
    count(&fixture.catalog).await.unwrap();
    drop(fixture.catalog.write().await.unwrap());
    // A short restart after that is waited for again.
    fixture.world.cluster.stop();
    fixture.world.cluster.start_again();
    count(&fixture.catalog).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_many_hear_it_as_soon_as_one() {
    let fixture = alone().await;
    count(&fixture.catalog).await.unwrap();
    fixture.world.cluster.stop();
    let started = Instant::now();
    let many: Vec<_> = (0..100)
        .map(|_| {
            let catalog = fixture.catalog.clone();
            tokio::spawn(async move { count(&catalog).await })
        })
        .collect();
    for one in many {
        assert_eq!(one.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    // Four at a time, one after the other, would take more than a minute.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    fixture.world.cluster.start_again();
    count(&fixture.catalog).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_acknowledged_write_is_there_and_every_turn_comes_back() {
    let fixture = alone().await;
    let (server, _) = seed(&fixture.catalog, 0).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let catalog = fixture.catalog.clone();
        tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..25 {
                let name = format!("w{writer}-n{number}");
                let write = async {
                    let mut tx = catalog.write().await?;
                    tenants::insert_many(&mut tx, &[new_tenant(&name, server)]).await?;
                    tx.commit().await
                };
                match write.await {
                    Ok(()) => acknowledged.push(name),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                }
            }
            acknowledged
        });
    }
    for _ in 0..2 {
        while count(&fixture.catalog).await.unwrap_or(0) < 5 {
            tokio::task::yield_now().await;
        }
        fixture.world.cluster.stop();
        fixture.world.cluster.start_again();
    }
    let acknowledged: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
    let mut tx = fixture.catalog.write().await.unwrap();
    let found = tenants::list_tenants(&mut tx, &TenantCriteria::default(), None, 10_000).await.unwrap();
    for name in &acknowledged {
        assert_eq!(found.iter().filter(|tenant| tenant.name == *name).count(), 1, "{name}");
    }
    tx.commit().await.unwrap();
    assert!(acknowledged.len() >= 50, "{}", acknowledged.len());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_and_comes_back() {
    let fixture = alone().await;
    let (server, _) = seed(&fixture.catalog, 0).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    fixture.world.cluster.freeze();
    let started = Instant::now();
    let error = tenants::insert_many(&mut tx, &[new_tenant("silent", server)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    drop(tx);
    fixture.world.cluster.thaw();
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &[new_tenant("heard", server)]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_dropped_write_frees_its_lock_at_once_and_its_holder_is_named() {
    let fixture = Fixture::new().await;
    let other = fixture.other_process().await;
    for _ in 0..20 {
        drop(fixture.catalog.write().await.unwrap());
        let started = Instant::now();
        drop(other.write().await.unwrap());
        assert!(started.elapsed() < Duration::from_secs(5), "the lock was kept");
    }
    let mut holder = other.write().await.unwrap();
    let error = refused_while_busy(&fixture.catalog, &mut holder).await;
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(holder);
}

#[tokio::test]
async fn a_process_that_stops_in_the_middle_of_a_write_does_not_fail_the_writes_of_others() {
    let fixture = Fixture::new().await;
    let stopped = fixture.other_process().await;
    let (server, _) = seed(&fixture.catalog, 0).await;
    let mut asleep = stopped.write().await.unwrap();
    tenants::insert_many(&mut asleep, &[new_tenant("half", server)]).await.unwrap();
    // From here on it says nothing more, as a process after SIGSTOP.
    let mut tx = fixture.catalog.write().await.unwrap();
    tenants::insert_many(&mut tx, &[new_tenant("whole", server)]).await.unwrap();
    tx.commit().await.unwrap();
    // It wakes: its write is over, and it can write again.
    assert_eq!(asleep.commit().await.unwrap_err().kind(), ErrorKind::Unavailable);
    drop(stopped.write().await.unwrap());
    assert_eq!(count(&stopped).await.unwrap(), 1);
}

#[tokio::test]
async fn text_orders_by_its_bytes_whatever_the_database_prefers() {
    let world = World::new();
    let database = format!("{}_german", world.database);
    let sql = format!(
        "create database {database} owner {} template template0 locale_provider icu icu_locale 'de' encoding 'UTF8'",
        postgres_fixture::ROLE
    );
    world.cluster.psql("postgres", &sql);
    let world = World { database, ..world };
    let sorted = "select string_agg(name, '' order by name) from (values ('a'), ('B'), ('_')) as v(name)";
    assert_ne!(world.psql(sorted), "B_a", "the database orders as a language does");
    let fixture = Fixture::in_world(world).await;
    let (server, _) = seed(&fixture.catalog, 1).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let (_, ids) = (server, tenants::list_tenants(&mut tx, &TenantCriteria::default(), None, 1).await.unwrap());
    for principal in ["a", "B", "_", "ä", "Z"] {
        catalog::members::set_member(&mut tx, ids[0].id, principal, catalog::members::Role::Reader).await.unwrap();
    }
    let page = catalog::members::list_members(&mut tx, ids[0].id, None, 10).await.unwrap();
    let order: Vec<&str> = page.iter().map(|member| member.principal.as_str()).collect();
    assert_eq!(order, ["B", "Z", "_", "a", "ä"]);
}
