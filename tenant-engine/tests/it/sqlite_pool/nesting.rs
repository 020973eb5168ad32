//! Statements that make SQLite recurse: each shape is refused or answered, and the process lives.

use tenant_engine::{ErrorKind, SqlValue};

use super::fixture::{Fixture, cell, one, read, write};

/// As long as a text may be.
const BYTES: usize = 99_000;

/// `open` again and again, then `core`, then as many `close`.
fn nest(start: &str, open: &str, core: &str, close: &str) -> String {
    let count = (BYTES - start.len() - core.len()) / (open.len() + close.len());
    format!("{start}{}{core}{}", open.repeat(count), close.repeat(count))
}

/// `again` as often as the text may hold.
fn repeat(start: &str, again: &str) -> String {
    format!("{start}{}", again.repeat((BYTES - start.len()) / again.len()))
}

/// Common table expressions of which each uses the one before.
fn chain(body: impl Fn(usize) -> String) -> String {
    let mut sql = "with a0(x) as (select 1)".to_owned();
    let mut count = 1;
    while sql.len() < BYTES - 200 {
        sql += &format!(",a{count}(x) as({})", body(count - 1));
        count += 1;
    }
    format!("{sql} select*from a{}", count - 1)
}

#[rustfmt::skip]
fn shapes() -> Vec<String> {
    let pairs = [
        ("", "select 1 union all select * from (", "select 1", ")"), ("", "select*from(", "select 1", ")"),
        ("select ", "(", "1", ")"), ("select ", "(select ", "1", ")"), ("select * from ", "(", "t", ")"),
        ("select 1 from ", "(t join ", "t", ")"), ("select ", "case when 1 then ", "1", " end"),
        ("select ", "case ", "1", " when 1 then 1 end"), ("select ", "abs(", "1", ")"), ("select ", "exists(select ", "1", ")"),
        ("select ", "1 in(", "1", ")"), ("select ", "1 in(select ", "1", ")"), ("select ", "(1,", "1", ")"),
        ("select ", "cast(", "1", " as int)"), ("select ", "sum(", "1", ")over()"), ("", "select 1 limit(", "select 1", ")"),
        ("", "select 1 order by(", "select 1", ")"), ("", "select 1 where(", "select 1", ")"),
        ("", "with a as(", "select 1", ")select*from a"), ("", "with a as(", "select 1", ")select*from a,a b"),
        ("select * from ", "json_each((select 1 from ", "t", "))"), ("select ", "'(' || /* ( */ (", "1", ")"),
        ("select ", "1 between ", "1", " and 1"), ("select ", "- ", "1", ""), ("select ", "not ", "1", ""), ("select ", "~", "1", ""),
        ("insert into t(v) ", "select * from (", "select 1", ")"), ("delete from t where v in (", "select v from t where v in (", "1", ")"),
    ];
    let mut all: Vec<String> = pairs.iter().map(|(start, open, core, close)| nest(start, open, core, close)).collect();
    all.extend(["+1", " or 1", "||1", " and 1", " collate binary", " isnull", "->'a'", " like 1", " union select 1",
        " union all select 1", " intersect select 1", ",(1)"].map(|again| repeat("select 1", again)));
    all.extend([repeat("values(1)", ",(1)"), repeat("select * from t", ",t"), repeat("select * from t", " natural join t")]);
    all.push(chain(|i| format!("select*from a{i}")));
    all.push(chain(|i| format!("select 1 in a{i}")));
    all.push(chain(|i| format!("select 1 from a{i} p,a{i} q")));
    all.push(chain(|i| format!("select*from a{i} union all select*from a{i}")));
    all.push(chain(|i| format!("select(select 1 from a{i})+(select 1 from a{i})")));
    all
}

#[tokio::test]
async fn no_shape_overflows_a_stack() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    for sql in shapes() {
        let start: String = sql.chars().take(60).collect();
        for explain in ["", "explain ", "explain query plan "] {
            if let Err(error) = write(&pool, &format!("{explain}{sql}")).await {
                let kind = error.kind();
                let refused = [ErrorKind::SqlTooComplex, ErrorKind::SqlInvalid, ErrorKind::RowsMax].contains(&kind);
                assert!(refused, "{start}: {kind:?} {error}");
            }
        }
    }
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

/// The longest chain that is let through.
fn longest(body: impl Fn(usize) -> String) -> String {
    let bodies: String = (1..950).map(|i| format!(",a{i}(x) as({})", body(i - 1))).collect();
    format!("with a0(x) as (select 1){bodies} select*from a949")
}

#[tokio::test]
async fn what_is_let_through_does_not_overflow_a_stack() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant()).await;
    let between = format!("select {}1{}", "1 between ".repeat(480), " and 1".repeat(480));
    let parentheses = |open: &str| format!("{}select 1{}", open.repeat(100), ")".repeat(100));
    for sql in [
        longest(|i| format!("select*from a{i}")),
        longest(|i| format!("select 1 in a{i}")),
        longest(|i| format!("select max(x)from a{i} group by x order by x")),
        between,
        parentheses("select 1 union all select * from ("),
        parentheses("select 1 union select * from ("),
        parentheses("select * from ("),
        parentheses("select 1 where 1 in ("),
    ] {
        let start: String = sql.chars().take(60).collect();
        if let Err(error) = read(&pool, &sql).await {
            assert_eq!(error.kind(), ErrorKind::SqlTooComplex, "{start}: {error}");
        }
    }
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn what_is_nested_in_a_value_does_not_overflow_a_stack() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    tenant.raw().execute_batch("create virtual table f using fts5(x); create virtual table g using fts4(x)").unwrap();
    let pool = fixture.pool(&tenant).await;
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
    // An array in an array …, as SQLite stores it: each with a size of four bytes.
    let mut binary = Vec::new();
    for left in (0..199_000_u32).rev() {
        binary.push(0xeb);
        binary.extend((left * 5).to_be_bytes());
    }
    let path = SqlValue::from(format!("${}", "[0]".repeat(199_000)));
    for (sql, value) in [
        ("select json(?1)", SqlValue::from(deep("[", "]"))),
        ("select json_valid(?1, 6)", SqlValue::from(deep("{a:", "}"))),
        ("select * from json_tree(?1)", SqlValue::from(deep("[", "]"))),
        ("select json_extract('[]', ?1)", SqlValue::from(format!("${}", "[0]".repeat(200_000)))),
        ("select json_patch('{}', ?1)", SqlValue::from(deep("{\"a\":", "}"))),
        ("select json(?1)", SqlValue::Blob(binary.clone())),
        ("select json_valid(?1, 8)", SqlValue::Blob(binary.clone())),
        ("select count(*) from json_tree(?1)", SqlValue::Blob(binary.clone())),
        ("select json_patch(?1, ?1)", SqlValue::Blob(binary.clone())),
        (
            "select json_quote(?1), json_array(?1), json_group_array(?1), json_pretty(?1)",
            SqlValue::Blob(binary.clone()),
        ),
        ("select ?1 ->> '$', ?1 -> '$[0]', jsonb(?1), json_extract(?1, '$', '$[0]')", SqlValue::Blob(binary.clone())),
        ("select max(length(value)) from json_each(?1)", SqlValue::Blob(binary.clone())),
        ("select json_insert('[]', ?1, 1)", path.clone()),
        ("select jsonb_set('{}', ?1, 1)", SqlValue::from(format!("${}", ".a".repeat(400_000)))),
        ("select json_set('[]', '$[0]', 1, ?1, 2)", path.clone()),
        ("select 1 from f where f match ?1", SqlValue::from(deep("(", ")"))),
        ("select 1 from g where g match ?1", SqlValue::from(deep("(", ")"))),
        ("select 1 from f where f match ?1", SqlValue::from("a not ".repeat(3_000) + "a")),
        ("select 1 from g where g match ?1", SqlValue::from("a or ".repeat(3_000) + "a")),
        ("select ?1 glob ?1", SqlValue::from("*a".repeat(400))),
    ] {
        let _ = one(&pool, tenant_engine::AccessMode::Read, sql, vec![value]).await;
    }
    for sql in [
        "select json_extract(?1, ?2)",
        "select json_type(?1, ?2)",
        "select json_remove(?1, ?2)",
        "select jsonb_remove(?1, ?2)",
        "select json_replace(?1, ?2, 1)",
        "select json_array_length(?1, ?2)",
        "select ?1 -> ?2",
        "select count(*) from json_each(?1, ?2)",
    ] {
        let values = vec![SqlValue::Blob(binary.clone()), path.clone()];
        let _ = one(&pool, tenant_engine::AccessMode::Read, sql, values).await;
    }
    assert_eq!(cell(&pool, "select count(*) from t").await, SqlValue::Integer(1));
}

#[tokio::test]
async fn what_a_schema_nests_does_not_overflow_a_stack() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant();
    let tables: String = (0..1_500)
        .map(|i| {
            format!(
                "create table n{i}(a primary key{});",
                if i > 0 { format!(" references n{} on delete cascade", i - 1) } else { String::new() }
            )
        })
        .collect();
    let triggers: String = (0..1_499)
        .map(|i| format!("create trigger r{i} after insert on n{i} begin insert into n{} values(new.a); end;", i + 1))
        .collect();
    let views: String = (1..300).map(|i| format!("create view v{i} as select * from v{};", i - 1)).collect();
    let raw = tenant.raw();
    raw.execute_batch(&format!("begin; {tables} {triggers} create view v0 as select * from t; {views} commit"))
        .unwrap();
    drop(raw);
    let pool = fixture.pool(&tenant).await;
    let refused = write(&pool, "insert into n0 values(1)").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SqlTooComplex, "{refused}");
    write(&pool, "delete from n0").await.unwrap();
    assert_eq!(read(&pool, "select * from v299").await.unwrap().rows.len(), 1);
}
