//! What goes in comes out, through the real server.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tenant_engine::{AccessMode, ErrorKind, Pool, SqlValue};

use super::fixture::{Fixture, one, read};

async fn echo(pool: &Pool, of: &str, value: SqlValue) -> tenant_engine::Result<SqlValue> {
    let sql = format!("select $1::{of}");
    one(pool, AccessMode::Read, &sql, vec![value]).await.map(|mut rows| rows.rows.remove(0).remove(0))
}

fn text(value: &str) -> SqlValue {
    SqlValue::Text(value.to_owned())
}

#[tokio::test]
async fn every_type_takes_and_gives_its_own_form() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let types = "create type mood as enum ('sad', 'glad'); create domain positive as integer check (value > 0)";
    fixture.cluster.psql(tenant.database(), types);
    let pool = fixture.pool(&tenant).await;
    let same = |of: &'static str, value: SqlValue| (of, value.clone(), value);
    for (of, given, back) in [
        same("bool", SqlValue::Boolean(true)),
        ("bool", text("off"), SqlValue::Boolean(false)),
        ("bool", SqlValue::Integer(1), SqlValue::Boolean(true)),
        same("int2", SqlValue::Integer(-32_768)),
        same("int4", SqlValue::Integer(2_147_483_647)),
        same("int8", SqlValue::Integer(i64::MIN)),
        ("int8", text(" 42 "), SqlValue::Integer(42)),
        ("int4", SqlValue::Real(5.0), SqlValue::Integer(5)),
        same("oid", SqlValue::Integer(4_294_967_295)),
        same("float4", SqlValue::Real(0.5)),
        same("float8", SqlValue::Real(-1.25e300)),
        ("float8", SqlValue::Integer(3), SqlValue::Real(3.0)),
        ("float8", text("1e3"), SqlValue::Real(1_000.0)),
        same("float4", SqlValue::Real(0.1)),
        same("\"char\"", text("a")),
        same("\"char\"", text("")),
        same("\"char\"", text("\\377")),
        ("time", text("23:59:60"), text("24:00:00")),
        ("time", text("07:08:09Z"), text("07:08:09")),
        ("timestamp", text("2024-05-06T07:08:09Z"), text("2024-05-06 07:08:09")),
        same("date", text("0044-03-15 BC")),
        ("numeric", text("123456789012345678901234567890.0001"), text("123456789012345678901234567890.0001")),
        ("numeric", SqlValue::Integer(-7), text("-7")),
        ("numeric", SqlValue::Real(0.1), text("0.1")),
        ("numeric(6, 2)", text("12.345"), text("12.35")),
        ("numeric", text("NaN"), text("NaN")),
        ("numeric", text("-Infinity"), text("-Infinity")),
        same("text", text("naïve \u{1F600}")),
        same("text", text("")),
        same("varchar", text("v")),
        ("char(3)", text("a"), text("a  ")),
        same("name", text("n")),
        same("mood", text("glad")),
        ("positive", SqlValue::Integer(3), SqlValue::Integer(3)),
        same("bytea", SqlValue::Blob(vec![0, 255, 1])),
        ("bytea", text("\\x00ff01"), SqlValue::Blob(vec![0, 255, 1])),
        ("uuid", text("{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"), text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        same("json", text("{\"a\" : 1}")),
        ("jsonb", text("{\"a\" : 1}"), text("{\"a\": 1}")),
        ("jsonb", SqlValue::Integer(5), text("5")),
        same("date", text("2024-02-29")),
        same("date", text("-infinity")),
        same("time", text("23:59:59.000001")),
        same("timestamp", text("1999-12-31 23:59:59.5")),
        ("timestamptz", text("2024-05-06T07:08:09+02:00"), text("2024-05-06 05:08:09Z")),
        same("timestamptz", text("infinity")),
    ] {
        let came = echo(&pool, of, given.clone()).await.unwrap_or_else(|error| panic!("{of} {given:?}: {error}"));
        assert_eq!(came, back, "{of} {given:?}");
        assert_eq!(echo(&pool, of, SqlValue::Null).await.unwrap(), SqlValue::Null);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_named_without_its_value() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    for (of, value) in [
        ("int2", SqlValue::Integer(32_768)),
        ("int4", SqlValue::Integer(-2_147_483_649)),
        ("int8", SqlValue::Real(1.5)),
        ("int8", text("secret")),
        ("oid", SqlValue::Integer(-1)),
        ("bool", SqlValue::Integer(2)),
        ("float4", SqlValue::Real(1e300)),
        ("float8", text("secret")),
        ("float8", text("1e999")),
        ("float8", text("-1e-999")),
        ("float4", text("1e39")),
        ("float4", text("1e-60")),
        ("float4", SqlValue::Real(1e-60)),
        ("numeric", text("secret")),
        ("numeric", SqlValue::Boolean(true)),
        ("text", SqlValue::Integer(5)),
        ("text", SqlValue::Blob(vec![1])),
        ("text", text("secret\0")),
        ("bytea", text("secret")),
        ("bytea", text("\\x0")),
        ("uuid", text("secret")),
        ("date", text("secret")),
        ("time", text("secret")),
        ("timestamp", text("secret")),
        ("timestamptz", SqlValue::Integer(0)),
    ] {
        let error = echo(&pool, of, value.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ParameterMismatch, "{of} {value:?}: {error}");
        assert!(error.message().contains("$1 is of type") && !error.message().contains("secret"), "{error}");
    }
    let error = echo(&pool, "json", text("secret")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SqlInvalid);
    assert!(!error.message().contains("secret"), "{error}");
    assert_eq!(pool.connection_count(), 1);
}

#[tokio::test]
async fn types_without_a_neutral_form_are_refused_before_anything_runs() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let error = read(&pool, "select 1 as n, array['a'] as tags from pg_sleep(1)").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedType);
    assert_eq!(error.message(), "column 'tags' is of type text[]: cast it to text");
    let sql = "insert into t select 9, 'nine' returning interval '1 day' as i";
    let error = one(&pool, AccessMode::Write, sql, vec![]).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::UnsupportedType, "column 'i' is of type interval: cast it to text")
    );
    assert!(read(&pool, "select id from t where id = 9").await.unwrap().rows.is_empty());
    let error = echo(&pool, "int4[]", text("{1}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedType, "{error}");
    assert_eq!(echo(&pool, "text::int4[]::text", text("{1}")).await.unwrap(), text("{1}"));
}

#[tokio::test]
async fn years_beyond_four_digits_read_as_the_server_writes_them() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    for day in ["4714-11-24 BC", "0001-12-31 BC", "5874897-12-31", "10000-01-01", "0001-01-01", "1900-03-01"] {
        let rows = read(&pool, &format!("select '{day}'::date, '{day}'::date::text")).await.unwrap();
        assert_eq!(rows.rows[0][0], rows.rows[0][1]);
    }
    let at = "'0044-03-15 12:00:00.25 BC'::timestamp";
    let rows = read(&pool, &format!("select {at}, {at}::text")).await.unwrap();
    assert_eq!(rows.rows[0][0], rows.rows[0][1]);
}

/// What a type's values look like when the server makes them, as an expression of a number.
const MADE: [(&str, &str); 17] = [
    ("bool", "n % 2 = 0"),
    ("int2", "abs(n) % 65536 - 32768"),
    ("int8", "n * 1000003"),
    ("oid", "abs(n) % 4294967296"),
    ("float4", "float4send_inverse(n)"),
    ("float8", "n / 1000003.0::float8 * (10::float8 ^ (n % 600 - 300))"),
    ("numeric", "n::numeric / 1000003 * (10::numeric ^ (n % 40 - 20))"),
    ("text", "md5(n::text) || chr((abs(n) % 50000 + 1)::int)"),
    ("\"char\"", "(abs(n) % 256 - 128)::int::\"char\""),
    ("bytea", "decode(md5(n::text), 'hex')"),
    ("uuid", "md5(n::text)::uuid"),
    ("jsonb", "jsonb_build_object(md5(n::text), n)"),
    ("date", "'4714-11-24 BC'::date + (abs(n) % 2147483494)::int"),
    ("time", "'00:00'::time + (abs(n) % 86400000000) * interval '1 microsecond'"),
    ("timestamp", "'4714-11-24 BC'::timestamp + (abs(n) % 9400000000000) * interval '1.000003 second'"),
    ("timestamptz", "'4714-11-24 BC'::timestamptz + (abs(n) % 9400000000000) * interval '1.000003 second'"),
    ("mood", "case when n % 2 = 0 then 'sad' else 'glad' end::mood"),
];

/// Values at the edges of a type, which no expression meets.
const EDGES: [(&str, &str); 26] = [
    ("float4", "NaN"),
    ("float4", "-Infinity"),
    ("float4", "3.4028235e38"),
    ("float4", "1e-45"),
    ("float4", "-0"),
    ("float4", "1.1754944e-38"),
    ("float4", "16777217"),
    ("float8", "NaN"),
    ("float8", "Infinity"),
    ("float8", "5e-324"),
    ("float8", "1.7976931348623157e308"),
    ("float8", "-0"),
    ("numeric", "NaN"),
    ("numeric", "-Infinity"),
    ("numeric", "1e400"),
    ("numeric", "1e-400"),
    ("numeric", "0.00"),
    ("date", "infinity"),
    ("date", "-infinity"),
    ("date", "5874897-12-31"),
    ("date", "4714-11-24 BC"),
    ("time", "24:00:00"),
    ("timestamp", "294276-12-31 23:59:59.999999"),
    ("timestamp", "4714-11-24 00:00:00 BC"),
    ("timestamptz", "294276-12-31 23:59:59.999999Z"),
    ("timestamptz", "-infinity"),
];

const MORE: &str = "create type mood as enum ('sad', 'glad');
    create function float4send_inverse(n bigint) returns float4 language sql as
        $$ select ((n % 16777216)::float4 * (2::float4 ^ (n % 200 - 120)::float4))::float4 $$;";

/// What `expression` is comes back as the same value, and is the same to the server, byte for byte.
async fn comes_back(pool: &Pool, of: &str, expression: &str) {
    let value = read(pool, &format!("select ({expression})::{of}")).await.unwrap().rows.remove(0).remove(0);
    let sql = format!("select $1::{of}, $1::{of}::text, ({expression})::{of}::text");
    let row = one(pool, AccessMode::Read, &sql, vec![value.clone()]).await;
    let row = row.unwrap_or_else(|error| panic!("{of} {expression} {value:?}: {error}")).rows.remove(0);
    assert!(same(&row[0], &value), "{of} {expression}: {value:?} {:?}", row[0]);
    assert_eq!(row[1], row[2], "{of} {expression} {value:?}");
}

#[tokio::test]
async fn what_was_read_can_be_sent_back_and_is_equal() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    fixture.cluster.psql(tenant.database(), MORE);
    let pool = fixture.pool(&tenant).await;
    for (of, text) in EDGES {
        comes_back(&pool, of, &format!("'{text}'")).await;
    }
    for (of, expression) in MADE {
        for round in 0..25_i64 {
            let number = round * round * 7_919_999_983 + round - 12;
            comes_back(&pool, of, &format!("(select {expression} from (values ({number}::bigint)) v(n))")).await;
        }
    }
}

#[tokio::test]
async fn a_text_is_what_the_server_takes_it_for_or_is_refused() {
    let fixture = Fixture::new();
    let pool = fixture.pool(&fixture.tenant().await).await;
    let (mut taken, mut refused) = (0, 0);
    for of in
        ["date", "time", "timestamp", "timestamptz", "float4", "float8", "numeric", "int4", "int8", "bool", "\"char\""]
    {
        for given in TEXTS {
            let literal = format!("select '{given}'::{of}");
            let server = read(&pool, &literal).await.map(|mut rows| rows.rows.remove(0).remove(0));
            match (echo(&pool, of, text(given)).await, server) {
                (Ok(ours), Ok(server)) => assert!(same(&ours, &server), "{of} {given}: {ours:?} {server:?}"),
                (Ok(ours), Err(error)) => panic!("{of} {given}: we take {ours:?}, the server says {error}"),
                (Err(error), _) => {
                    assert_eq!(error.kind(), ErrorKind::ParameterMismatch, "{of} {given}: {error}");
                    refused += 1;
                    continue;
                }
            }
            taken += 1;
        }
    }
    assert!(taken > 80 && refused > 80, "{taken} {refused}");
}

const TEXTS: [&str; 62] = [
    "2024-02-29",
    "2023-02-29",
    "1900-02-29",
    "2000-02-29",
    "2024-1-1",
    "20240506",
    "20240230",
    "0000-01-01",
    "0001-01-01 BC",
    "0001-02-29 BC",
    "2024-05-06 BC",
    "2024-05-06 AD",
    "10000-01-01",
    "99999-12-31",
    "5874898-01-01",
    "294277-01-01",
    "4714-11-23 BC",
    "2024-05-06T07:08:09Z",
    "2024-05-06 07:08:09.1234565",
    "2024-05-06 07:08:09.9999999",
    "2024-05-06T07:08:09.5+02:00",
    "2024-05-06 07:08:09-1530",
    "2024-05-06 07:08:09+16",
    "2024-05-06 24:00:00",
    "2024-05-06 24:00:01",
    "2024-12-31 23:59:60",
    "2024-05-06 07:08:60.5",
    "2024-05-06 07:08",
    "20240506T070809",
    "20240506T070809Z",
    "0044-03-15 12:00:00Z BC",
    "07:08",
    "07:08:09",
    "23:59:60",
    "23:59:60.1",
    "23:59:59.9999999",
    "24:00:00",
    "24:00:00.1",
    "070809",
    "07:08:09+02",
    "07:08:09Z",
    "infinity",
    "-infinity",
    "+infinity",
    "inf",
    "NaN",
    "nan",
    "1e999",
    "-1e999",
    "1e-999",
    "1e39",
    "1e-46",
    "1e-45",
    "3.4028236e38",
    "16777217",
    "0.1",
    "-0",
    "1e3",
    " 42 ",
    "9223372036854775808",
    "+5",
    "yes",
];

#[tokio::test]
async fn every_type_without_a_neutral_form_is_named_and_harms_nothing() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let types = "create domain many as int4multirange;
        create domain spans as int4range;
        create domain tags as text[];
        create type pair as (a int, b int4multirange);
        create type plain as (a int, b text);
        create domain checked as plain check ((value).a > 0);
        create table odd(id int primary key, m int4multirange, d many, dm many[], p pair, pp pair[], c checked, t tags[])";
    fixture.cluster.psql(tenant.database(), types);
    fixture.cluster.psql(tenant.database(), "grant all on odd to public");
    let pool = fixture.pool(&tenant).await;
    for of in [
        "int4multirange",
        "nummultirange",
        "tstzmultirange",
        "many",
        "many[]",
        "int4multirange[]",
        "pair",
        "pair[]",
        "plain",
        "checked",
        "checked[]",
        "spans",
        "spans[]",
        "tags",
        "tags[]",
        "int4range",
        "text[]",
        "interval",
        "timetz",
        "inet",
        "money",
        "bit(3)",
        "varbit",
        "point",
        "tsvector",
        "xml",
        "pg_lsn",
        "jsonpath",
        "regclass",
        "int2vector",
        "xid8",
    ] {
        for sql in [format!("select null::{of} as odd"), format!("select id, null::{of} from odd")] {
            let error = read(&pool, &sql).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsupportedType, "{sql}: {error}");
            assert!(error.message().contains("cast"), "{sql}: {error}");
        }
        let error =
            one(&pool, AccessMode::Write, &format!("select ($1::{of})::text"), vec![text("x")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedType, "{of}: {error}");
        assert!(error.message().contains("$1"), "{of}: {error}");
    }
    let sql = "insert into odd(id, m) values (1, $1::text::int4multirange) returning m::text";
    let rows = one(&pool, AccessMode::Write, sql, vec![text("{[1,5)}")]).await.unwrap();
    assert_eq!(rows.rows, [[text("{[1,5)}")]]);
    assert_eq!(read(&pool, "select * from odd").await.unwrap_err().kind(), ErrorKind::UnsupportedType);
    fixture.settles().await;
}

/// A type, a value for it, and the text the server makes of that.
fn cases() -> impl Strategy<Value = (&'static str, SqlValue)> {
    prop_oneof![
        any::<i64>().prop_map(|value| ("int8", SqlValue::Integer(value))),
        any::<f64>().prop_map(|value| ("float8", SqlValue::Real(value))),
        "[^\0]{0,40}".prop_map(|value| ("text", SqlValue::Text(value))),
        any::<Vec<u8>>().prop_map(|value| ("bytea", SqlValue::Blob(value))),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?".prop_map(|value| ("numeric", SqlValue::Text(value))),
        (0..3_600_000_i64).prop_map(|days| ("date", SqlValue::Text(date(days)))),
        (0..3_600_000_i64, 0..86_400_i64).prop_map(|(days, second)| {
            let time = format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60);
            ("timestamp", SqlValue::Text(format!("{} {time}", date(days))))
        }),
        any::<u128>().prop_map(|bits| ("uuid", SqlValue::Text(uuid::Uuid::from_u128(bits).to_string()))),
    ]
}

fn date(days: i64) -> String {
    let first: jiff::civil::Date = "0001-01-01".parse().unwrap();
    first.checked_add(jiff::Span::new().days(days)).unwrap().to_string()
}

#[test]
fn any_value_comes_back_and_is_what_the_server_means_by_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = Fixture::new();
    let pool = runtime.block_on(async { fixture.pool(&fixture.tenant().await).await });
    let mut runner = TestRunner::new(Config { cases: 600, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&cases(), |(of, value)| {
        let sql = format!("select $1::{of}, $1::{of}::text");
        let rows = runtime.block_on(one(&pool, AccessMode::Read, &sql, vec![value.clone()])).unwrap().rows;
        prop_assert!(same(&rows[0][0], &value), "{:?} {:?}", rows[0][0], value);
        let SqlValue::Text(written) = &rows[0][1] else { panic!("a text") };
        match &rows[0][0] {
            SqlValue::Text(read) => {
                prop_assert!(read == written || value == SqlValue::Text("-0".into()), "{read} {written}")
            }
            SqlValue::Integer(read) => prop_assert_eq!(&read.to_string(), written),
            SqlValue::Real(read) => prop_assert!(written.parse::<f64>().unwrap() == *read || read.is_nan()),
            SqlValue::Blob(read) => prop_assert_eq!(written.len(), 2 + 2 * read.len()),
            _ => {}
        }
        Ok(())
    });
    outcome.unwrap();
}

fn same(one: &SqlValue, two: &SqlValue) -> bool {
    match (one, two) {
        (SqlValue::Real(one), SqlValue::Real(two)) => one.to_bits() == two.to_bits() || one.is_nan() && two.is_nan(),
        // There is no negative zero.
        (SqlValue::Text(one), SqlValue::Text(two)) => one == two || two.strip_prefix('-') == Some(one),
        _ => one == two,
    }
}
