//! `kill -9` at any moment: what the ledger says is what the schema has, and a second run finishes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use tenant_engine::*;

use super::child;
use super::kit::{BASE, Kit, Tenant, base_and, set};

/// Versions after the base; more than a child gets through before it is killed.
const VERSIONS: usize = 400;

fn many() -> MigrationSet {
    let files: Vec<(String, String)> = (3..VERSIONS + 3)
        .map(|n| (format!("{n:04}_k.sql"), format!("create table k{n}(a); insert into projects(name) values('k{n}');")))
        .collect();
    base_and(&files.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).collect::<Vec<_>>())
}

/// Starts this very test as a child in `directory` and kills it after it has said `lines` lines.
fn run_and_kill(name: &str, directory: &Path, lines: usize) {
    let mut child = child::command(name, directory).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let heard = said.filter(|line| line.starts_with("did ")).take(lines).count();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(heard, lines, "the child did not get that far");
}

fn say(what: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "did {what}").and_then(|()| out.flush()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_migration_is_whole_versions() {
    const NAME: &str = "sqlite::crash::a_killed_migration_is_whole_versions";
    if let Some(directory) = child::directory() {
        let kit = Kit::at(&directory);
        let (tenant, set) = (kit.any().unwrap(), many());
        for version in 3..VERSIONS as i64 + 3 {
            kit.engine.migrate_database(&tenant.at, &tenant.expected(), &set, Some(version)).await.unwrap();
            say(version);
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let kit = Kit::at(directory.path());
    let tenant = kit.provisioned(&set(&BASE)).await;
    for lines in [1, 4, 2, 9, 3, 6] {
        run_and_kill(NAME, directory.path(), lines);
        agrees(&kit, &tenant).await;
    }
    kit.migrate(&tenant, &many()).await.unwrap();
    agrees(&kit, &tenant).await;
    assert_eq!(tenant.number("select max(version) from _sqlx_migrations"), VERSIONS as i64 + 2);
}

/// Ledger, tables and rows tell the same story.
async fn agrees(kit: &Kit, tenant: &Tenant) {
    let seen = kit.engine.inspect_database(&tenant.at, Some(&tenant.expected()), InspectionDepth::Full).await.unwrap();
    assert!(seen.problems.is_empty(), "{:?}", seen.problems);
    assert!(seen.applied.iter().all(|row| row.success));
    let applied = seen.applied.len() as i64 - BASE.len() as i64;
    assert_eq!(tenant.number("select count(*) from sqlite_schema where name glob 'k[0-9]*'"), applied);
    assert_eq!(tenant.number("select count(distinct name) from projects where name glob 'k*'"), applied);
    assert_eq!(tenant.number("select count(*) from projects"), applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_provisioning_leaves_whole_databases_or_none() {
    const NAME: &str = "sqlite::crash::a_killed_provisioning_leaves_whole_databases_or_none";
    if let Some(directory) = child::directory() {
        let kit = Kit::at(&directory);
        for number in 0..100_000 {
            kit.provisioned(&set(&BASE)).await;
            say(number);
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let kit = Kit::at(directory.path());
    for lines in [1, 7, 20] {
        run_and_kill(NAME, directory.path(), lines);
    }
    let mut whole = 0;
    for tenant in kit.all() {
        let seen = kit.engine.inspect_database(&tenant.at, None, InspectionDepth::Full).await.unwrap();
        assert!(seen.problems.is_empty() && seen.schema_version() == Some(2));
        whole += 1;
    }
    assert!(whole >= 28, "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_file_without_transaction_is_found_dirty() {
    const NAME: &str = "sqlite::crash::a_killed_file_without_transaction_is_found_dirty";
    let endless = "-- no-transaction\ncreate table bare(x);\ninsert into bare with recursive n(i) as \
                   (values(1) union all select i + 1 from n) select i from n where i % 1000000000 = 0;";
    let head = base_and(&[("0003_endless.sql", endless)]);
    if let Some(directory) = child::directory() {
        let kit = Kit::at(&directory);
        let tenant = kit.any().unwrap();
        say("start");
        kit.migrate(&tenant, &head).await.unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let kit = Kit::at(directory.path());
    let tenant = kit.provisioned(&set(&BASE)).await;
    let mut child = child::command(NAME, directory.path()).spawn().unwrap();
    // The row that says the version has begun is committed, and the file runs.
    let begun = tenant.open();
    while begun.query_row("select count(*) from _sqlx_migrations where version = 3", [], |row| row.get(0)) != Ok(1) {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    drop(begun);
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..2 {
        let error = kit.migrate(&tenant, &head).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationDirty, "{error}");
        assert!(error.message().contains("version 3") && error.message().contains("success to 1"), "{error}");
    }
    // The way out that the message names.
    tenant.open().execute_batch("drop table if exists bare; delete from _sqlx_migrations where version = 3").unwrap();
    assert_eq!(
        kit.migrate(&tenant, &base_and(&[("0003_bare.sql", "create table bare(x);")])).await.unwrap().applied,
        [3]
    );
}
