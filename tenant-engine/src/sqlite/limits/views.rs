//! Measures how deeply the views of a schema use each other, at the end of a migration.
//!
//! SQLite replaces a view's name by its text while it prepares a statement. So a chain of views costs as much as
//! nesting (`complexity.rs`), in every statement that names the last view.

use std::collections::HashMap;

use rusqlite::Connection;

use super::complexity::{StatementComplexity, plain_name};
use crate::error::Result;
use crate::sqlite::error::from_sqlite;

/// Maximum views in a chain that use each other. The time to prepare grows with the square.
const CHAIN_MAX: usize = 100;

/// Maximum uses of views, after each use is replaced by the views that it uses in turn.
const USES_MAX: usize = 10_000;

/// Names a view that nests too deeply, if there is one.
///
/// # Errors
/// SQLite's.
pub(super) fn too_deep(db: &Connection) -> Result<Option<String>> {
    larger_than(db, CHAIN_MAX, USES_MAX)
}

/// As [`too_deep`], with other limits.
///
/// # Errors
/// SQLite's.
pub(super) fn larger_than(db: &Connection, chain_max: usize, uses_max: usize) -> Result<Option<String>> {
    let sql = "select name, sql from main.sqlite_schema where type = 'view' and sql is not null";
    let mut statement = db.prepare_cached(sql).map_err(from_sqlite)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(from_sqlite)?;
    let views: Vec<(String, String)> = rows.collect::<rusqlite::Result<_>>().map_err(from_sqlite)?;
    Ok(ViewGraph::new(&views, chain_max, uses_max).too_deep())
}

struct ViewGraph {
    chain_max: usize,
    uses_max: usize,
    uses: HashMap<String, Vec<String>>,
    /// Chain and uses of the views that were measured; `None` while a view is being measured.
    known: HashMap<String, Option<(usize, usize)>>,
}

impl ViewGraph {
    fn new(views: &[(String, String)], chain_max: usize, uses_max: usize) -> Self {
        let uses =
            views.iter().map(|(name, sql)| (plain_name(name), StatementComplexity::measure_sql(sql).names)).collect();
        Self { chain_max, uses_max, uses, known: HashMap::new() }
    }

    fn too_deep(mut self) -> Option<String> {
        let (chain_max, uses_max) = (self.chain_max, self.uses_max);
        let names: Vec<String> = self.uses.keys().cloned().collect();
        names.into_iter().find_map(|name| {
            let (chain, uses) = self.view_size(&name, chain_max);
            let message = match (chain > chain_max, uses > uses_max) {
                (true, _) => format!("more than {chain_max} views use each other, up to '{name}'"),
                (false, true) => format!("the view '{name}' grows to more than {uses_max} uses of other views"),
                (false, false) => return None,
            };
            Some(message)
        })
    }

    /// Goes no deeper than `left`. A view that uses itself is an error that SQLite reports.
    fn view_size(&mut self, name: &str, left: usize) -> (usize, usize) {
        match self.known.get(name) {
            Some(known) => return known.unwrap_or((0, 0)),
            None if left == 0 => return (self.chain_max, self.uses_max),
            None => self.known.insert(name.to_owned(), None),
        };
        let uses: Vec<String> = self.uses.get(name).into_iter().flatten().cloned().collect();
        let (mut chain, mut total) = (0, 0_usize);
        for used in uses.iter().filter(|used| self.uses.contains_key(*used)).cloned().collect::<Vec<_>>() {
            let (deep, many) = self.view_size(&used, left - 1);
            chain = chain.max(deep);
            total = total.saturating_add(many).saturating_add(1);
        }
        self.known.insert(name.to_owned(), Some((chain + 1, total)));
        (chain + 1, total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(sql: &str) -> Option<String> {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(sql).unwrap();
        too_deep(&db).unwrap()
    }

    fn chain(count: usize, body: impl Fn(usize) -> String) -> String {
        let views: String = (1..count).map(|i| format!("create view v{i}(x) as {};", body(i - 1))).collect();
        format!("create table t(a); create view v0(x) as select a from t; {views}")
    }

    #[test]
    fn a_chain_of_views_has_an_end() {
        assert_eq!(schema(&chain(100, |i| format!("select * from v{i}"))), None);
        assert!(schema(&chain(102, |i| format!("select * from \"V{i}\""))).unwrap().contains("use each other"));
        assert!(schema(&chain(1_500, |i| format!("select 1 in v{i}"))).is_some());
    }

    #[test]
    fn views_that_double_have_an_end() {
        assert_eq!(schema(&chain(9, |i| format!("select p.x from v{i} p, v{i} q"))), None);
        let grown = schema(&chain(30, |i| format!("select p.x from v{i} p join main.v{i} q"))).unwrap();
        assert!(grown.contains("uses of other views"), "{grown}");
    }

    #[test]
    fn common_table_expressions_and_circles_are_no_views() {
        assert_eq!(schema(&chain(200, |i| format!("with v{i} as (select 1) select * from v{i}"))), None);
        assert_eq!(schema("create view a as select * from b; create view b as select * from a;"), None);
    }
}
