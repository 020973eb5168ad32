//! Reads a replacement that a release before this table left unfinished. That release kept its state in the facts of
//! the operation's step. Nothing writes these forms any more.

use catalog::replacements::{FencedDatabase, NewDatabase, ReplacementKind, ReplacementRecord, ReplacementStage};
use catalog::{BlockWrites, Generation, OperationId, ReadTx, TenantRecord};
use serde::Deserialize;

use super::build::BuiltDatabase;
use crate::error::Result;
use crate::operation::ClaimedStep;

/// The fence around the current database.
#[derive(Debug, Deserialize)]
struct OlderFence {
    current: FencedDatabase,
    frozen_at: i64,
    #[serde(rename = "fenced_generation")]
    generation: Generation,
    #[serde(default)]
    block: Option<BlockWrites>,
    #[serde(default)]
    reason: Option<String>,
}

/// The facts of the phase that swaps.
#[derive(Debug, Deserialize)]
struct OlderSwap {
    #[serde(flatten)]
    built: BuiltDatabase,
    #[serde(flatten)]
    fence: OlderFence,
    #[serde(default)]
    why: ReplacementKind,
}

/// The facts of the phase that rolls back.
#[derive(Debug, Deserialize)]
struct OlderRollback {
    #[serde(flatten)]
    fence: OlderFence,
    built: Option<BuiltDatabase>,
    #[serde(default)]
    was_kept: bool,
    // Only the facts of a rollback have this field.
    #[serde(rename = "code")]
    _code: String,
}

/// The replacement in the facts of this step, or else in those of an ended operation on the tenant.
pub(super) async fn find_replacement(tx: &mut ReadTx, step: &ClaimedStep) -> Result<Option<ReplacementRecord>> {
    if let Some(own) = parse_facts(&step.facts, step.op.id, &step.tenant) {
        return Ok(Some(own));
    }
    let left = catalog::steps::last_facts(tx, step.tenant.id, step.op.id).await?;
    Ok(left.iter().find_map(|(op, facts)| parse_facts(facts, *op, &step.tenant)))
}

/// PURE: the replacement in these facts, if its fence is the one that stands.
fn parse_facts(facts: &str, op: OperationId, tenant: &TenantRecord) -> Option<ReplacementRecord> {
    let (fence, stage, kind, built) = match serde_json::from_str::<OlderSwap>(facts) {
        Ok(OlderSwap { built, fence, why }) => (fence, ReplacementStage::Ready, why, Some(built)),
        Err(_) => match serde_json::from_str::<OlderRollback>(facts) {
            Ok(OlderRollback { fence, built, was_kept, .. }) => {
                let kind = if was_kept { ReplacementKind::Undo } else { ReplacementKind::Restore };
                (fence, ReplacementStage::RollingBack, kind, built)
            }
            // A move before its copy, or an archiving. They have no new database, so their kind decides nothing.
            Err(_) => (serde_json::from_str(facts).ok()?, ReplacementStage::Fenced, ReplacementKind::Move, None),
        },
    };
    (fence.generation == tenant.generation).then(|| ReplacementRecord {
        tenant_id: tenant.id,
        op_id: op,
        kind,
        stage,
        generation: fence.generation,
        server_id: tenant.server_id,
        placement: tenant.placement.clone(),
        found: fence.current,
        new: built.map(|built| NewDatabase {
            server_id: built.server.unwrap_or(tenant.server_id),
            placement: built.placement,
            generation: built.generation,
            schema_version: built.schema_version,
            release_id: built.release,
            size_bytes: i64::try_from(built.size_bytes).unwrap_or(i64::MAX),
            pin: built.pin,
        }),
        previous_block: fence.block,
        previous_reason: fence.reason,
        fenced_at: fence.frozen_at,
    })
}
