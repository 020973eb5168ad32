//! The jobs of one tenant's pool, or of the verbs, and how many of them run: the unit of fairness between them.
//!
//! `workers.rs` takes jobs from lanes that may run one. A lane knows whether it is heavy: whether a job of it takes long,
//! or did a moment ago.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::workers::{HEAVY, HEAVY_AFTER, Job, lock, nanos_of};
use crate::error::{Error, ErrorKind, Result};

/// Jobs one lane may have waiting. Sessions are bounded by their connections long before; this bounds callers of the
/// verbs, at about 100 bytes a job.
const LANE_JOBS_MAX: usize = 65_536;

/// The unit of fairness. Clones are one lane.
#[derive(Debug, Clone)]
pub(crate) struct Lane(pub(super) Arc<LaneInner>);

impl Lane {
    /// A lane of which at most `running_max` jobs run at once.
    pub(crate) fn new(running_max: usize) -> Self {
        Self::of(running_max, Weight::Measured)
    }

    /// The same for jobs that are meant to take long, and are never heavy.
    pub(crate) fn of_verbs(running_max: usize) -> Self {
        Self::of(running_max, Weight::Never)
    }

    fn of(running_max: usize, weight: Weight) -> Self {
        let state = Mutex::new(LaneState::default());
        Self(Arc::new(LaneInner { running_max: running_max.max(1), weight, state }))
    }
}

/// Whether a lane can be heavy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Measured,
    Never,
}

#[derive(Debug)]
pub(super) struct LaneInner {
    running_max: usize,
    weight: Weight,
    pub(super) state: Mutex<LaneState>,
}

#[derive(Default)]
pub(super) struct LaneState {
    jobs: VecDeque<Job>,
    /// When the jobs that run began.
    pub(super) running: Vec<u64>,
    /// The lane is heavy until then.
    heavy_until: u64,
    /// True while the lane stands in the queue of runnable lanes.
    queued: bool,
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneState").field("jobs", &self.jobs.len()).field("running", &self.running.len()).finish()
    }
}

/// Whether the lane has to enter the queue of runnable lanes now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum More {
    Runnable,
    No,
}

impl LaneInner {
    pub(super) fn push(&self, job: Job) -> Result<More> {
        let mut state = lock(&self.state);
        if state.jobs.len() >= LANE_JOBS_MAX {
            return Err(Error::new(ErrorKind::Busy, format!("{LANE_JOBS_MAX} jobs are waiting for this database")));
        }
        state.jobs.push_back(job);
        Ok(self.requeue(&mut state))
    }

    /// The oldest job, counted as running.
    pub(super) fn take(&self, now: u64) -> (Option<Job>, More) {
        let mut state = lock(&self.state);
        state.queued = false;
        let job = state.jobs.pop_front();
        if job.is_some() {
            state.running.push(now);
        }
        (job, self.requeue(&mut state))
    }

    pub(super) fn finish(&self, began: u64, now: u64) -> More {
        let mut state = lock(&self.state);
        if let Some(place) = state.running.iter().position(|other| *other == began) {
            state.running.swap_remove(place);
        }
        if now - began > nanos_of(HEAVY) {
            state.heavy_until = now + nanos_of(HEAVY_AFTER);
        }
        self.requeue(&mut state)
    }

    /// Whether a job of it takes long, or did a moment ago.
    pub(super) fn is_heavy(&self, now: u64) -> bool {
        if self.weight == Weight::Never {
            return false;
        }
        let state = lock(&self.state);
        state.heavy_until > now || state.running.iter().any(|began| now.saturating_sub(*began) > nanos_of(HEAVY))
    }

    fn requeue(&self, state: &mut LaneState) -> More {
        if state.queued || state.jobs.is_empty() || state.running.len() >= self.running_max {
            return More::No;
        }
        state.queued = true;
        More::Runnable
    }

    pub(super) fn clear(&self) {
        let jobs = {
            let mut state = lock(&self.state);
            state.queued = false;
            std::mem::take(&mut state.jobs)
        };
        // Outside the lock: a job may own a connection, and closing that may submit to this very lane.
        drop(jobs);
    }
}
