//! Rows as the application's own types, and every kind of parameter.

use std::collections::BTreeMap;

use serde::Deserialize;
use tenant_router::{ErrorKind, Json, Read, Tenant, Write, params};
use uuid::Uuid;

use crate::world::World;

#[derive(Debug, PartialEq, Deserialize)]
struct Note {
    id: i64,
    body: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Open,
    Done,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Address {
    street: String,
    number: u16,
}

/// One field of each kind.
#[derive(Debug, PartialEq, Deserialize)]
struct Everything {
    small: i8,
    large: u64,
    short: f32,
    whole: f64,
    yes: bool,
    letter: char,
    id: Uuid,
    binary_id: Uuid,
    at: jiff::Timestamp,
    day: jiff::civil::Date,
    status: Status,
    bytes: Vec<u8>,
    tags: Vec<String>,
    address: Address,
    counts: BTreeMap<String, u32>,
    anything: serde_json::Value,
    scalar: Json<serde_json::Value>,
    nothing: Option<String>,
    #[serde(default)]
    absent: u8,
}

async fn reader(world: &World) -> Tenant<Read> {
    world.tenant("acme").await;
    world.open_as_manager::<Read>("acme").await
}

#[tokio::test]
async fn a_struct_takes_each_field_from_the_column_with_its_name() {
    let world = World::new().await;
    let tenant = reader(&world).await;
    let notes: Vec<Note> =
        tenant.query_as("select body, id, 1 as more from notes order by id", ()).fetch_all().await.unwrap();
    assert_eq!(notes.len(), 3);
    assert_eq!(notes[0], Note { id: 1, body: "canary of acme, note 1".to_owned() });
}

#[tokio::test]
async fn one_row_an_optional_row_and_single_values() {
    let world = World::new().await;
    let tenant = reader(&world).await;
    let by_id = "select id, body from notes where id = ?1";
    let note: Note = tenant.query_as(by_id, [2]).fetch_one().await.unwrap();
    assert_eq!(note.id, 2);
    assert_eq!(tenant.query_as::<Note>(by_id, [9]).fetch_optional().await.unwrap(), None);
    let error = tenant.query_as::<Note>(by_id, [9]).fetch_one().await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.status()), (ErrorKind::RowNotFound, "row_not_found", 404));
    let count: u32 = tenant.query_as("select count(*) from notes", ()).fetch_one().await.unwrap();
    let newest: Option<i64> = tenant.query_as("select max(id) from notes where id > 9", ()).fetch_one().await.unwrap();
    let pair: (i64, String) = tenant.query_as(by_id, [3]).fetch_one().await.unwrap();
    assert_eq!((count, newest, pair.0), (3, None, 3));
    let map: BTreeMap<String, serde_json::Value> =
        tenant.query_as("select 1 as n, '[1]' as text", ()).fetch_one().await.unwrap();
    assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"n":1,"text":"[1]"}"#);
}

#[tokio::test]
async fn every_kind_of_field_takes_back_its_parameter() {
    let world = World::new().await;
    let tenant = reader(&world).await;
    let id = Uuid::from_u128(7);
    let at: jiff::Timestamp = "2026-11-29T08:09:10.123456Z".parse().unwrap();
    let sql = "select ?1 as small, ?2 as large, ?3 as short, ?4 as whole, ?5 as yes, ?6 as letter, ?7 as id, \
        ?8 as binary_id, ?9 as at, ?10 as day, ?11 as status, ?12 as bytes, ?13 as tags, ?14 as address, \
        ?15 as counts, ?16 as anything, ?17 as scalar, ?18 as \"nothing\"";
    let given = params![
        -5_i8,
        7_u64,
        0.1_f32,
        2,
        true,
        'x',
        id,
        id.into_bytes(),
        at,
        jiff::civil::date(2026, 11, 29),
        "done",
        b"ab".to_vec(),
        serde_json::json!(["a", "b"]),
        Json(serde_json::json!({"street": "Main", "number": 5})),
        r#"{"a": 1}"#,
        serde_json::json!({"x": [1, null]}),
        Json(17),
        None::<String>,
    ];
    let read: Everything = tenant.query_as(sql, given).fetch_one().await.unwrap();
    let expected = Everything {
        small: -5,
        large: 7,
        short: 0.1,
        whole: 2.0,
        yes: true,
        letter: 'x',
        id,
        binary_id: id,
        at,
        day: jiff::civil::date(2026, 11, 29),
        status: Status::Done,
        bytes: b"ab".to_vec(),
        tags: vec!["a".to_owned(), "b".to_owned()],
        address: Address { street: "Main".to_owned(), number: 5 },
        counts: BTreeMap::from([("a".to_owned(), 1)]),
        anything: serde_json::json!({"x": [1, null]}),
        scalar: Json(serde_json::json!(17)),
        nothing: None,
        absent: 0,
    };
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_mismatch_names_column_expected_and_found_and_keeps_the_value_to_itself() {
    let world = World::new().await;
    let tenant = reader(&world).await;
    #[derive(Debug, Deserialize)]
    struct Wrong {
        #[expect(dead_code, reason = "only read")]
        id: u8,
        #[expect(dead_code, reason = "only read")]
        at: Option<jiff::Timestamp>,
        #[expect(dead_code, reason = "only read")]
        status: Option<Status>,
        #[expect(dead_code, reason = "only read")]
        tags: Option<Vec<String>>,
    }
    let cases = [
        ("select 'secret' as id", "column 'id': expected u8, found text"),
        ("select null as id", "column 'id': expected u8, found NULL"),
        ("select 300 as id", "column 'id': expected u8, found an integer that does not fit"),
        ("select 1.5 as id", "column 'id': expected u8, found a float"),
        ("select 1 as id, 'secret' as at", "column 'at': text is not a valid value of its field"),
        ("select 1 as id, 'secret' as status", "column 'status': expected one of open, done, found another text"),
        (
            "select 1 as id, 'secret' as tags",
            "column 'tags': expected JSON, found text that is not, at line 1, column 1",
        ),
        ("select 1 as id, 7 as tags", "column 'tags': expected a sequence, found an integer"),
        ("select 1 as other", "the answer has no column 'id'"),
        ("select 1 as id, 2 as id", "the answer has two columns 'id': give one another name with AS"),
    ];
    for (sql, text) in cases {
        let error = tenant.query_as::<Wrong>(sql, ()).fetch_one().await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::RowMismatch, text), "{sql}");
        assert_eq!((error.status(), error.detail()), (500, "A row does not have the type that this program expects"));
    }
    let error = tenant.query_as::<i64>("select 1, 2", ()).fetch_one().await.unwrap_err();
    assert_eq!(error.to_string(), "expected one column, found 2: read them as a struct or a tuple");
    let error = tenant.query_as::<(i64,)>("select 1, 2", ()).fetch_one().await.unwrap_err();
    assert_eq!(error.to_string(), "expected a tuple of 1 columns, found 2 columns");
}

#[tokio::test]
async fn a_transaction_reads_typed_rows_and_returns_what_it_wrote() {
    let world = World::new().await;
    world.tenant("acme").await;
    let tenant = world.open_as_manager::<Write>("acme").await;
    let added: Note =
        tenant.execute_as("insert into notes (body) values (?1) returning *", ("new",)).fetch_one().await.unwrap();
    assert_eq!(added, Note { id: 4, body: "new".to_owned() });
    let mut tx = tenant.write();
    tx.execute("delete from notes where id = ?1", [added.id]).await.unwrap();
    let left: Vec<i64> = tx.query_as("select id from notes order by id", ()).fetch_all().await.unwrap();
    assert_eq!(left, [1, 2, 3]);
    let sql = "update notes set body = ?1 where id = 3 returning id, body";
    let changed: Note = tx.execute_as(sql, ("changed",)).fetch_one().await.unwrap();
    assert_eq!(changed, Note { id: 3, body: "changed".to_owned() });
    tx.commit().await.unwrap();
    let error = tenant.query_as::<i64>("select ?1", params![u64::MAX]).fetch_one().await.unwrap_err();
    assert_eq!((error.code(), error.status()), ("parameter_mismatch", 400));
}
