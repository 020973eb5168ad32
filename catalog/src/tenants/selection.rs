//! The selection of tenants in a request, as a condition on their rows.

use super::selector::LabelSelector;
use crate::bulk::{SqlQuery, placeholder_list, sized_chunks};
use crate::ids::{ServerId, TenantId};
use crate::tenant::TenantState;
use crate::tenants::sorted_ids;
use crate::text_enum;

/// A selection of tenants; every field narrows it. The empty selection means all tenants: callers require an explicit
/// "all".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantCriteria {
    /// Only these tenants.
    pub ids: Option<Vec<TenantId>>,
    /// Only tenants whose labels match.
    pub labels: LabelSelector,
    /// Only tenants on this server.
    pub server: Option<ServerId>,
    /// Only tenants in one of these states; empty: all states except purged.
    pub states: Vec<TenantState>,
    /// Adds active tenants whose writes an operator blocks; without `states`, only those.
    pub read_only: bool,
}

/// The ids of a selection in ordered pieces. One piece without ids when the selection names no tenants.
pub(super) fn id_chunks(selection: &TenantCriteria, after: Option<TenantId>) -> Vec<Option<Vec<TenantId>>> {
    let Some(ids) = &selection.ids else { return vec![None] };
    let mut ids = sorted_ids(ids);
    ids.retain(|id| after.is_none_or(|after| *id > after));
    sized_chunks(&ids).map(|chunk| Some(chunk.to_vec())).collect()
}

/// The condition for the states of a selection.
fn state_condition(selection: &TenantCriteria) -> String {
    const READ_ONLY: &str = "(t.state = 'active' and t.block_writes = 'operator')";
    let listed = || format!("t.state in ({})", text_enum::quoted_list(&selection.states));
    match (selection.states.is_empty(), selection.read_only) {
        (true, false) => "t.state <> 'purged'".to_owned(),
        (true, true) => READ_ONLY.to_owned(),
        (false, false) => listed(),
        (false, true) => format!("({} or {READ_ONLY})", listed()),
    }
}

/// A selection as a condition on `tenants t`, with its arguments.
pub(super) struct CriteriaSql {
    pub(super) sql: String,
    pub(super) arguments: Vec<String>,
}

impl CriteriaSql {
    pub(super) fn new(selection: &TenantCriteria, ids: Option<&[TenantId]>, after: Option<TenantId>) -> Self {
        let mut filter = Self { sql: String::new(), arguments: Vec::new() };
        filter.sql = state_condition(selection);
        if let Some(ids) = ids {
            let first = filter.arguments.len() + 1;
            filter.sql += &format!(" and t.id in ({})", placeholder_list(first, ids.len()));
            filter.arguments.extend(ids.iter().map(ToString::to_string));
        }
        if let Some(server) = selection.server {
            filter.add_condition("t.server_id = $", [server.to_string()]);
        }
        let (conditions, arguments) = selection.labels.sql_conditions(filter.arguments.len() + 1);
        filter.sql += &conditions;
        filter.arguments.extend(arguments);
        if let Some(after) = after {
            filter.add_condition("t.id > $", [after.to_string()]);
        }
        filter
    }

    fn add_condition(&mut self, condition: &str, argument: [String; 1]) {
        self.arguments.extend(argument);
        self.sql += &format!(" and {condition}{}", self.arguments.len());
    }

    pub(super) fn bind_arguments<'q>(&self, sql: SqlQuery<'q>) -> SqlQuery<'q> {
        self.arguments.iter().fold(sql, |sql, argument| sql.bind(argument.clone()))
    }
}
