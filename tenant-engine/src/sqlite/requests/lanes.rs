//! A lane: the waiting and running jobs of one tenant's pool, or of the engine operations. Threads are shared fairly
//! between lanes.
//!
//! `workers.rs` takes jobs from lanes that may run one. A lane knows whether it is heavy: whether one of its jobs takes
//! long, or did recently.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::workers::{HEAVY, HEAVY_AFTER, WorkerJob, nanos_of};
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::locks::lock_ignoring_poison;

/// Maximum waiting jobs of one lane. Sessions are bounded by their connections long before this. It bounds the callers
/// of engine operations, at about 100 bytes per job.
const LANE_JOBS_MAX: usize = 65_536;

/// A lane of jobs. Clones are one lane.
#[derive(Debug, Clone)]
pub(crate) struct WorkerLane(pub(super) Arc<LaneInner>);

impl WorkerLane {
    /// A lane of which at most `running_max` jobs run at once.
    pub(crate) fn new(running_max: usize) -> Self {
        Self::with_weight(running_max, LaneWeight::Measured)
    }

    /// A lane for jobs that are expected to take long; it never counts as heavy.
    pub(crate) fn of_verbs(running_max: usize) -> Self {
        Self::with_weight(running_max, LaneWeight::Never)
    }

    fn with_weight(running_max: usize, weight: LaneWeight) -> Self {
        let state = Mutex::new(LaneState::default());
        Self(Arc::new(LaneInner { running_max: running_max.max(1), weight, state }))
    }
}

/// Whether a lane can be heavy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneWeight {
    Measured,
    Never,
}

#[derive(Debug)]
pub(super) struct LaneInner {
    running_max: usize,
    weight: LaneWeight,
    pub(super) state: Mutex<LaneState>,
}

#[derive(Default)]
pub(super) struct LaneState {
    jobs: VecDeque<WorkerJob>,
    /// The start times of the running jobs.
    pub(super) running: Vec<u64>,
    /// The lane counts as heavy until this time.
    heavy_until: u64,
    /// True while the lane is in the queue of runnable lanes.
    queued: bool,
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneState").field("jobs", &self.jobs.len()).field("running", &self.running.len()).finish()
    }
}

/// Whether the lane must enter the queue of runnable lanes now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LaneReadiness {
    Runnable,
    No,
}

impl LaneInner {
    pub(super) fn push_job(&self, job: WorkerJob) -> Result<LaneReadiness> {
        let mut state = lock_ignoring_poison(&self.state);
        if state.jobs.len() >= LANE_JOBS_MAX {
            return Err(Error::new(ErrorKind::Busy, format!("{LANE_JOBS_MAX} jobs are waiting for this database")));
        }
        state.jobs.push_back(job);
        Ok(self.requeue_if_runnable(&mut state))
    }

    /// Takes the oldest job, which then counts as running.
    pub(super) fn take_job(&self, now: u64) -> (Option<WorkerJob>, LaneReadiness) {
        let mut state = lock_ignoring_poison(&self.state);
        state.queued = false;
        let job = state.jobs.pop_front();
        if job.is_some() {
            state.running.push(now);
        }
        (job, self.requeue_if_runnable(&mut state))
    }

    pub(super) fn finish_job(&self, began: u64, now: u64) -> LaneReadiness {
        let mut state = lock_ignoring_poison(&self.state);
        if let Some(place) = state.running.iter().position(|other| *other == began) {
            state.running.swap_remove(place);
        }
        if now - began > nanos_of(HEAVY) {
            state.heavy_until = now + nanos_of(HEAVY_AFTER);
        }
        self.requeue_if_runnable(&mut state)
    }

    /// Whether a job of the lane takes long, or did recently.
    pub(super) fn is_heavy(&self, now: u64) -> bool {
        if self.weight == LaneWeight::Never {
            return false;
        }
        let state = lock_ignoring_poison(&self.state);
        state.heavy_until > now || state.running.iter().any(|began| now.saturating_sub(*began) > nanos_of(HEAVY))
    }

    fn requeue_if_runnable(&self, state: &mut LaneState) -> LaneReadiness {
        if state.queued || state.jobs.is_empty() || state.running.len() >= self.running_max {
            return LaneReadiness::No;
        }
        state.queued = true;
        LaneReadiness::Runnable
    }

    pub(super) fn drop_jobs(&self) {
        let jobs = {
            let mut state = lock_ignoring_poison(&self.state);
            state.queued = false;
            std::mem::take(&mut state.jobs)
        };
        // Outside the lock: a job may own a connection, and closing it may submit a job to this lane.
        drop(jobs);
    }
}
