//! Tries every combination of conditions, and every moment of a replacement at which a process can die or the catalog
//! be restored from an older copy.

use super::*;

const STATES: [IdentityState; 5] = [Building, Active, Frozen, Moved, Tombstone];
const POSITIONS: [GenerationPosition; 4] = [Behind, Present, Next, Further];
const NEW: [NewCondition; 5] = [
    NewCondition::NotMade,
    NewCondition::Unserved,
    NewCondition::Activated,
    NewCondition::Unusable,
    NewCondition::Unreachable,
];
const BLOCKS: [TenantBlock; 5] = [
    TenantBlock::None,
    TenantBlock::Unexplained,
    ByReplacement(ReplacementStage::Fenced),
    ByReplacement(Ready),
    ByReplacement(RollingBack),
];
const QUESTIONS: [Question; 5] = [
    Question::Fence,
    Question::FailedSwap,
    Question::RollBack,
    Question::Repair { use_current: false },
    Question::Repair { use_current: true },
];

fn conditions() -> Vec<DatabaseCondition> {
    let own = STATES.into_iter().flat_map(|state| POSITIONS.into_iter().map(move |at| Own { state, at }));
    own.chain([Missing, Damaged, Unreachable, Foreign]).collect()
}

/// Every situation, each with every question.
fn everything() -> Vec<(Situation, Question)> {
    let mut all = Vec::new();
    for block in BLOCKS {
        for found in [FencedDatabase::Frozen, FencedDatabase::Damaged, FencedDatabase::Missing] {
            for served_state in [Active, Frozen] {
                for current in conditions() {
                    for new in NEW {
                        let seen = Situation { block, found, served_state, current, new };
                        all.extend(QUESTIONS.into_iter().map(|asked| (seen, asked)));
                    }
                }
            }
        }
    }
    all
}

#[test]
fn each_question_has_its_own_answers() {
    for (seen, asked) in everything() {
        let decided = decide(&seen, asked);
        let fits = match asked {
            Question::Fence => {
                matches!(decided, Decision::Freeze | Decision::GoOnWithout(_) | Decision::Refuse(_))
            }
            Question::FailedSwap => matches!(decided, Decision::StayFenced | Decision::RollBack),
            Question::RollBack => matches!(decided, Decision::UseCurrent | Decision::Refuse(_)),
            Question::Repair { .. } => {
                matches!(decided, Decision::Nothing | Decision::UseCurrent | Decision::UseNew | Decision::Refuse(_))
            }
        };
        assert!(fits, "{asked:?} {seen:?}: {decided:?}");
    }
}

#[test]
fn only_a_readable_database_of_the_tenant_ever_serves() {
    for (seen, asked) in everything() {
        let decided = decide(&seen, asked);
        if matches!(decided, Decision::UseCurrent | Decision::Freeze) {
            let Own { state, at } = seen.current else { panic!("{asked:?} {seen:?}: {decided:?}") };
            assert!(matches!(at, Present | Next) && state != Building, "{asked:?} {seen:?}: {decided:?}");
        }
        if decided == Decision::UseNew {
            assert_eq!(seen.new, NewCondition::Activated, "{asked:?} {seen:?}");
        }
    }
}

#[test]
fn a_retired_database_comes_back_only_if_its_replacement_never_served_or_an_operator_says_so() {
    for (seen, asked) in everything() {
        let (Own { state: Moved, .. }, decided) = (seen.current, decide(&seen, asked)) else { continue };
        let comes_back = matches!(decided, Decision::UseCurrent | Decision::RollBack);
        // A rollback is decided before it is recorded, and only for a replacement that never served.
        let was_decided = asked == Question::RollBack || seen.block == ByReplacement(RollingBack);
        let is_chosen = asked == Question::Repair { use_current: true };
        let never_served = seen.new == NewCondition::Unserved;
        assert!(!comes_back || was_decided || is_chosen || never_served, "{asked:?} {seen:?}: {decided:?}");
    }
}

#[test]
fn a_repair_changes_only_what_an_operation_left() {
    for (seen, asked) in everything() {
        let Question::Repair { .. } = asked else { continue };
        let is_well = seen.block == TenantBlock::None && seen.current == Own { state: seen.served_state, at: Present };
        assert_eq!(decide(&seen, asked) == Decision::Nothing, is_well, "{seen:?}");
    }
}

#[test]
fn only_what_cannot_have_served_is_dropped() {
    let reasons = [
        DropReason::Retained { was_damaged: false },
        DropReason::Retained { was_damaged: true },
        DropReason::EarlierAttempt,
        DropReason::Purged,
        DropReason::FailedStep { was_filled_here: false, is_blocked: false },
        DropReason::FailedStep { was_filled_here: false, is_blocked: true },
        DropReason::FailedStep { was_filled_here: true, is_blocked: false },
        DropReason::FailedStep { was_filled_here: true, is_blocked: true },
    ];
    for why in reasons {
        for found in conditions() {
            let decided = decide_drop(found, why);
            let goes = matches!(decided, DropDecision::Drop | DropDecision::DropUnread);
            let may = match (why, found) {
                (_, Foreign | Unreachable) => false,
                (DropReason::FailedStep { .. }, Missing | Damaged) => false,
                (_, Missing | Damaged) => true,
                (DropReason::Retained { was_damaged }, Own { state, at }) => {
                    matches!(at, Behind | Present) || (!was_damaged && !matches!(state, Active | Frozen))
                }
                (DropReason::EarlierAttempt, Own { state, .. }) => state == Building,
                (DropReason::Purged, Own { state, at }) => state == Tombstone && at == Present,
                (DropReason::FailedStep { was_filled_here, is_blocked }, Own { state, .. }) => {
                    state == Building || (was_filled_here && !is_blocked && matches!(state, Active | Frozen))
                }
            };
            assert_eq!(goes, may, "{why:?} {found:?}: {decided:?}");
        }
    }
}

/// A tenant as a model: databases, the catalog, and which writes were acknowledged.
#[derive(Debug, Clone)]
struct ModelTenant {
    databases: Vec<Option<ModelDatabase>>,
    catalog: ModelCatalog,
    /// The catalog after each of its changes, oldest first.
    copies: Vec<ModelCatalog>,
    /// The catalog before it was replaced by an older copy.
    truth: ModelCatalog,
    /// Number of acknowledged writes.
    writes: u32,
    /// The last write that the tenant must still show. A restore takes it back on purpose.
    expected: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelDatabase {
    generation: i64,
    state: IdentityState,
    /// The last write that it holds.
    last_write: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelCatalog {
    generation: i64,
    current: usize,
    /// The replacement that blocks the tenant: its stage and its new database.
    open: Option<(ReplacementStage, Option<usize>)>,
}

/// One action of a replacement, which happens completely or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModelAction {
    BuildFromBackup,
    FreezeCurrent,
    RecordFence,
    RecordFenceReady,
    CopyCurrent,
    RecordReady,
    StampNew,
    RetireCurrent,
    RecordSwap,
    RecordRollback,
    DiscardNew,
    StampCurrent,
    RecordRolledBack,
    Write,
}

use ModelAction::{
    BuildFromBackup, CopyCurrent, DiscardNew, FreezeCurrent, RecordFence, RecordFenceReady, RecordReady,
    RecordRollback, RecordRolledBack, RecordSwap, RetireCurrent, StampCurrent, StampNew, Write,
};

/// The flows of restore and move, and of both when they give up.
const FLOWS: [&[ModelAction]; 5] = [
    &[Write, BuildFromBackup, Write, FreezeCurrent, RecordFenceReady, StampNew, RetireCurrent, RecordSwap, Write],
    &[Write, FreezeCurrent, RecordFence, CopyCurrent, RecordReady, StampNew, RetireCurrent, RecordSwap, Write],
    &[
        Write,
        BuildFromBackup,
        FreezeCurrent,
        RecordFenceReady,
        RecordRollback,
        DiscardNew,
        StampCurrent,
        RecordRolledBack,
        Write,
    ],
    &[Write, FreezeCurrent, RecordFence, RecordRollback, DiscardNew, StampCurrent, RecordRolledBack, Write],
    &[
        Write,
        FreezeCurrent,
        RecordFence,
        CopyCurrent,
        RecordReady,
        StampNew,
        RecordRollback,
        DiscardNew,
        StampCurrent,
        RecordRolledBack,
        Write,
    ],
];

impl ModelTenant {
    fn new() -> Self {
        let catalog = ModelCatalog { generation: 1, current: 0, open: None };
        let database = ModelDatabase { generation: 1, state: Active, last_write: 0 };
        Self {
            databases: vec![Some(database)],
            copies: vec![catalog.clone()],
            truth: catalog.clone(),
            catalog,
            writes: 0,
            expected: 0,
        }
    }

    fn current(&mut self) -> &mut ModelDatabase {
        self.databases[self.catalog.current].as_mut().expect("the current database is never dropped")
    }

    fn newest(&self) -> usize {
        self.databases.len() - 1
    }

    fn record(&mut self, change: impl FnOnce(&mut ModelCatalog)) {
        change(&mut self.catalog);
        self.copies.push(self.catalog.clone());
        self.truth = self.catalog.clone();
    }

    /// The tenant is to show the content of this database from now on.
    fn point_to(&mut self, new: usize) {
        let is_swap = self.truth.open.is_some_and(|(_, open)| open == Some(new));
        if is_swap && let Some(database) = &self.databases[new] {
            self.expected = database.last_write;
        }
        let generation = self.catalog.generation + 1;
        self.record(|catalog| *catalog = ModelCatalog { generation, current: new, open: None });
    }

    fn build(&mut self, generation: i64, last_write: u32) {
        self.databases.push(Some(ModelDatabase { generation, state: Building, last_write }));
    }

    fn perform(&mut self, action: ModelAction) {
        let (generation, newest) = (self.catalog.generation, self.newest());
        match action {
            Write => self.write(),
            // A restore takes the tenant back on purpose: its backup holds no later write.
            BuildFromBackup => self.build(generation + 2, 0),
            FreezeCurrent => (self.current().generation, self.current().state) = (generation + 1, Frozen),
            RecordFence => {
                self.record(|c| (c.generation, c.open) = (generation + 1, Some((ReplacementStage::Fenced, None))))
            }
            RecordFenceReady => self.record(|c| (c.generation, c.open) = (generation + 1, Some((Ready, Some(newest))))),
            CopyCurrent => {
                let last_write = self.current().last_write;
                self.build(generation + 1, last_write);
            }
            RecordReady => self.record(|c| c.open = Some((Ready, Some(newest)))),
            StampNew => self.databases[newest].as_mut().expect("it was built").state = Active,
            RetireCurrent => self.current().state = Moved,
            RecordSwap => self.point_to(newest),
            RecordRollback => self.record(|c| c.open = c.open.map(|(_, new)| (RollingBack, new))),
            DiscardNew => self.discard_new(),
            StampCurrent => (self.current().generation, self.current().state) = (generation + 1, Active),
            RecordRolledBack => self.record(|c| (c.generation, c.open) = (generation + 1, None)),
        }
    }

    /// A request: it is acknowledged if the database that the catalog names serves.
    fn write(&mut self) {
        let (generation, is_blocked) = (self.catalog.generation, self.catalog.open.is_some());
        let next = self.writes + 1;
        let current = self.current();
        if !is_blocked && current.generation == generation && current.state == Active {
            current.last_write = next;
            (self.writes, self.expected) = (next, next);
        }
    }

    fn discard_new(&mut self) {
        let Some((_, Some(new))) = self.catalog.open else { return };
        match self.databases[new].as_mut() {
            Some(database) if database.state == Building => self.databases[new] = None,
            Some(database) => database.state = Moved,
            None => {}
        }
    }

    fn observe(&self) -> Situation {
        let condition = |index: usize, now: i64| match &self.databases[index] {
            None => Missing,
            Some(found) => Own {
                state: found.state,
                at: GenerationPosition::relative_to(Generation(now), Generation(found.generation)),
            },
        };
        let generation = self.catalog.generation;
        Situation {
            block: self.catalog.open.map_or(TenantBlock::None, |(stage, _)| ByReplacement(stage)),
            found: FencedDatabase::Frozen,
            served_state: Active,
            current: condition(self.catalog.current, generation),
            new: match self.catalog.open {
                Some((_, Some(new))) => NewCondition::of_database(condition(new, generation + 1)),
                _ => NewCondition::NotMade,
            },
        }
    }

    /// Repairs the tenant as `tenant repair` does. False if that was refused.
    fn repair(&mut self) -> bool {
        match decide(&self.observe(), Question::Repair { use_current: false }) {
            Decision::Nothing => {}
            Decision::UseCurrent => {
                [DiscardNew, StampCurrent, RecordRolledBack].map(|act| self.perform(act)).into_iter().collect()
            }
            Decision::UseNew => {
                let Some((_, Some(new))) = self.catalog.open else { panic!("there is no new database") };
                self.point_to(new);
            }
            _ => return false,
        }
        true
    }

    /// The last acknowledged write is in a database, and if the tenant serves, in the one that serves.
    fn check(&mut self, was_repaired: bool, told: &str) {
        let last = self.expected;
        let holds = |database: &ModelDatabase| database.last_write == last;
        assert!(self.databases.iter().flatten().any(holds), "{told}: a write is lost: {self:#?}");
        let generation = self.catalog.generation;
        let current = self.current().clone();
        if was_repaired {
            assert_eq!((current.generation, current.state), (generation, Active), "{told}: nothing serves: {self:#?}");
            assert!(holds(&current), "{told}: the last write is not in the database that serves: {self:#?}");
        }
    }
}

/// Every prefix of every flow after every whole flow, then a repair: at each moment a process may die.
#[test]
fn a_repair_after_a_crash_serves_the_last_write() {
    let mut tried = 0;
    for first in FLOWS {
        for second in FLOWS {
            for length in 0..=second.len() {
                let mut tenant = ModelTenant::new();
                first.iter().chain(&second[..length]).for_each(|action| tenant.perform(*action));
                let told = format!("{first:?} then {:?}", &second[..length]);
                assert!(tenant.repair(), "{told}: refused: {tenant:#?}");
                tenant.check(true, &told);
                tenant.write();
                tenant.check(true, &told);
                assert!(
                    decide(&tenant.observe(), Question::Repair { use_current: false }) == Decision::Nothing,
                    "{told}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
}

/// As before, and the catalog is an older copy by then. A repair may refuse, but never loses the last write.
#[test]
fn a_repair_with_an_older_catalog_loses_nothing() {
    let (mut repaired, mut refused) = (0, 0);
    for first in FLOWS {
        for second in FLOWS {
            for length in 0..=second.len() {
                let mut before = ModelTenant::new();
                first.iter().chain(&second[..length]).for_each(|action| before.perform(*action));
                for copy in before.copies.clone() {
                    let mut tenant = ModelTenant { catalog: copy.clone(), ..before.clone() };
                    let told = format!("{first:?} then {:?}, catalog {copy:?}", &second[..length]);
                    let done = tenant.repair();
                    tenant.check(done, &told);
                    (repaired, refused) = (repaired + u32::from(done), refused + u32::from(!done));
                }
            }
        }
    }
    assert!(repaired > 500 && refused > 500, "{repaired} {refused}");
}
