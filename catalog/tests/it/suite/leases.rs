//! What live processes hold for a while.

use catalog::leases::{self, ConnectionShare};

use super::{Fixture, START, seed};

#[tokio::test]
async fn a_task_has_one_owner_until_its_time_is_over() {
    let fixture = Fixture::new().await;
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(leases::take_task(&mut tx, "trim", "a", START + 100).await.unwrap());
    assert!(!leases::take_task(&mut tx, "trim", "b", START + 100).await.unwrap());
    assert!(leases::take_task(&mut tx, "expire", "b", START + 100).await.unwrap(), "another task");
    assert!(leases::take_task(&mut tx, "trim", "a", START + 200).await.unwrap(), "renewed");
    tx.commit().await.unwrap();
    fixture.advance(200);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert!(leases::take_task(&mut tx, "trim", "b", START + 300).await.unwrap());
    assert!(!leases::take_task(&mut tx, "trim", "a", START + 300).await.unwrap(), "taken over");
    leases::release_task(&mut tx, "trim", "a").await.unwrap();
    assert!(!leases::take_task(&mut tx, "trim", "a", START + 300).await.unwrap(), "it was not a's to give back");
    leases::release_task(&mut tx, "trim", "b").await.unwrap();
    assert!(leases::take_task(&mut tx, "trim", "a", START + 300).await.unwrap());
}

#[tokio::test]
async fn slices_are_each_processs_own_and_run_out() {
    let fixture = Fixture::new().await;
    let (server, _) = seed(&fixture.catalog, 0).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    leases::set_connection_share(&mut tx, server, "b", 10, START + 100).await.unwrap();
    leases::set_connection_share(&mut tx, server, "a", 20, START + 200).await.unwrap();
    leases::set_connection_share(&mut tx, server, "a", 30, START + 200).await.unwrap();
    leases::set_connection_share(&mut tx, catalog::ServerId::generate(), "c", 1, START + 200).await.unwrap();
    assert!(leases::set_connection_share(&mut tx, server, "a", -1, START).await.is_err());
    let slice =
        |owner: &str, amount, until| ConnectionShare { owner: owner.to_owned(), amount, until, is_ahead: false };
    let both = [slice("a", 30, START + 200), slice("b", 10, START + 100)];
    assert_eq!(leases::connection_shares(&mut tx, server).await.unwrap(), both);
    tx.commit().await.unwrap();
    fixture.advance(100);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(leases::connection_shares(&mut tx, server).await.unwrap(), both[..1]);
    assert_eq!(leases::expire_leases(&mut tx).await.unwrap(), 1);
    leases::drop_connection_share(&mut tx, server, "a").await.unwrap();
    assert!(leases::connection_shares(&mut tx, server).await.unwrap().is_empty());
}

#[tokio::test]
async fn processes_are_counted_until_their_leases_end() {
    let fixture = Fixture::new().await;
    let count =
        async |owner: &str| leases::live_processes(&mut fixture.catalog.read().await.unwrap(), owner).await.unwrap();
    assert_eq!(count("a").await, 1, "the process itself");
    let mut tx = fixture.catalog.write().await.unwrap();
    for (owner, until) in [("a", START + 100), ("b", START + 200), ("c", START + 200)] {
        leases::renew_process(&mut tx, owner, until).await.unwrap();
    }
    leases::release_process(&mut tx, "c").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((count("a").await, count("b").await, count("d").await), (2, 2, 3));
    fixture.advance(150);
    assert_eq!((count("a").await, count("b").await), (2, 1));
    fixture.advance(50);
    assert_eq!(count("a").await, 1);
}
