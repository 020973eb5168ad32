use proptest::prelude::*;

use super::*;

fn measure_text(sql: &str) -> StatementComplexity {
    StatementComplexity::measure_sql(sql)
}

fn expression_chain(count: usize, body: impl Fn(usize) -> String) -> String {
    let bodies: String = (1..count).map(|i| format!(", a{i}(x) as ({})", body(i - 1))).collect();
    format!("with a0(x) as (select 1){bodies} select * from a{}", count - 1)
}

#[test]
fn ordinary_statements_pass() {
    for sql in [
        "select * from t where id = ?1",
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10) select * from n, n m",
        "with a as (select 1), b as (select * from a), c as (select * from a join b) select * from c",
        "with b as (select * from t join u on t.a = u.b), a as (select b, a from b) select a.b, b.a from a, b",
        "insert into t(a, b) values ",
    ] {
        assert_eq!(measure_text(sql).check_limits(), Ok(()), "{sql}");
    }
    let wide = format!("insert into t values {}", vec!["(?, ?, lower(?))"; 1_000].join(", "));
    assert_eq!(measure_text(&wide).check_limits(), Ok(()));
    let many = format!("select 1 where {}", vec!["a between 1 and 2"; 400].join(" and "));
    assert_eq!(measure_text(&many).check_limits(), Ok(()));
    assert_eq!(measure_text(&expression_chain(90, |i| format!("select * from a{i}"))).check_limits(), Ok(()));
}

#[test]
fn each_way_to_nest_is_counted() {
    for (sql, parentheses, depth) in [
        ("select 1", 0, 0),
        ("select ((1))", 2, 2),
        ("select * from (select 1 union all select * from (select 2))", 2, 3),
        ("select 1 union select 2 except select 3", 0, 2),
        ("select 1 between 2 and 3 between 4 and 5", 0, 2),
        ("with a as (select 1), b as (select * from a) select * from b", 1, 3),
        ("with a as (select 1), b as (select * from a) select 1 in b", 1, 3),
        ("with a as (select 1), b as (select * from (a)) select * from (b)", 2, 5),
        ("with \"A\" as (select 1), [b] as (select * from a) select * from t x join `B` y", 1, 3),
        ("with a as (select 1) select * from main.a", 1, 1),
        ("with a as (select 1), b(x) as materialized (select a from t, a) select * from b", 1, 3),
        ("with materialized as (select 1) select * from t window, materialized", 1, 2),
        ("with a as (with a as (select 1) select * from a) select * from a", 2, 5),
    ] {
        let found = measure_text(sql);
        assert_eq!((found.parentheses, found.depth), (parentheses, depth), "{sql}");
    }
}

#[test]
fn what_grows_or_nests_too_much_is_refused() {
    let nested = |open: &str, close: &str| format!("{}select 1{}", open.repeat(101), close.repeat(101));
    for sql in [
        nested("select * from (", ")"),
        nested("select 1 union all select * from (", ")"),
        nested("with a as (", ") select * from a"),
        nested("/* ) */ select 1 in (", ")"),
        nested("select ')' || (", ")"),
        expression_chain(1_500, |i| format!("select * from a{i}")),
        expression_chain(1_100, |i| format!("select 1 in a{i}")),
        expression_chain(20, |i| format!("select 1 from a{i} p, a{i} q")),
        expression_chain(20, |i| format!("select 1 from t window, a{i} p, a{i} q")),
        expression_chain(20, |i| format!("select * from a{i} union all select * from a{i}")),
        expression_chain(20, |i| format!("select 1 where 1 in a{i} and 2 in \"A{i}\"")),
        format!("select {}1{}", "1 between ".repeat(1_001), " and 1".repeat(1_001)),
        format!("select 1{}", " union select 1".repeat(1_001)),
    ] {
        assert!(measure_text(&sql).check_limits().is_err(), "{}", &sql[..80]);
        assert!(!StatementComplexity::is_simple(&sql));
    }
}

#[test]
fn a_circle_has_no_end_and_is_refused() {
    assert!(
        measure_text("with a as (select * from b), b as (select * from a) select * from a").check_limits().is_err()
    );
}

#[test]
fn a_chain_as_long_as_a_file_does_not_overflow_the_measuring_itself() {
    assert!(measure_text(&expression_chain(200_000, |i| format!("select * from a{i}"))).check_limits().is_err());
    assert!(measure_text(&"(".repeat(1_000_000)).check_limits().is_err());
}

#[test]
fn a_script_is_measured_statement_by_statement() {
    let fine = "create table t(a);".repeat(5_000);
    assert_eq!(check_script(&fine), Ok(()));
    let bad = format!("{fine} select {}1{}; select 2", "(".repeat(101), ")".repeat(101));
    assert_eq!(check_script(&bad).unwrap_err().0, fine.len());
}

#[test]
fn values_are_counted_where_one_is_made() {
    assert_eq!(measure_text("select lower(a) || 'b' || 'c', d ->> '$.x' from t where a in (1) and (b or c)").values, 4);
}

#[test]
fn names_that_no_expression_of_the_text_explains_are_told() {
    let sql = "with a as (select * from t) select * from a join v on a.x = v.y, main.w where 1 in z";
    let mut names = measure_text(sql).names;
    names.sort();
    assert_eq!(names, ["t", "v", "w", "z"]);
}

/// A piece of text that hides its content, and a piece that nests.
fn text_piece() -> impl Strategy<Value = (String, usize)> {
    let hidden = "[()a ;]{0,6}";
    prop_oneof![
        hidden.prop_map(|text| (format!("'{text}'"), 0)),
        hidden.prop_map(|text| (format!("\"{text}\""), 0)),
        hidden.prop_map(|text| (format!("[{text}]"), 0)),
        hidden.prop_map(|text| (format!("`{text}`"), 0)),
        hidden.prop_map(|text| (format!("/*{text}*/"), 0)),
        hidden.prop_map(|text| (format!("--{text}\n"), 0)),
        (1_usize..90).prop_map(|depth| (format!("{}1{}", "( ".repeat(depth), ")".repeat(depth)), depth)),
    ]
}

proptest! {
    #[test]
    fn nothing_hides_a_parenthesis_and_nothing_else_is_one(pieces in prop::collection::vec(text_piece(), 0..20)) {
        let sql: String = pieces.iter().map(|(text, _)| format!(" {text} +")).collect();
        let deepest = pieces.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
        prop_assert_eq!(measure_text(&sql).parentheses, deepest);
    }

    #[test]
    fn any_text_is_measured(sql in "\\PC{0,200}") {
        let _ = measure_text(&sql).check_limits();
    }
}
