//! Events as the API shows them, with the names of tenants and of tokens. Webhooks send the same.

use std::collections::{BTreeSet, HashMap};

use catalog::events::EventRecord;
use catalog::{ReadTx, TenantId, TokenId, tenants, tokens};
use fleet_api::events::EventView;

use crate::error::Result;
use crate::time_text;

/// The prefix of an actor that is a token, before the token's id.
pub(crate) const TOKEN: &str = "token:";

/// The API's view of a record.
pub(crate) fn event_view(record: EventRecord, tenant: Option<String>, actors: &ActorNames) -> EventView {
    let event = record.event;
    EventView {
        seq: record.seq,
        at: time_text::format_time(record.at),
        kind: event.kind,
        actor_name: actors.name_of_actor(&event.actor),
        actor: event.actor,
        tenant_id: event.tenant_id.map(|id| id.to_string()),
        tenant,
        operation_id: event.op_id.map(|id| id.to_string()),
        request_id: event.request_id,
        data: event.data,
    }
}

/// The API's views of records, with the names of their tenants and tokens.
///
/// # Errors
/// Those of the catalog.
pub(crate) async fn event_views(tx: &mut ReadTx, records: Vec<EventRecord>) -> Result<Vec<EventView>> {
    let ids: BTreeSet<TenantId> = records.iter().filter_map(|record| record.event.tenant_id).collect();
    let ids: Vec<TenantId> = ids.into_iter().collect();
    let found = tenants::get_many(tx, &ids).await?;
    let names: HashMap<TenantId, String> = found.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
    let actors = ActorNames::of_records(tx, &records).await?;
    let one = |record: EventRecord| {
        let tenant = record.event.tenant_id.and_then(|id| names.get(&id).cloned());
        event_view(record, tenant, &actors)
    };
    Ok(records.into_iter().map(one).collect())
}

/// The labels of the tokens that occur as actors.
#[derive(Debug, Default)]
pub(crate) struct ActorNames(HashMap<TokenId, String>);

impl ActorNames {
    /// The labels for the actors of these records.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) async fn of_records(tx: &mut ReadTx, records: &[EventRecord]) -> Result<Self> {
        let ids: BTreeSet<TokenId> = records.iter().filter_map(|record| token_of(&record.event.actor)).collect();
        Ok(Self(tokens::token_labels(tx, &ids.into_iter().collect::<Vec<_>>()).await?))
    }

    fn name_of_actor(&self, actor: &str) -> Option<String> {
        self.0.get(&token_of(actor)?).cloned()
    }
}

/// The token that an actor names.
fn token_of(actor: &str) -> Option<TokenId> {
    actor.strip_prefix(TOKEN)?.parse().ok()
}
