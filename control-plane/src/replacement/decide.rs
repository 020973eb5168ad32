//! PURE: decides what happens to a tenant's databases while one of them is being replaced.
//!
//! [`decide`] says which database serves. [`decide_drop`] says whether a database may be dropped. Nothing else decides
//! either. Both see only conditions, so tests try every combination.
//!
//! Two rules stand above all others. A database that may have served writes which no other database has is never given
//! up automatically. And two databases of a tenant never serve at the same time.

use catalog::Generation;
use catalog::replacements::{FencedDatabase, ReplacementStage};
use tenant_engine::IdentityState;

use DatabaseCondition::{Damaged, Foreign, Missing, Own, Unreachable};
use GenerationPosition::{Behind, Further, Next, Present};
use IdentityState::{Active, Building, Frozen, Moved, Tombstone};
use ReplacementStage::{Ready, RollingBack};
use TenantBlock::ByReplacement;

/// Where a database's generation is, in relation to the one that it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum GenerationPosition {
    /// Older: the database was left behind.
    Behind,
    /// The same.
    Present,
    /// One later: an operation has stamped it, and the catalog was not updated.
    Next,
    /// More than one later: the catalog is an older copy.
    Further,
}

/// The condition of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DatabaseCondition {
    /// It does not exist.
    Missing,
    /// It cannot be read, or has no identity.
    Damaged,
    /// Its server does not answer.
    Unreachable,
    /// It belongs to another tenant or fleet.
    Foreign,
    /// It belongs to the tenant.
    Own {
        /// The state in its identity.
        state: IdentityState,
        /// The generation in its identity.
        at: GenerationPosition,
    },
}

/// The condition of the new database of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NewCondition {
    /// The replacement has not made one.
    NotMade,
    /// It is as it was made, and never served.
    Unserved,
    /// The swap has stamped it. It may have served.
    Activated,
    /// It is missing, damaged, or stamped by a later operation.
    Unusable,
    /// Its server does not answer.
    Unreachable,
}

/// Who blocks the tenant's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TenantBlock {
    /// No operation.
    None,
    /// An operation that left no record.
    Unexplained,
    /// A replacement at this stage.
    ByReplacement(ReplacementStage),
}

/// Everything that a decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Situation {
    pub(crate) block: TenantBlock,
    /// The condition of the current database when its writes were blocked.
    pub(crate) found: FencedDatabase,
    /// The state of the current database while no operation works on it.
    pub(crate) served_state: IdentityState,
    /// The database that the catalog names.
    pub(crate) current: DatabaseCondition,
    /// The database that is to replace it.
    pub(crate) new: NewCondition,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// An operation is about to block the writes of the current database, and its identity is not the expected one.
    Fence,
    /// The swap failed, and cannot be tried again.
    FailedSwap,
    /// The operation has given up: the current database is to serve again.
    RollBack,
    /// The operation that blocks the tenant has ended, and nobody else works on it (`tenant repair`).
    Repair {
        /// An operator chose the current database, even if it was retired.
        use_current: bool,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Decision {
    /// Nothing: catalog and database agree.
    Nothing,
    /// Freeze the current database as it is.
    Freeze,
    /// Go on without the current database, which is in this condition.
    GoOnWithout(FencedDatabase),
    /// Leave the tenant blocked, and fail the step. `tenant repair` decides later.
    StayFenced,
    /// Begin to roll back.
    RollBack,
    /// The current database serves again. The new one is not needed.
    UseCurrent,
    /// The new database serves. The current one is retained.
    UseNew,
    /// Change nothing, and tell an operator why.
    Refuse(Refusal),
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// The current database cannot be read.
    CurrentUnreadable,
    /// No operation leaves a current database like this.
    UnexpectedIdentity,
    /// The current database was retired, and the new one cannot be used.
    NewUnusable,
    /// The current database was retired, and the server of the new one does not answer.
    NewUnreachable,
    /// The current database is newer than the catalog.
    CatalogIsOlder,
    /// An unfinished replacement must be repaired first, because its new database may have served.
    RepairFirst,
}

/// Decides which database serves.
pub(crate) fn decide(seen: &Situation, asked: Question) -> Decision {
    use Decision::{Freeze, GoOnWithout, Nothing, Refuse, RollBack, StayFenced, UseCurrent, UseNew};
    use Refusal::{CatalogIsOlder, CurrentUnreadable, NewUnreachable, NewUnusable, RepairFirst, UnexpectedIdentity};
    match (asked, seen.block, seen.current, seen.new) {
        // A new operation fences. The current database was retired for a new one: if that one may have served, only a
        // repair may choose between them.
        (
            Question::Fence,
            ByReplacement(Ready),
            Own { state: Moved, at: Present },
            NewCondition::Activated | NewCondition::Unreachable,
        ) => Refuse(RepairFirst),
        // It is as it should be, or was retired and the replacement did not happen.
        (Question::Fence, _, Own { state: Active | Frozen | Moved, at: Present }, _) => Freeze,
        // An operation stamped it and died before the catalog was updated. It has served nobody since.
        (Question::Fence, _, Own { state: Active | Frozen | Tombstone, at: Next }, _) => Freeze,
        // The catalog was restored from an older copy. The database is not damaged.
        (Question::Fence, _, Own { state: Moved, at: Next } | Own { at: Further, .. }, _) => Refuse(CatalogIsOlder),
        (Question::Fence, _, Missing, _) => GoOnWithout(FencedDatabase::Missing),
        (Question::Fence, _, Damaged | Foreign | Own { at: Behind, .. }, _)
        | (Question::Fence, _, Own { state: Building, .. } | Own { state: Tombstone, at: Present }, _) => {
            GoOnWithout(FencedDatabase::Damaged)
        }
        (Question::Fence, _, Unreachable, _) => Refuse(CurrentUnreadable),

        // The swap failed. A database that was not sound at the fence cannot serve again.
        (Question::FailedSwap, ..) if seen.found != FencedDatabase::Frozen => StayFenced,
        // After the retirement, only a new database that never served can be given up.
        (Question::FailedSwap, _, Own { state: Moved, .. }, NewCondition::Unserved) => RollBack,
        (Question::FailedSwap, _, Own { state: Moved, .. }, _) => StayFenced,
        (Question::FailedSwap, _, Own { state: Active | Frozen | Building | Tombstone, .. }, _) => RollBack,
        (Question::FailedSwap, _, Missing | Damaged | Unreachable | Foreign, _) => StayFenced,

        // The operation rolls back. It decided so before the new database could serve.
        (Question::RollBack, _, Own { state: Frozen, at: Present }, _) => UseCurrent,
        (Question::RollBack, _, Own { state: Moved, at: Present }, NewCondition::NotMade) => Refuse(UnexpectedIdentity),
        (Question::RollBack, _, Own { state: Moved, at: Present }, _) => UseCurrent,
        // An earlier attempt stamped it.
        (Question::RollBack, _, Own { state: Active | Frozen | Tombstone, at: Next }, _) => UseCurrent,
        (Question::RollBack, _, Missing | Damaged | Unreachable, _) => Refuse(CurrentUnreadable),
        (Question::RollBack, _, Foreign | Own { .. }, _) => Refuse(UnexpectedIdentity),

        // A repair. Nobody blocks the tenant, and its database is as it should be.
        (Question::Repair { .. }, TenantBlock::None, Own { state, at: Present }, _) if state == seen.served_state => {
            Nothing
        }
        (Question::Repair { .. }, _, Missing | Damaged | Unreachable, _) => Refuse(CurrentUnreadable),
        (Question::Repair { .. }, _, Foreign, _) => Refuse(UnexpectedIdentity),
        // The swap retired the current database. The new one serves if it may have served.
        (Question::Repair { use_current: false }, ByReplacement(Ready), Own { state: Moved, at: Present }, new) => {
            match new {
                NewCondition::Activated => UseNew,
                NewCondition::Unserved => UseCurrent,
                NewCondition::NotMade | NewCondition::Unusable => Refuse(NewUnusable),
                NewCondition::Unreachable => Refuse(NewUnreachable),
            }
        }
        // The rollback was decided before the new database could serve.
        (Question::Repair { .. }, ByReplacement(RollingBack), Own { state: Moved, at: Present | Next }, new)
            if new != NewCondition::NotMade =>
        {
            UseCurrent
        }
        (Question::Repair { use_current: true }, _, Own { state: Moved, at: Present | Next }, _) => UseCurrent,
        (Question::Repair { .. }, _, Own { state: Active | Frozen | Tombstone, at: Present | Next }, _) => UseCurrent,
        (Question::Repair { .. }, _, Own { state: Moved | Building, .. } | Own { at: Behind | Further, .. }, _) => {
            Refuse(UnexpectedIdentity)
        }
    }
}

/// Why a database is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DropReason {
    /// The time of a retained database is over. Positions are relative to the generation that it was retained with.
    Retained {
        /// It was not what the catalog expected. It may only have been newer than the catalog.
        was_damaged: bool,
    },
    /// An earlier attempt of the same step left it. Positions are relative to the tenant's generation.
    EarlierAttempt,
    /// The tenant was deleted, and is purged. Positions are relative to the tenant's generation.
    Purged,
    /// The step that made it has failed.
    FailedStep {
        /// This claim filled it in this process, so it has served nobody.
        was_filled_here: bool,
        /// An operation blocks the tenant, which may be brought back with this database.
        is_blocked: bool,
    },
}

/// Whether a database may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DropDecision {
    /// Drop it, if its identity is still the one that was found.
    Drop,
    /// Drop it unless it proves to be sound: it may be half on disk after a power failure.
    DropUnlessSound,
    /// Drop it. It holds nothing that could be read.
    DropUnread,
    /// Keep it. It has not served since the catalog's state.
    Keep,
    /// Keep it. It may have served since.
    KeepServing,
    /// It cannot be decided, because the server does not answer.
    Unknown,
}

/// Decides whether a database may be dropped that the catalog does not name as current.
pub(crate) fn decide_drop(found: DatabaseCondition, why: DropReason) -> DropDecision {
    use DropDecision::{Drop, DropUnlessSound, DropUnread, Keep, KeepServing, Unknown};
    match (why, found) {
        (_, Unreachable) => Unknown,
        // A failed step removes only what its own identity shows to be the step's.
        (DropReason::FailedStep { .. }, Missing | Damaged | Foreign) => Keep,
        (_, Missing | Damaged) => DropUnread,
        // Somebody put it there. Only its owner may drop it.
        (_, Foreign) => KeepServing,
        // A retained database was stamped out of service, or never served. Only one that came back has a later
        // generation.
        (DropReason::Retained { .. }, Own { state: Active | Frozen, at: Next | Further }) => KeepServing,
        (DropReason::Retained { was_damaged: true }, Own { at: Next | Further, .. }) => KeepServing,
        (DropReason::Retained { .. }, Own { .. }) => Drop,
        // A database that came back stays. An undelete that was given up may have stamped it, or one that this catalog
        // does not know.
        (DropReason::Purged, Own { state: Tombstone, at: Present }) => Drop,
        (DropReason::Purged, Own { .. }) => KeepServing,
        (DropReason::EarlierAttempt, Own { state: Building, .. }) => Drop,
        (DropReason::EarlierAttempt, Own { state: Active | Frozen, .. }) => DropUnlessSound,
        // This catalog retained it, or the newer one before a restore of the catalog.
        (DropReason::EarlierAttempt, Own { state: Moved | Tombstone, at: Behind | Present }) => Keep,
        (DropReason::EarlierAttempt, Own { state: Moved | Tombstone, at: Next | Further }) => KeepServing,
        (DropReason::FailedStep { .. }, Own { state: Building, .. }) => Drop,
        (DropReason::FailedStep { was_filled_here: true, is_blocked: false }, Own { state: Active | Frozen, .. }) => {
            Drop
        }
        (DropReason::FailedStep { .. }, Own { .. }) => Keep,
    }
}

impl GenerationPosition {
    /// Where `found` is in relation to `now`.
    pub(crate) fn relative_to(now: Generation, found: Generation) -> Self {
        match found {
            found if found < now => Behind,
            found if found == now => Present,
            found if found == now.next() => Next,
            _ => Further,
        }
    }
}

impl NewCondition {
    /// The condition of a new database, whose position is relative to the generation that it was made with.
    pub(super) fn of_database(found: DatabaseCondition) -> Self {
        match found {
            Own { state: Building, at: Present } => Self::Unserved,
            Own { state: Active | Frozen, at: Present } => Self::Activated,
            Unreachable => Self::Unreachable,
            Missing | Damaged | Foreign | Own { .. } => Self::Unusable,
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
