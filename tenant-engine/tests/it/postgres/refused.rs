//! Servers that do not let us in or do not let us do it: what the error says, how soon, and that it heals by itself.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres_fixture::Settings;
use tenant_engine::postgres::PostgresServer;
use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, engine, set};

/// The kind and the words of what a survey with this connection string answers; never slow, never a secret.
async fn survey(kit: &Kit, dsn: &str) -> (ErrorKind, String) {
    let server = DatabaseServer::Postgres(Arc::new(PostgresServer::new(&dsn.to_owned().into()).unwrap()));
    let began = Instant::now();
    let error = kit.engine.survey_server(&server).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hidden") && !shown.contains("fleet-test"), "{shown}");
    (error.kind(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_get_in_is_told_why() {
    let kit = Kit::new();
    let port = kit.cluster.port();
    for (dsn, kind) in [
        (format!("postgres://fleet:hidden@127.0.0.1:{port}/postgres"), ErrorKind::ServerAuthFailed),
        (format!("postgres://fleet@127.0.0.1:{port}/postgres"), ErrorKind::ServerAuthFailed),
        (format!("postgres://nobody:hidden@127.0.0.1:{port}/postgres"), ErrorKind::ServerAuthFailed),
        (format!("postgres://fleet:fleet-test@127.0.0.1:{port}/missing"), ErrorKind::Missing),
        ("postgres://fleet:hidden@127.0.0.1:9/postgres".to_owned(), ErrorKind::ServerUnreachable),
        ("postgres://fleet:hidden@nowhere.invalid/postgres".to_owned(), ErrorKind::ServerUnreachable),
        (format!("postgres://fleet:hidden@127.0.0.1:{port}/postgres?sslmode=require"), ErrorKind::ServerTls),
    ] {
        let (found, words) = survey(&kit, &dsn).await;
        assert_eq!(found, kind, "{dsn}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_used_when_it_is_wanted() {
    let keys = tempfile::tempdir().unwrap();
    let path = |name: &str| keys.path().join(name).to_str().unwrap().to_owned();
    let made = Command::new("openssl")
        .args(["req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost", "-addext"])
        .args([
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &path("key"),
            "-out",
            &path("cert"),
        ])
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: openssl is not installed");
        return;
    }
    let owner = "chown -R postgres \"$0\" && chmod 755 \"$0\" && chmod 600 \"$0/key\"";
    let owned = Command::new("sh").args(["-c", owner]).arg(keys.path()).status().unwrap();
    assert!(owned.success() || !rustix::process::geteuid().is_root());
    let kit = Kit::with(&Settings {
        more: vec![
            "ssl=on".to_owned(),
            format!("ssl_cert_file='{}'", path("cert")),
            format!("ssl_key_file='{}'", path("key")),
        ],
        hba: vec!["hostssl all all 127.0.0.1/32 scram-sha-256".to_owned(), "host all all all reject".to_owned()],
        ..Settings::default()
    });
    let dsn = |parameters: &str| format!("{}?{parameters}", kit.cluster.dsn("postgres"));
    assert_eq!(survey(&kit, &dsn("sslmode=disable")).await.0, ErrorKind::ServerTls);
    assert_eq!(survey(&kit, &dsn("sslmode=verify-full")).await.0, ErrorKind::ServerTls, "an authority nobody knows");
    let trusted = dsn(&format!("sslmode=verify-full&sslrootcert={}", path("cert")));
    let server = Arc::new(PostgresServer::new(&trusted.into()).unwrap());
    kit.engine.survey_server(&DatabaseServer::Postgres(server.clone())).await.unwrap();
    // The programs, too.
    let tenant = kit.tenant();
    let at = DatabaseServer::Postgres(server.clone()).fresh_placement(tenant.identity.tenant, Generation::FIRST, 1);
    let template = kit.engine.prepare_template(&DatabaseServer::Postgres(server), &set(&BASE)).await.unwrap();
    kit.engine.provision_database(&at, &template, &tenant.identity).await.unwrap();
    kit.engine.take_snapshot(&at, &tenant.expected()).await.unwrap();
    // And requests.
    let pool = kit.engine.open_pool(&at, &tenant.expected()).await.unwrap();
    let statement = SqlStatement { sql: "select 1".to_owned(), params: Vec::new() };
    pool.new_session(AccessMode::Read, SessionLimits::default())
        .run_statements(vec![statement], AfterStatements::Commit)
        .await
        .unwrap();
    let encrypted = "select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) \
                     where a.usename like 't\\_%' and s.ssl";
    assert_eq!(kit.cluster.psql("postgres", encrypted), "1");
    pool.close().await;
}

/// A server without a free connection, on which our engine has no idle one either.
async fn full_server() -> (Kit, Tenant, Vec<sqlx::PgConnection>) {
    let mut kit = Kit::with(&Settings { connections_max: 6, ..Settings::default() });
    let tenant = kit.provisioned(&set(&BASE)).await;
    kit.engine = engine(kit.scratch.path());
    let options: sqlx::postgres::PgConnectOptions = kit.cluster.dsn("postgres").parse().unwrap();
    let ours = "select count(*) from pg_stat_activity where application_name = 'fleet maintenance'";
    while kit.cluster.psql("postgres", ours) != "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut taken = Vec::new();
    while let Ok(one) = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await {
        taken.push(one);
    }
    (kit, tenant, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_said_to_be_full_and_heals() {
    let (kit, tenant, taken) = full_server().await;
    let error = kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Ledger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerFull, "{error}");
    drop(taken);
    let deadline = Instant::now() + Duration::from_secs(10);
    while kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Ledger).await.is_err() {
        assert!(Instant::now() < deadline, "it does not heal");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_on_a_full_server_waits_for_a_place() {
    let (kit, tenant, mut taken) = full_server().await;
    let seen = kit.engine.survey_server(&kit.server()).await.unwrap_err();
    assert_eq!(seen.kind(), ErrorKind::ServerFull, "a survey does not wait: {seen}");
    let (engine, at) = (kit.engine.clone(), tenant.at.clone());
    let work = tokio::spawn(async move { engine.inspect_database(&at, None, InspectionDepth::Ledger).await });
    // Meanwhile the first attempts are refused.
    sqlx::raw_sql("select pg_sleep(0.2)").execute(&mut taken[0]).await.unwrap();
    assert!(!work.is_finished(), "it waits");
    drop(taken);
    work.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survey_tells_what_the_role_lacks() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    let seen = kit.engine.survey_server(&kit.server()).await.unwrap();
    assert!(seen.version.starts_with("PostgreSQL 1") && seen.lacks.is_empty(), "{seen:?}");
    let id = kit.cluster.psql("postgres", "select system_identifier from pg_control_system()");
    assert_eq!(seen.system_id, Some(id));
    assert_eq!(seen.connections_max, Some(57));
    assert!(seen.connections_used >= Some(1) && seen.databases_bytes > Some(1_000_000), "{seen:?}");

    kit.cluster.psql("postgres", "alter role fleet nocreatedb");
    let seen = kit.engine.survey_server(&kit.server()).await.unwrap();
    assert_eq!(seen.lacks, ["CREATEDB: alter role \"fleet\" createdb"]);
    let template = kit.engine.prepare_template(&kit.server(), &set(&BASE)).await.unwrap();
    let other = kit.tenant();
    let error = kit.engine.provision_database(&other.at, &template, &other.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerPrivilege, "{error}");
    assert!(error.message().contains("createdb"), "{error}");

    kit.cluster.psql("postgres", "alter role fleet createdb nocreaterole");
    let seen = kit.engine.survey_server(&kit.server()).await.unwrap();
    assert_eq!(seen.lacks, ["CREATEROLE: alter role \"fleet\" createrole"]);
    let error = kit.engine.provision_database(&other.at, &template, &other.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerPrivilege, "{error}");
    kit.cluster.psql("postgres", "revoke fleet_read from fleet");
    let error = kit.migrate(&tenant, &base_and(&[("3_x.sql", "create table x(a int);")])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerPrivilege, "each migration has a login of its own: {error}");
    let seen = kit.engine.survey_server(&kit.server()).await.unwrap();
    assert_eq!(seen.lacks.len(), 2, "{:?}", seen.lacks);
    kit.cluster.psql("postgres", "alter role fleet createrole; grant fleet_read to fleet");
    kit.engine.provision_database(&other.at, &template, &other.identity).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_behind_our_back_is_missing_or_made_again() {
    let kit = Kit::new();
    let (one, two) = (kit.provisioned(&set(&BASE)).await, kit.provisioned(&set(&BASE)).await);
    kit.cluster.psql("postgres", &format!("drop database \"{}\" with (force)", one.database()));
    for outcome in [
        kit.migrate(&one, &set(&BASE)).await.map(drop),
        kit.engine.take_snapshot(&one.at, &one.expected()).await.map(drop),
        kit.engine.stamp_identity(&one.at, &one.expected(), &one.identity).await,
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Missing);
    }
    let template = kit.cluster.psql("postgres", "select datname from pg_database where datname like 'tmpl%'");
    kit.cluster.psql("postgres", &format!("alter database \"{template}\" is_template false"));
    kit.cluster.psql("postgres", &format!("drop database \"{template}\""));
    assert_eq!(kit.ask(&kit.provisioned(&set(&BASE)).await, "select count(*) from tasks"), "0");
    // The role that owns the objects, which nothing but a right on databases depends on here; the identity.
    kit.migrate(&two, &base_and(&[("3_x.sql", "create table x(a int);")])).await.unwrap();
    kit.ask(&two, "delete from _fleet_identity");
    let error = kit.engine.drop_database(&two.at, Some(&two.expected())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    kit.ask(&two, "insert into _fleet_identity values (1, 'nonsense', 'x', 1, 'active', null, 1)");
    assert_eq!(kit.engine.drop_database(&two.at, Some(&two.expected())).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Only ids ever become names, and a value of the public type that is none is refused before any SQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_none_reaches_no_server() {
    let kit = Kit::new();
    let tenant = kit.tenant();
    for database in ["postgres", "x\"; drop database postgres; --", "t_1_g1_1", "template1"] {
        let at = Placement::Postgres { server: kit.postgres.clone(), database: database.to_owned() };
        assert_eq!(kit.engine.drop_database(&at, None).await.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(
            kit.engine.inspect_database(&at, None, InspectionDepth::Full).await.unwrap_err().kind(),
            ErrorKind::Internal
        );
    }
    assert_eq!(kit.engine.drop_database(&tenant.at, None).await.map_err(|error| error.kind()), Ok(()));
    let odd = base_and(&[("3_it's_\"odd\"; drop table projects.sql", "select 1;")]);
    kit.provisioned(&odd).await;
}
