//! `kill -9` of this program between any two phases: a second run finishes, and nothing half-made is taken for whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use tenant_engine::postgres::PostgresServer;
use tenant_engine::*;

use super::child::{self, hear, kill, say, told};
use super::kit::{BASE, Kit, Tenant, base_and, engine, set};

/// What a parent tells its child: the server with its key, and a tenant.
fn tell(kit: &Kit, tenant: &Tenant) -> String {
    let id = |identity: &Identity| format!("{}\n{}", identity.tenant, identity.fleet);
    format!(
        "{}\n{}\n{}",
        kit.scratch.path().display(),
        id(&tenant.identity),
        kit.postgres.secret_text().expose_secret()
    )
}

struct Child {
    engine: tenant_engine::postgres::PostgresEngine,
    server: DatabaseServer,
    tenant: Tenant,
}

fn child_told() -> Option<Child> {
    let told = told()?;
    let mut lines = told.splitn(4, '\n');
    let engine = engine(lines.next()?.as_ref());
    let (tenant, fleet) = (lines.next()?.parse().unwrap(), lines.next()?.parse().unwrap());
    let secret = SecretString::from(lines.next()?.to_owned());
    let server = DatabaseServer::Postgres(Arc::new(PostgresServer::from_secret(&secret).unwrap()));
    let identity = Identity {
        tenant,
        fleet,
        generation: Generation::FIRST,
        state: IdentityState::Active,
        op: None,
        stamped_at: 1,
    };
    let tenant = Tenant { at: server.fresh_placement(tenant, Generation::FIRST, 1), identity };
    Some(Child { engine, server, tenant })
}

/// Waits until the superuser's question answers `t`.
fn wait_for(kit: &Kit, database: &str, question: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while kit.cluster.psql(database, question) != "t" {
        assert!(Instant::now() < deadline, "{question}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn slow_set() -> MigrationSet {
    base_and(&[("3_slow.sql", "create table third(a int); select pg_sleep(5);")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_builder_of_a_template_is_followed_by_another() {
    const NAME: &str = "postgres::crash::a_killed_builder_of_a_template_is_followed_by_another";
    if let Some(child) = child_told() {
        say("start");
        child.engine.prepare_template(&child.server, &slow_set()).await.unwrap();
        return;
    }
    let kit = Kit::new();
    let what = tell(&kit, &kit.tenant());
    let mut first = child::start(NAME, &what);
    hear(&mut first, 1);
    wait_for(
        &kit,
        "postgres",
        "select exists (select from pg_stat_activity where query ~ 'pg_sleep' and datname like 'tmpl%')",
    );
    let mut second = child::start(NAME, &what);
    hear(&mut second, 1);
    kill(first);
    kill(second);
    // Ours waits until the server has noticed, and makes it again; several at once make one.
    let (one, two) = (engine(kit.scratch.path()), engine(kit.scratch.path()));
    let (server, set) = (kit.server(), slow_set());
    let (one, two) = tokio::join!(one.prepare_template(&server, &set), two.prepare_template(&server, &set));
    assert_eq!(one.unwrap().schema_version, two.unwrap().schema_version);
    assert_eq!(
        kit.cluster.psql(
            "postgres",
            "select count(*), bool_and(datistemplate and not datallowconn) from pg_database where datname like 'tmpl%'"
        ),
        "1|t"
    );
    let tenant = kit.provisioned(&set).await;
    assert_eq!(kit.ask(&tenant, "select max(version) from _sqlx_migrations"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_provisioning_leaves_whole_databases_or_none() {
    const NAME: &str = "postgres::crash::a_killed_provisioning_leaves_whole_databases_or_none";
    if let Some(child) = child_told() {
        let template = child.engine.prepare_template(&child.server, &set(&BASE)).await.unwrap();
        for number in 1.. {
            let at = child.server.fresh_placement(child.tenant.identity.tenant, Generation::FIRST, number);
            child.engine.provision_database(&at, &template, &child.tenant.identity).await.unwrap();
            say(number);
        }
        return;
    }
    let kit = Kit::new();
    kit.engine.prepare_template(&kit.server(), &set(&BASE)).await.unwrap();
    let template = kit.engine.prepare_template(&kit.server(), &set(&BASE)).await.unwrap();
    for pause in [0, 7, 15, 25, 33, 41, 60] {
        let tenant = kit.tenant();
        let mut child = child::start(NAME, &tell(&kit, &tenant));
        hear(&mut child, 2);
        std::thread::sleep(Duration::from_millis(pause));
        kill(child);
        for number in 1..100 {
            let at = kit.server().fresh_placement(tenant.identity.tenant, Generation::FIRST, number);
            match kit.engine.inspect_database(&at, Some(&tenant.expected()), InspectionDepth::Full).await {
                Ok(seen) => assert_eq!((seen.schema_version(), seen.problems.len()), (Some(2), 0)),
                // The one it was at, and perhaps the server is still at it for the dead.
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Missing | ErrorKind::Busy), "{error}");
                    let again = kit.engine.provision_database(&at, &template, &tenant.identity).await;
                    if let Err(error) = again {
                        assert!(error.kind().is_transient(), "{error}");
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        kit.engine.provision_database(&at, &template, &tenant.identity).await.unwrap();
                    }
                    let seen = kit
                        .engine
                        .inspect_database(&at, Some(&tenant.expected()), InspectionDepth::Full)
                        .await
                        .unwrap();
                    assert_eq!(seen.schema_version(), Some(2));
                    let own = Tenant { at, ..tenant.clone() };
                    super::logins::enter(&kit, &own, AccessMode::Write, own.database()).await.unwrap();
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_is_dropped_and_filled_anew() {
    const NAME: &str = "postgres::crash::a_killed_restore_is_dropped_and_filled_anew";
    if let Some(child) = child_told() {
        let image = kit_image(&child);
        say("start");
        child
            .engine
            .restore_database(&child.tenant.at, image, child.tenant.identity.tenant, &child.tenant.identity)
            .await
            .unwrap();
        return;
    }
    let kit = Kit::new();
    let source = kit.provisioned(&set(&BASE)).await;
    kit.ask(&source, "insert into projects select n, repeat(md5(n::text), 20) from generate_series(1, 60000) n");
    let taken = kit.engine.take_snapshot(&source.at, &source.expected()).await.unwrap();
    let SnapshotImage::File(path) = &taken.image else { panic!("it is large") };
    // Its own tenant at another placement, as a restore is.
    let to = kit.placed(Identity { generation: Generation(1), ..source.identity.clone() });
    kit.engine.drop_database(&source.at, None).await.unwrap();
    let phases = [
        "select count(*) = 1 from pg_database where datname like 't\\_%'",
        "select count(*) = 1 from pg_database where datname like 't\\_%' and datallowconn",
        "select exists (select from pg_stat_activity where query like 'COPY public.projects%FROM stdin%')",
        "select exists (select from pg_stat_activity where datname like 't\\_%' and query like '%INDEX%' or query like '%CONSTRAINT%')",
    ];
    for phase in phases {
        std::fs::copy(path, kit.scratch.path().join("image")).unwrap();
        let mut child = child::start(NAME, &tell(&kit, &to));
        hear(&mut child, 1);
        wait_for(&kit, "postgres", phase);
        kill(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        let image = || {
            let copy = tempfile::NamedTempFile::new_in(kit.scratch.path()).unwrap().into_temp_path();
            std::fs::copy(path, &copy).unwrap();
            SnapshotImage::File(copy)
        };
        while let Err(error) = kit.engine.restore_database(&to.at, image(), to.identity.tenant, &to.identity).await {
            assert!(error.kind().is_transient() && Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(kit.ask(&to, "select count(*), max(id) from projects"), "60000|60000", "{phase}");
        kit.engine.drop_database(&to.at, Some(&to.expected())).await.unwrap();
    }
}

/// What the parent put there.
fn kit_image(child: &Child) -> SnapshotImage {
    let _ = child;
    let scratch = told().unwrap().lines().next().unwrap().to_owned();
    let bytes = std::fs::read(std::path::Path::new(&scratch).join("image")).unwrap();
    SnapshotImage::Memory(bytes.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_concurrent_index_is_cleared_and_built() {
    const NAME: &str = "postgres::crash::a_killed_concurrent_index_is_cleared_and_built";
    let bare = base_and(&[("3_i.sql", "-- no-transaction\ncreate index concurrently by_name on projects(name);")]);
    if let Some(child) = child_told() {
        say("start");
        child.engine.migrate_database(&child.tenant.at, &child.tenant.expected(), &bare, None).await.unwrap();
        return;
    }
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    // An old transaction keeps the build waiting, with its index there and invalid.
    let mut old = super::logins::enter(&kit, &tenant, AccessMode::Write, tenant.database()).await.unwrap();
    sqlx::raw_sql("begin; insert into projects values (1, 'a')").execute(&mut old).await.unwrap();
    let mut child = child::start(NAME, &tell(&kit, &tenant));
    hear(&mut child, 1);
    wait_for(&kit, tenant.database(), "select exists (select from pg_index where not indisvalid)");
    kill(child);
    let busy = kit.migrate(&tenant, &bare).await;
    assert!(
        busy.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy),
        "the dead one's session is there: {busy:?}"
    );
    wait_for(
        &kit,
        tenant.database(),
        "select not exists (select from pg_stat_activity where query ~ 'create index' and pid <> pg_backend_pid())",
    );
    assert_eq!(kit.ask(&tenant, "select success from _sqlx_migrations where version = 3"), "f");
    sqlx::raw_sql("commit").execute(&mut old).await.unwrap();
    assert_eq!(kit.migrate(&tenant, &bare).await.unwrap().applied, [3]);
    assert_eq!(kit.ask(&tenant, "select indisvalid from pg_index where indexrelid = 'by_name'::regclass"), "t");
    assert_eq!(kit.ask(&tenant, "select success from _sqlx_migrations where version = 3"), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_opened_is_no_database_yet() {
    let kit = Kit::new();
    let tenant = kit.tenant();
    let make = format!("create database {} owner fleet allow_connections false", tenant.database());
    kit.cluster.psql("postgres", &make);
    let error = kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Ledger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    // One that had its rights and was closed by somebody is theirs to judge.
    kit.cluster.psql("postgres", &format!("revoke all on database {} from public", tenant.database()));
    let error = kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Ledger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
}
