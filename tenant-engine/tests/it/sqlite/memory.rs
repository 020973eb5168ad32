//! What happens when SQLite finds no memory: the statement fails, and may be repeated.

use rusqlite::Connection;
use tenant_engine::*;

use super::child;
use super::kit::{BASE, Kit, set};

/// Set in the child only: the limit is one of the whole process, and can only be lowered.
const HEAP_BYTES: usize = 24_000_000;

/// Holds so many values of 600 KB while it runs.
fn write(values: usize) -> SqlStatement {
    let lengths: Vec<String> = (1..=values).map(|number| format!("length(?{number})")).collect();
    let sql = format!("insert into projects(name) select 'p' || ({})", lengths.join(" + "));
    SqlStatement { sql, params: vec![SqlValue::Blob(vec![1; 600_000]); values] }
}

async fn run(pool: &Pool, statement: SqlStatement) -> Result<Vec<Rows>> {
    pool.new_session(AccessMode::Write, SessionLimits::default())
        .run_statements(vec![statement], AfterStatements::Commit)
        .await
}

#[tokio::test]
async fn a_statement_without_memory_is_rolled_back_and_may_be_repeated() {
    let Some(directory) = child::directory() else {
        let dir = tempfile::tempdir().unwrap();
        let name = "sqlite::memory::a_statement_without_memory_is_rolled_back_and_may_be_repeated";
        return child::succeeds(child::command(name, dir.path()));
    };
    let kit = Kit::at(&directory);
    let (greedy, other) = (kit.provisioned(&set(&BASE)).await, kit.provisioned(&set(&BASE)).await);
    let (first, second) = (
        kit.engine.open_pool(&greedy.at, &greedy.expected()).await.unwrap(),
        kit.engine.open_pool(&other.at, &other.expected()).await.unwrap(),
    );
    run(&first, write(20)).await.unwrap();
    let limit = format!("pragma hard_heap_limit = {HEAP_BYTES}");
    Connection::open_in_memory().unwrap().query_row(&limit, [], |_| Ok(())).unwrap();
    let error = run(&first, write(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryMax, "{error}");
    assert!(error.kind().is_transient());
    // Nothing of it is there, and all others are served, this tenant too.
    run(&second, write(2)).await.unwrap();
    run(&first, write(2)).await.unwrap();
    assert_eq!(greedy.number("select count(*) from projects"), 2);
}
