//! Memory for answers: who fills it waits or is refused before anything is done, and silences nobody else.

use std::time::Duration;

use tenant_engine::{AnswerBudget, ErrorKind as Database, SqlValue};
use tenant_router::{ErrorKind, Read, Role, Write};

use crate::world::{World, canary, note, open};

/// Of the process; a tenant has half of it.
const BUDGET: usize = 1_600_000;
/// One answer of about half a MiB.
const LARGE: &str = "select printf('%.*c', 500000, 'x')";

#[tokio::test]
async fn a_tenant_that_fills_its_share_waits_is_refused_and_silences_nobody_else() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let answers = AnswerBudget::new(BUDGET);
    let router = world
        .builder()
        .answer_budget(answers.clone())
        .replacement_wait_max(Duration::from_millis(50))
        .build()
        .await
        .unwrap();
    let acme = open::<Write>(&router, "acme", &world.token_for(ids[0], Role::Writer).await).await.unwrap();
    let globex = open::<Read>(&router, "globex", &world.token_for(ids[1], Role::Reader).await).await.unwrap();
    let held = acme.query(LARGE, ()).await.unwrap();
    assert!(answers.held_bytes() > 400_000, "{}", answers.held_bytes());
    let before = acme.query("select count(*), group_concat(body) from notes", ()).await.unwrap();
    for refused in [LARGE, "delete from notes returning printf('%.*c', 500000 + id, 'x')"] {
        let error = acme.execute(refused, ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Database(Database::AnswersMax), "{refused}: {error}");
        assert_eq!((error.status(), error.retry_after()), (503, Some(Duration::from_secs(1))));
    }
    assert_eq!(acme.query("select count(*), group_concat(body) from notes", ()).await.unwrap(), before);
    assert_eq!(globex.query(LARGE, ()).await.unwrap().rows.len(), 1, "another tenant");
    drop(held);
    assert_eq!(answers.held_bytes(), 0);
    assert_eq!(acme.execute(LARGE, ()).await.unwrap().rows.len(), 1);
    assert_eq!(note(&acme, 1).await.unwrap(), canary("acme", 1));
}

#[tokio::test]
async fn who_waits_for_room_goes_on_when_another_answer_was_sent() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let answers = AnswerBudget::new(BUDGET);
    let router =
        world.builder().answer_budget(answers).replacement_wait_max(Duration::from_secs(60)).build().await.unwrap();
    let token = world.token_for(id, Role::Writer).await;
    let acme = open::<Write>(&router, "acme", &token).await.unwrap();
    let held = acme.query(LARGE, ()).await.unwrap();
    let second = open::<Write>(&router, "acme", &token).await.unwrap();
    let mut waiting = tokio::spawn(async move {
        let sql = "update notes set body = 'once' where id = 1 returning printf('%.*c', 600000, 'x')";
        second.execute(sql, ()).await.map(|rows| rows.rows.len())
    });
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.is_err(), "it waits");
    assert_eq!(note(&acme, 1).await.unwrap(), canary("acme", 1));
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    let changed = acme.query("select body from notes where id = 1", ()).await.unwrap();
    assert_eq!(changed.rows, [[SqlValue::from("once")]]);
}
