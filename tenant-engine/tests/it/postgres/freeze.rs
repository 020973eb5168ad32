//! The fence: who was writing cannot go on, and nobody comes in who should not.

use std::time::Duration;

use sqlx::PgConnection;
use tenant_engine::*;

use super::kit::{BASE, Kit, set};
use super::logins::enter;

async fn works(connection: &mut PgConnection, sql: &'static str) -> bool {
    sqlx::raw_sql(sql).execute(connection).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_ends_a_writer_in_the_middle_and_lets_readers_be() {
    let kit = Kit::new();
    let one = kit.provisioned(&set(&BASE)).await;
    let mut reader = enter(&kit, &one, AccessMode::Read, one.database()).await.unwrap();
    let mut writer = enter(&kit, &one, AccessMode::Write, one.database()).await.unwrap();
    assert!(works(&mut writer, "begin; insert into projects values (1, 'lost')").await);
    let frozen = one.at_generation(1, IdentityState::Frozen);
    for _ in 0..2 {
        kit.engine.freeze_database(&one.at, &one.expected(), &frozen.identity).await.unwrap();
    }
    assert!(!works(&mut writer, "commit").await);
    assert!(enter(&kit, &one, AccessMode::Write, one.database()).await.is_err());
    assert_eq!(kit.ask(&one, "select count(*) from projects"), "0");
    let mut reader2 = enter(&kit, &one, AccessMode::Read, one.database()).await.unwrap();
    assert!(works(&mut reader2, "select * from projects").await);
    let taken = kit.engine.take_snapshot(&one.at, &frozen.expected()).await.unwrap();
    assert_eq!(taken.info.identity, frozen.identity);
    drop((reader, reader2));

    // Thawed, the writer may come again; the reader of before is fine, because nothing refuses it.
    reader = enter(&kit, &one, AccessMode::Read, one.database()).await.unwrap();
    kit.engine.stamp_identity(&one.at, &frozen.expected(), &one.identity).await.unwrap();
    assert!(works(&mut reader, "select * from projects").await);
    let mut writer = enter(&kit, &one, AccessMode::Write, one.database()).await.unwrap();
    assert!(works(&mut writer, "insert into projects values (1, 'kept')").await);
    assert_eq!(
        kit.cluster.psql(
            "postgres",
            "select count(*) from pg_auth_members m where m.member = 'fleet'::regrole \
        and m.roleid in (select oid from pg_roles where rolname like 't\\_%')"
        ),
        "0",
        "no membership is left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_lets_a_write_that_is_under_way_finish_and_its_client_know() {
    let kit = Kit::new();
    let one = kit.provisioned(&set(&BASE)).await;
    let mut writer = enter(&kit, &one, AccessMode::Write, one.database()).await.unwrap();
    assert!(works(&mut writer, "begin; insert into projects values (1, 'kept')").await);
    let frozen = one.at_generation(2, IdentityState::Frozen);
    let expected = one.expected();
    let (written, stamped) = tokio::join!(
        works(&mut writer, "select pg_sleep(0.3); commit"),
        kit.engine.freeze_database(&one.at, &expected, &frozen.identity)
    );
    stamped.unwrap();
    assert!(written, "it was ended in the middle");
    assert_eq!(kit.ask(&one, "select count(*) from projects"), "1");
    assert!(!works(&mut writer, "select 1").await, "and then its session ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_generation_ends_everybody() {
    let kit = Kit::new();
    let one = kit.provisioned(&set(&BASE)).await;
    for (from, to) in [
        (one.clone(), one.at_generation(2, IdentityState::Active)),
        (one.at_generation(2, IdentityState::Active), one.at_generation(3, IdentityState::Frozen)),
        (one.at_generation(3, IdentityState::Frozen), one.at_generation(4, IdentityState::Active)),
        (one.at_generation(4, IdentityState::Active), one.at_generation(4, IdentityState::Tombstone)),
    ] {
        let mut reader = enter(&kit, &one, AccessMode::Read, one.database()).await.unwrap();
        assert!(works(&mut reader, "begin; select * from projects").await);
        kit.engine.stamp_identity(&one.at, &from.expected(), &to.identity).await.unwrap();
        assert!(!works(&mut reader, "select 1").await, "{:?}", to.identity.state);
    }
    for access in [AccessMode::Read, AccessMode::Write] {
        assert!(enter(&kit, &one, access, one.database()).await.is_err(), "nobody enters a tombstone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_writer_that_keeps_coming_is_kept_out() {
    let kit = std::sync::Arc::new(Kit::new());
    let one = kit.provisioned(&set(&BASE)).await;
    drop(enter(&kit, &one, AccessMode::Write, one.database()).await.unwrap());
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut hammers = tokio::task::JoinSet::new();
    for hammer in 0..4_i64 {
        let (login, dsn, stop) = (one.login(AccessMode::Write), kit.cluster.dsn(one.database()), stop.clone());
        hammers.spawn(async move {
            use sqlx::Connection as _;
            let options: sqlx::postgres::PgConnectOptions = dsn.parse().unwrap();
            let options = options.username(&login).password("known");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok(mut connection) = PgConnection::connect_with(&options).await {
                    for n in 0..5_i64 {
                        let insert = sqlx::query(
                            "insert into projects select coalesce(max(id), 0) + 1 + $1 * 1000 + $2, 'x' from projects",
                        );
                        if insert.bind(hammer).bind(n).execute(&mut connection).await.is_err() {
                            break;
                        }
                    }
                }
            }
        });
    }
    while kit.ask(&one, "select count(*) from projects") == "0" {
        tokio::task::yield_now().await;
    }
    let frozen = one.at_generation(1, IdentityState::Frozen);
    kit.engine.freeze_database(&one.at, &one.expected(), &frozen.identity).await.unwrap();
    let count = kit.ask(&one, "select count(*) from projects");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(kit.ask(&one, "select count(*) from projects"), count, "not a row more after freeze has returned");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    hammers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_in_use_is_dropped() {
    let kit = Kit::new();
    let one = kit.provisioned(&set(&BASE)).await;
    let mut reader = enter(&kit, &one, AccessMode::Read, one.database()).await.unwrap();
    let mut writer = enter(&kit, &one, AccessMode::Write, one.database()).await.unwrap();
    assert!(works(&mut writer, "begin; insert into projects values (1, 'x')").await);
    for _ in 0..2 {
        kit.engine.drop_database(&one.at, Some(&one.expected())).await.unwrap();
    }
    assert!(!works(&mut reader, "select 1").await);
    let roles = format!("select count(*) from pg_roles where rolname like '{}%'", one.database());
    assert_eq!(kit.cluster.psql("postgres", &roles), "0");
    // Logins whose database somebody dropped by hand.
    let two = kit.provisioned(&set(&BASE)).await;
    kit.cluster.psql("postgres", &format!("drop database \"{}\"", two.database()));
    kit.engine.drop_database(&two.at, Some(&two.expected())).await.unwrap();
    let roles = format!("select count(*) from pg_roles where rolname like '{}%'", two.database());
    assert_eq!(kit.cluster.psql("postgres", &roles), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_waits_for_a_migration_and_a_late_migration_does_nothing() {
    let kit = std::sync::Arc::new(Kit::new());
    let one = kit.provisioned(&set(&BASE)).await;
    let slow = super::kit::base_and(&[("3_slow.sql", "create table slow(a int); select pg_sleep(1);")]);
    let running = tokio::spawn({
        let (kit, one, slow) = (kit.clone(), one.clone(), slow.clone());
        async move { kit.migrate(&one, &slow).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let busy = kit.migrate(&one, &slow).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    let next = one.at_generation(2, IdentityState::Active);
    kit.engine.stamp_identity(&one.at, &one.expected(), &next.identity).await.unwrap();
    assert_eq!(running.await.unwrap().unwrap().applied, [3], "it had committed before the stamp");
    assert_eq!(kit.migrate(&one, &slow).await.unwrap_err().kind(), ErrorKind::Fenced);
}
