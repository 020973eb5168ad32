use proptest::prelude::*;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::*;

const REPLACED: [(&str, &[usize]); 23] = [
    ("instr", &[2]),
    ("replace", &[3]),
    ("trim", &[2]),
    ("ltrim", &[2]),
    ("rtrim", &[2]),
    ("unhex", &[2]),
    ("json_patch", &[2]),
    ("jsonb_patch", &[2]),
    ("json_insert", &[1, 3, 5]),
    ("json_set", &[1, 3, 5]),
    ("json_replace", &[1, 3, 5]),
    ("jsonb_insert", &[3]),
    ("jsonb_set", &[3]),
    ("jsonb_replace", &[3]),
    ("json_array", &[0, 1, 2, 3]),
    ("json_object", &[0, 1, 2, 4]),
    ("jsonb_array", &[0, 1, 2]),
    ("jsonb_object", &[0, 2, 4]),
    ("json_pretty", &[1, 2]),
    ("json_group_array", &[1]),
    ("json_group_object", &[2]),
    ("printf", &[0, 1, 2, 3]),
    ("format", &[1, 4]),
];

fn replaced(bytes_max: usize) -> Connection {
    let db = Connection::open_in_memory().unwrap();
    install_functions(&db, &ResultBytes::new(bytes_max)).unwrap();
    db
}

/// The type and bytes of the result, or the message of the error.
fn ask(db: &Connection, expression: &str, arguments: &[Value]) -> Result<(String, Vec<u8>), String> {
    let sql = format!("select typeof(x), cast(x as blob) from (select {expression} as x)");
    let row = db.query_row(&sql, params_from_iter(arguments), |row| {
        Ok((row.get(0)?, row.get::<_, Option<Vec<u8>>>(1)?.unwrap_or_default()))
    });
    row.map_err(|error| error.to_string())
}

fn agree(expression: &str, arguments: &[Value]) {
    let plain = Connection::open_in_memory().unwrap();
    let (ours, theirs) = (ask(&replaced(1_000_000), expression, arguments), ask(&plain, expression, arguments));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{expression} of {arguments:?}"),
        (Err(ours), Err(theirs)) => assert_eq!(ours, theirs, "{expression} of {arguments:?}"),
        (ours, theirs) => panic!("{expression} of {arguments:?}: {ours:?}, SQLite says {theirs:?}"),
    }
}

fn values() -> impl Strategy<Value = Value> {
    let bytes =
        prop::sample::select(vec![0, b'a', b'b', b' ', b'1', b'"', b'\'', b'\n', 0x1f, 0xc3, 0xa9, 0x80, 0xf0, 0xff]);
    let json = prop::sample::select(vec![
        "{}",
        "[]",
        "{\"a\":1,\"b\":[1,{\"c\":null}]}",
        "[1,2,[3]]",
        "{a:'x',/**/b:0x10}",
        "$.a",
        "$.b[0]",
        "$.b[#-1]",
        "$[1]",
        "$[#]",
        "$.x.y[0].z",
        "$",
        "1.50",
        "tru",
        "\"q\\\"\\u00e9\"",
    ]);
    prop_oneof![
        Just(Value::Null),
        (-3_i64..300).prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Real),
        Just(Value::Real(1.5)),
        "[ab1 é€,\u{0}\"\n]{0,6}".prop_map(Value::Text),
        json.prop_map(|text| Value::Text(text.to_owned())),
        prop::collection::vec(bytes, 0..6).prop_map(Value::Blob),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_replaced_function_gives_the_originals_result(
        which in 0..REPLACED.len(), pick in 0_usize..5, arguments in prop::collection::vec(values(), 5), form in 0..4,
    ) {
        let (name, counts) = REPLACED[which];
        let count = counts[pick % counts.len()];
        // Bytes as text, texts marked as JSON, and JSON in binary form are made by functions.
        let list: Vec<String> = (1..=count)
            .map(|index| match form {
                1 => format!("cast(?{index} as text)"),
                2 => format!("(select iif(json_valid(?{index}), json(?{index}), ?{index}))"),
                3 => format!("iif(json_valid(?{index}), jsonb(?{index}), ?{index})"),
                _ => format!("?{index}"),
            })
            .collect();
        agree(&format!("{name}({})", list.join(",")), &arguments[..count]);
    }
}

#[test]
fn formats_give_the_originals_result() {
    let arguments = [Value::Integer(-42), Value::Real(1e21), Value::Text("it's \"é\"".into()), Value::Null];
    for format in ["", "%", "%n", "%z", "%d", "%.3f %s", "%,d|%e|%q", "%c%c%c", "%!.2s", "%5.1g%%%Q", "%w%x", "%.0s%s"]
    {
        for count in 0..=arguments.len() {
            let list: String = (2..count + 2).map(|number| format!(", ?{number}")).collect();
            let all: Vec<Value> =
                std::iter::once(Value::Text(format.into())).chain(arguments[..count].iter().cloned()).collect();
            agree(&format!("printf(?1{list})"), &all);
        }
    }
}

#[test]
fn no_function_hides_that_its_result_is_too_long() {
    let (db, long) = (replaced(1_000_000), Value::Text("a'".repeat(400_000)));
    db.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, 1_000_000).unwrap();
    for expression in [
        "printf('%s%s', ?1, ?1)",
        "format('%q', ?1)",
        "printf('%.*c', 1000001, ?1)",
        "printf('%1000001d', ?1)",
        "quote(?1)",
        "hex(?1)",
        "concat(?1, ?1)",
        "concat_ws('-', ?1, ?1)",
        "?1 || ?1",
        "zeroblob(1000001 + length(?1))",
        "strftime(replace(?1, 'a', '%J'), 0)",
        "unistr_quote(?1)",
        "json_array(?1, ?1)",
        "replace(?1, 'a', 'bcd')",
        "(select group_concat(n, ?1) from (select 1 as n union all select 2 union all select 3))",
        "(select string_agg(?1, 'x') from (select 1 as n union all select 2))",
        "json_quote(replace(?1, 'a', '\"'))",
    ] {
        let answer = ask(&db, expression, std::slice::from_ref(&long));
        assert!(answer.as_ref().is_err_and(|error| error.contains("too big")), "{expression}: {answer:?}");
    }
    let short = ask(&db, "printf('%.3s', ?1)", std::slice::from_ref(&long));
    assert_eq!(short, Ok(("text".to_owned(), b"a'a".to_vec())));
}

#[test]
fn a_wrong_label_is_reported_even_after_a_wrong_value() {
    let blob = || Value::Blob(Vec::new());
    let arguments = [Value::Text(String::new()), blob(), blob(), Value::Null];
    for name in ["json_object", "jsonb_object"] {
        agree(&format!("{name}(?1, ?2, ?3, ?4)"), &arguments);
    }
}

#[test]
fn marks_of_json_pass_in_and_out() {
    for expression in [
        "json_array(json('[1]'), json_patch('{}', '{\"a\":1}'), json_set('{}', '$.a', json('[2]')), json_pretty('[3]'))",
        "json_object('a', json_insert('[]', '$[0]', 1), 'b', json_array(1.5, 'x', null), 'c', jsonb('[1]'))",
        "(select json_group_array(json_object('n', n)) from (select 1 as n union all select 2.5))",
        "(select json_group_array(n) from (select 1 as n where 0))",
        "(select hex(jsonb_group_array(n)) from (select 1 as n union all select 'x'))",
        "(select typeof(jsonb_group_array(1)) from (select 1 where 0))",
        "(select json_group_object(k, v) from (select 'a' as k, json('[1]') as v union all select null, 1 union all select 3, 'x'))",
        "(select group_concat(j, ';') from (select json_group_array(n) over (order by n rows between 1 preceding and current row) as j
          from (select 1 as n union all select 2 union all select 3)))",
        "(select group_concat(j, ';') from (select json_group_object(n, 'é' || n) over (order by n rows 1 preceding) as j
          from (select 1 as n union all select 2 union all select 3)))",
        "(select json_group_array(distinct n) filter (where n > 1) from (select 1 as n union all select 2 union all select 2))",
        "json_set('{}', '$.a', 'x', '$.b', x'ff')",
        "json_array(x'ff')",
        "json_object(1, 2)",
        "json_object('a')",
        "json_set('{}')",
        "json_set('{}', '$.a')",
        "json_array_length(json_array(1, 2)) || json_type(json_array(1))",
    ] {
        agree(expression, &[]);
    }
}

#[test]
fn a_schema_may_use_them_and_another_sqlite_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let ours = Connection::open(&path).unwrap();
    ours.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).unwrap();
    install_functions(&ours, &ResultBytes::new(1_000_000)).unwrap();
    ours.execute_batch(
        "create table t(a, b as (replace(a, 'x', 'yy')) stored, check(instr(a, 'z') = 0));
         create index i on t(trim(a, 'x'), instr(a, 'b'), json_array(a), json_set('{}', '$.a', a));
         create trigger r after insert on t begin update t set a = ltrim(new.a, '-') where rowid = new.rowid; end;
         insert into t(a) values('--xbx'), (1.5), (12), ('é'), (null);",
    )
    .unwrap();
    assert!(ours.execute("insert into t(a) values('z')", []).is_err());
    let stock = Connection::open(&path).unwrap();
    for db in [&ours, &stock] {
        assert_eq!(db.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    }
    stock.execute("insert into t(a) values('xbx')", []).unwrap();
    let used = "select count(*) from t indexed by i where trim(a, 'x') = 'b'";
    for db in [&ours, &stock] {
        assert_eq!(db.query_row(used, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    }
}

#[test]
fn what_would_take_long_or_much_memory_is_refused() {
    let db = replaced(1_000_000);
    let text = |text: String| Value::Text(text);
    let members = |name: &str| {
        text(format!("{{{}}}", (0..50_000).map(|i| format!("\"{name}{i}\":0")).collect::<Vec<_>>().join(",")))
    };
    let path = text(format!("${}", "[0]".repeat(300_000)));
    for (expression, arguments, why) in [
        ("json_patch(?1, ?2)", vec![members("a"), members("b")], TOO_EXPENSIVE),
        ("jsonb_patch(1, jsonb(?1))", vec![members("a")], TOO_EXPENSIVE),
        ("json_insert('[]', ?1, 1)", vec![path.clone()], TOO_EXPENSIVE),
        ("jsonb_set('[]', ?1, 1)", vec![path], TOO_EXPENSIVE),
        ("unhex(?1, ?1)", vec![text("é".repeat(400_000))], TOO_EXPENSIVE),
        ("trim(?1, cast(x'c3808080808080808080' || ?1 as text))", vec![text("a".repeat(900_000))], TOO_EXPENSIVE),
        ("replace(?1, 'a', ?1)", vec![text("a".repeat(900_000))], "too big"),
        ("json_pretty(?1, ?1)", vec![text(format!("[{}1]", "1,".repeat(400_000)))], "too big"),
        ("json_array(?1, ?1)", vec![text("\u{1}".repeat(100_000))], "too big"),
        (
            "(with recursive c(i) as (select 1 union all select i + 1 from c where i < 100000)
              select json_group_array(?1) from c)",
            vec![text("a".repeat(900_000))],
            "too big",
        ),
    ] {
        let refused = ask(&db, expression, &arguments).unwrap_err();
        assert!(refused.contains(why), "{expression}: {refused}");
    }
}

#[test]
fn long_arguments_are_searched_in_linear_time() {
    // The originals take minutes for these.
    let db = replaced(1_000_000);
    let (long, half) = (Value::Text("a".repeat(1_000_000)), Value::Text(format!("{}b", "a".repeat(499_999))));
    for (expression, expected) in [
        ("instr(?1, ?2)", 0),
        ("length(replace(?1, ?2, 'x'))", 1_000_000),
        ("instr(cast(?1 as blob), cast(?2 as blob))", 0),
        ("length(trim(?2, ?1))", 1),
    ] {
        let sql = format!("select {expression}, ?1 is null, ?2 is null");
        let found: i64 = db.query_row(&sql, [&long, &half], |row| row.get(0)).unwrap();
        assert_eq!(found, expected, "{expression}");
    }
    let many: String = (0..300_000).filter_map(|i| char::from_u32(0x4e00 + i % 20_000)).collect();
    let sql = "select length(trim(?1, ?1))";
    assert_eq!(db.query_row(sql, [&many], |row| row.get::<_, i64>(0)).unwrap(), 0);
}
