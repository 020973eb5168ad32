//! The data API: statements, values, and walls between tenants.

use serde_json::json;

use crate::http::site::{Site, send};

#[tokio::test]
async fn colliding_ids_never_show_another_tenants_row() {
    let names = ["acme", "globex", "initech"];
    let site = Site::with_tenants(&names).await;
    for name in names {
        let token = site.tenant_token(name, "reader").await;
        let answer = site
            .ask(name, &token, &json!({ "sql": "select id, body from notes where id = ?1", "params": [1] }))
            .await
            .ok();
        assert_eq!(answer["rows"], json!([[1, format!("canary of {name}")]]));
        assert_eq!(answer["columns"], json!(["id", "body"]));
        for other in names.iter().filter(|other| **other != name) {
            let foreign = site.ask(other, &token, &json!({ "sql": "select body from notes" })).await;
            foreign.problem(404, "not_found");
            assert!(!foreign.text.contains("canary"));
        }
    }
    site.stop().await;
}

#[tokio::test]
async fn an_unknown_and_a_foreign_tenant_answer_the_same_bytes() {
    let site = Site::with_tenants(&["acme", "globex"]).await;
    let token = site.tenant_token("acme", "writer").await;
    let ask = |tenant: &str, body: serde_json::Value| {
        let url = format!("{}/t/{tenant}/query", site.data);
        send(site.client.post(url).bearer_auth(&token).header("x-request-id", "same").json(&body))
    };
    for body in
        [json!({ "sql": "select 1" }), json!({ "sql": "insert into notes values (2, 'x')" }), json!({ "sql": 1 })]
    {
        let (mut foreign, mut unknown) = (ask("globex", body.clone()).await, ask("nobody", body).await);
        for answer in [&mut foreign, &mut unknown] {
            answer.headers.remove("date");
        }
        assert_eq!(foreign, unknown);
        foreign.problem(404, "not_found");
    }
    site.stop().await;
}

#[tokio::test]
async fn names_that_disagree_are_refused_and_the_header_is_for_services() {
    let site = Site::with_tenants(&["acme", "globex"]).await;
    let service = site.post("/v1/tokens", &json!({ "service": true, "role": "reader" })).await.ok()["secret"].clone();
    let ask = |path: &str, token: &str, header: Option<&str>| {
        let request = site.client.post(format!("{}{path}", site.data)).bearer_auth(token);
        let request = request.json(&json!({ "sql": "select body from notes" }));
        send(header.into_iter().fold(request, |request, name| request.header("x-tenant", name)))
    };
    let service = service.as_str().unwrap();
    assert_eq!(ask("/query", service, Some("acme")).await.ok()["rows"], json!([["canary of acme"]]));
    assert_eq!(ask("/t/globex/query", service, Some("globex")).await.ok()["rows"], json!([["canary of globex"]]));
    ask("/t/globex/query", service, Some("acme")).await.problem(400, "tenant_ambiguous");
    ask("/query", service, None).await.problem(400, "tenant_unnamed");
    let own = site.tenant_token("acme", "reader").await;
    ask("/query", &own, Some("acme")).await.problem(400, "tenant_header_refused");
    site.stop().await;
}

#[tokio::test]
async fn a_reader_reads_and_a_writer_writes_all_or_nothing() {
    let site = Site::with_tenants(&["acme"]).await;
    let reader = site.tenant_token("acme", "reader").await;
    let writer = site.tenant_token("acme", "writer").await;
    for sql in [
        "insert into notes values (2, 'x')",
        "with x as (select 9 as n) insert into notes select n, 'x' from x",
        "delete from notes",
    ] {
        site.ask("acme", &reader, &json!({ "sql": sql })).await.problem(403, "read_only");
    }
    let with = json!({ "sql": "with x as (select 9 as n) insert into notes select n, 'x' from x returning id" });
    assert_eq!(site.ask("acme", &writer, &with).await.ok()["rows"], json!([[9]]), "looks like reading, writes");
    let batch = |token: &str, statements: serde_json::Value| {
        let request = site.client.post(format!("{}/t/acme/batch", site.data)).bearer_auth(token);
        send(request.json(&json!({ "statements": statements })))
    };
    let good = json!([{ "sql": "insert into notes values (20, ?1)", "params": ["a"] }, { "sql": "select count(*) from notes" }]);
    assert_eq!(batch(&writer, good).await.ok()["results"][1]["rows"], json!([[3]]));
    let bad =
        json!([{ "sql": "insert into notes values (30, 'x')" }, { "sql": "insert into notes values (1, 'dup')" }]);
    batch(&writer, bad).await.problem(409, "constraint_violation");
    let count = json!({ "sql": "select count(*) from notes" });
    assert_eq!(site.ask("acme", &reader, &count).await.ok()["rows"], json!([[3]]));
    batch(&writer, json!([])).await.problem(422, "invalid");
    batch(&writer, json!(vec![json!({ "sql": "select 1" }); 101])).await.problem(422, "invalid");
    batch(&reader, json!([{ "sql": "select 1" }, { "sql": "delete from notes" }])).await.problem(403, "read_only");
    site.stop().await;
}

#[tokio::test]
async fn values_survive_the_trip_and_bad_ones_are_numbered() {
    let site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "reader").await;
    let values = json!([null, 1, 1.5, "a\u{0}é", { "$int": "9007199254740993" }, { "$blob": "AP8K" }, { "$real": "-inf" }, true]);
    let sql = "select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, typeof(?5), typeof(?6)";
    let rows = site.ask("acme", &token, &json!({ "sql": sql, "params": values })).await.ok()["rows"].clone();
    let mut wanted = values.as_array().unwrap().clone();
    wanted[7] = json!(1);
    wanted.extend([json!("integer"), json!("blob")]);
    assert_eq!(rows, json!([wanted]));
    let refused =
        site.ask("acme", &token, &json!({ "sql": "select ?1, ?2", "params": [1, [2]] })).await.problem(422, "invalid");
    assert!(refused["detail"].as_str().unwrap().contains("number 2"), "{refused}");
    site.ask("acme", &token, &json!({ "sql": "select ?1", "params": [] })).await.problem(400, "parameter_mismatch");
    site.stop().await;
}

#[tokio::test]
async fn what_is_not_allowed_or_too_much_is_a_clear_refusal() {
    let site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "writer").await;
    for (sql, status, code) in [
        ("sleect 1", 400, "sql_invalid"),
        ("select 1; select 2", 400, "sql_invalid"),
        ("attach 'x.db' as x", 403, "sql_forbidden"),
        ("create table x (a)", 403, "sql_forbidden"),
        ("begin", 403, "sql_forbidden"),
        ("select * from nothing", 400, "sql_invalid"),
        (
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) select i from n",
            422,
            "rows_max",
        ),
    ] {
        site.ask("acme", &token, &json!({ "sql": sql })).await.problem(status, code);
    }
    let huge = json!({ "sql": format!("select '{}'", "x".repeat(2 << 20)) });
    site.ask("acme", &token, &huge).await.problem(413, "body_too_large");
    site.stop().await;
}

#[tokio::test]
async fn a_long_answer_comes_in_pieces_and_whole() {
    let site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "reader").await;
    let sql = "with recursive n(i) as (select 1 union all select i + 1 from n limit 5000) \
        select i, printf('%.*c', 100, 'é'), printf('%.*c', iif(i = 7, 300000, 0), 'y') from n";
    let long = site.ask("acme", &token, &json!({ "sql": sql })).await;
    assert!(!long.headers.contains_key("content-length"), "{:?}", long.headers);
    let rows = long.ok()["rows"].as_array().unwrap().clone();
    assert_eq!((rows.len(), rows[4_999][0].as_i64()), (5_000, Some(5_000)));
    assert_eq!(rows[6][2].as_str().map(str::len), Some(300_000));
    let short = site.ask("acme", &token, &json!({ "sql": "select 1" })).await;
    assert_eq!(short.headers["content-length"], short.text.len().to_string());
    assert_eq!(short.headers["content-type"], "application/json");
    site.stop().await;
}

#[tokio::test]
async fn a_number_that_json_readers_round_is_refused_and_named_by_its_place() {
    let site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "writer").await;
    for number in ["18446744073709551616", "-9223372036854775809", "1e999", "1e-999"] {
        let body = format!("{{\"sql\": \"select ?1, ?2\", \"params\": [1, {number}]}}");
        let answer = site.ask_text("acme", &token, &body).await;
        let problem = answer.problem(422, "invalid");
        assert!(problem["detail"].as_str().unwrap().contains("number 2"), "{problem}");
    }
    let edges = json!([i64::MAX, i64::MIN, 5e-324, 0.1, {"$real": "inf"}]);
    let body = json!({ "sql": "select ?1, ?2, ?3, ?4, ?5", "params": edges });
    let row = site.ask("acme", &token, &body).await.ok()["rows"][0].clone();
    assert_eq!(row[0], json!({"$int": i64::MAX.to_string()}));
    let again = json!({ "sql": "select ?1, ?2, ?3, ?4, ?5", "params": row });
    assert_eq!(site.ask("acme", &token, &again).await.ok()["rows"][0], row);
    site.stop().await;
}
