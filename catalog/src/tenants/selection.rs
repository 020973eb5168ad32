//! Which tenants a request is about, as a condition on their rows.

use super::selector::LabelSelector;
use crate::bulk::{Sql, chunks, places};
use crate::ids::{ServerId, TenantId};
use crate::tenant::TenantState;
use crate::tenants::sorted;
use crate::word;

/// Which tenants; every field narrows. The empty selection means all: callers make "all" explicit before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these.
    pub ids: Option<Vec<TenantId>>,
    /// Only with labels that meet this.
    pub labels: LabelSelector,
    /// Only on this server.
    pub server: Option<ServerId>,
    /// Only in one of these states; empty: every state but purged.
    pub states: Vec<TenantState>,
}

/// The ids of a selection in pieces, in order; one piece without ids when it names none.
pub(super) fn id_chunks(selection: &Selection, after: Option<TenantId>) -> Vec<Option<Vec<TenantId>>> {
    let Some(ids) = &selection.ids else { return vec![None] };
    let mut ids = sorted(ids);
    ids.retain(|id| after.is_none_or(|after| *id > after));
    chunks(&ids).map(|chunk| Some(chunk.to_vec())).collect()
}

/// A selection as a condition on `tenants t`.
pub(super) struct Filter {
    pub(super) sql: String,
    pub(super) arguments: Vec<String>,
}

impl Filter {
    pub(super) fn new(selection: &Selection, ids: Option<&[TenantId]>, after: Option<TenantId>) -> Self {
        let mut filter = Self { sql: String::new(), arguments: Vec::new() };
        filter.sql = if selection.states.is_empty() {
            "t.state <> 'purged'".to_owned()
        } else {
            format!("t.state in ({})", word::list(&selection.states))
        };
        if let Some(ids) = ids {
            let first = filter.arguments.len() + 1;
            filter.sql += &format!(" and t.id in ({})", places(first, ids.len()));
            filter.arguments.extend(ids.iter().map(ToString::to_string));
        }
        if let Some(server) = selection.server {
            filter.and("t.server_id = $", [server.to_string()]);
        }
        let (conditions, arguments) = selection.labels.conditions(filter.arguments.len() + 1);
        filter.sql += &conditions;
        filter.arguments.extend(arguments);
        if let Some(after) = after {
            filter.and("t.id > $", [after.to_string()]);
        }
        filter
    }

    fn and(&mut self, condition: &str, argument: [String; 1]) {
        self.arguments.extend(argument);
        self.sql += &format!(" and {condition}{}", self.arguments.len());
    }

    pub(super) fn bind<'q>(&self, sql: Sql<'q>) -> Sql<'q> {
        self.arguments.iter().fold(sql, |sql, argument| sql.bind(argument.clone()))
    }
}
