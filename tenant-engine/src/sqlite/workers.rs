//! The blocking threads that every SQLite database of this process shares.
//!
//! SQLite blocks, so no call into it may happen on an async thread; and a thread per tenant costs a cold wake-up per
//! request and 10 KiB each. Here a fixed set of threads runs small jobs instead. A job belongs to a [`Lane`] (one per
//! pool, one for the engine's verbs). Lanes with something to do are served round robin, first in first out inside
//! one, and a lane never runs more than its maximum at once, so one heavy tenant cannot hold every thread.
//!
//! A job may take long, or never end. When lanes wait while threads are busy with slow jobs, a watching thread starts
//! others in their place, up to [`EXTRA_MAX`]. A thread too many ends when it finds nothing to do.
//!
//! Called by `pool.rs`, `session.rs` and the verbs. Knows nothing of SQL.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::error::{Error, ErrorKind, Result};

/// Jobs one lane may have waiting. Sessions are bounded by their connections long before; this bounds callers of the
/// verbs, at about 100 bytes a job.
const LANE_JOBS_MAX: usize = 65_536;

/// Stack of a worker. SQLite prepares by recursion, and the deepest statement that `complexity.rs` lets through takes 3
/// MiB in a build without optimisation; what a schema alone can nest (views, triggers, cascades) takes 2 KiB a level.
/// Only what is touched takes memory.
pub(super) const STACK_BYTES: usize = 64 << 20;

/// A job that runs longer is slow: a lane that waits gets another thread, and the operating system shares the cores.
const SLOW: Duration = Duration::from_millis(5);

/// How often a thread that replaced a slow one looks whether it is still needed.
const SURPLUS: Duration = Duration::from_millis(500);

/// Threads in the place of slow ones. With two slow jobs a lane, some sixty tenants have to be greedy to use them up.
pub(super) const EXTRA_MAX: usize = 120;

/// Work for one thread. It must not panic across its own state: a panic is caught and the job is gone.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The shared threads. Clones are one set; it ends when the last clone is dropped or [`Workers::shutdown`] is called.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
    _end: Arc<EndOnDrop>,
}

/// The unit of fairness. Clones are one lane.
#[derive(Debug, Clone)]
pub(crate) struct Lane(Arc<LaneInner>);

impl Lane {
    /// A lane of which at most `running_max` jobs run at once.
    pub(crate) fn new(running_max: usize) -> Self {
        Self(Arc::new(LaneInner { running_max: running_max.max(1), state: Mutex::new(LaneState::default()) }))
    }
}

impl Workers {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the operating system refuses a thread.
    pub(crate) fn start(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            threads,
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            late: Condvar::new(),
            base: Instant::now(),
            ending: AtomicBool::new(false),
            ended: Notify::new(),
        });
        // From here on an error ends the threads already started.
        let workers = Self { shared: Arc::clone(&shared), _end: Arc::new(EndOnDrop(Arc::clone(&shared))) };
        for _ in 0..threads {
            Shared::start(&workers.shared)?;
        }
        let shared = Arc::clone(&workers.shared);
        std::thread::Builder::new()
            .name("sqlite-watch".to_owned())
            .spawn(move || watch(&shared))
            .map_err(|e| Error::new(ErrorKind::Io, "cannot start the workers' watching thread").with_source(e))?;
        Ok(workers)
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `work` on a thread and returns what it returns. When the returned future is dropped, work that has not
    /// begun never begins, and work that has begun runs to its end.
    ///
    /// # Errors
    /// Those of `work`; [`ErrorKind::Closed`] after shutdown, [`ErrorKind::Busy`] when the lane is full,
    /// [`ErrorKind::Internal`] when `work` panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        lane: &Lane,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            if !reply.is_closed() {
                let _ = reply.send(catch_panic(work));
            }
        };
        self.submit(lane, Box::new(job))?;
        answer.await.map_err(|_| closed())?
    }

    /// Queues a job that nobody waits for. A refused job is dropped, here and now.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after shutdown, [`ErrorKind::Busy`] when the lane is full.
    pub(crate) fn submit(&self, lane: &Lane, job: Job) -> Result<()> {
        if self.shared.ending.load(Ordering::Relaxed) {
            return Err(closed());
        }
        if lane.0.push(job)? == More::Runnable {
            self.shared.enqueue(Arc::clone(&lane.0));
        }
        Ok(())
    }

    /// Refuses new jobs, runs those already queued, and returns when the last thread has ended.
    pub(crate) async fn shutdown(&self) {
        self.shared.end();
        loop {
            let ended = self.shared.ended.notified();
            if lock(&self.shared.queue).alive == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// Calls `work`; a panic becomes an error, so that a thread outlives a bug.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Internal, "the database worker failed unexpectedly; the program's log says where"))
    })
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the engine is shutting down")
}

#[derive(Debug)]
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[derive(Debug)]
struct Shared {
    threads: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Wakes the watching thread when a lane waits and no thread is free.
    late: Condvar,
    base: Instant,
    /// Refuses new jobs; the queued ones still run.
    ending: AtomicBool,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// Lanes with a job that may run now; each at most once.
    runnable: VecDeque<Arc<LaneInner>>,
    /// Threads waiting for `wake`.
    parked: usize,
    /// Threads that have not ended.
    alive: usize,
    /// Lanes that entered and left `runnable` since the beginning.
    pushed: u64,
    taken: u64,
    /// When each thread began its job.
    clocks: Vec<Weak<JobClock>>,
    /// The watching thread sleeps until it is told.
    unwatched: bool,
}

/// When a thread began the job that it runs, in nanoseconds after [`Shared::base`]; 0 while it runs none.
type JobClock = AtomicU64;

impl Shared {
    /// Makes a lane runnable and wakes a thread for it. A lane that comes too late for any thread loses its jobs.
    fn enqueue(&self, lane: Arc<LaneInner>) {
        let mut queue = lock(&self.queue);
        if queue.alive == 0 {
            drop(queue);
            return lane.clear();
        }
        queue.runnable.push_back(lane);
        queue.pushed += 1;
        let wake = queue.parked > 0;
        let late = !wake && queue.unwatched;
        drop(queue);
        if wake {
            self.wake.notify_one();
        } else if late {
            self.late.notify_one();
        }
    }

    /// Starts a thread.
    fn start(shared: &Arc<Self>) -> Result<()> {
        let clock = Arc::new(JobClock::new(0));
        let number = {
            let mut queue = lock(&shared.queue);
            queue.clocks.retain(|clock| clock.strong_count() > 0);
            queue.clocks.push(Arc::downgrade(&clock));
            queue.alive += 1;
            queue.alive
        };
        let thread = std::thread::Builder::new().name(format!("sqlite-{number}")).stack_size(STACK_BYTES);
        let working = Arc::clone(shared);
        thread.spawn(move || work(&working, &clock)).map(drop).map_err(|e| {
            lock(&shared.queue).alive -= 1;
            Error::new(ErrorKind::Io, format!("cannot start thread {number} of {}", shared.threads)).with_source(e)
        })
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Threads whose job is slow.
    fn slow(&self, queue: &Queue) -> usize {
        let limit = self.nanos().saturating_sub(u64::try_from(SLOW.as_nanos()).unwrap_or(u64::MAX));
        let began = |clock: &Weak<JobClock>| clock.upgrade().map_or(0, |clock| clock.load(Ordering::Relaxed));
        queue.clocks.iter().filter(|clock| (1..limit).contains(&began(clock))).count()
    }

    /// How many threads to start: so that as many as usual are not slow, but no more than lanes wait.
    fn missing(&self, queue: &Queue) -> usize {
        let room = (self.threads + EXTRA_MAX).saturating_sub(queue.alive);
        (self.threads + self.slow(queue)).saturating_sub(queue.alive).min(queue.runnable.len()).min(room)
    }

    /// True when there are enough threads without the one that asks.
    fn is_surplus(&self, queue: &Queue) -> bool {
        queue.alive > self.threads && queue.alive > self.threads + self.slow(queue)
    }

    /// The next lane to serve; waits for one. `None`: the thread has to end.
    fn next(&self) -> Option<Arc<LaneInner>> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(lane) = queue.runnable.pop_front() {
                queue.taken += 1;
                // A thread that is still waking up counts as parked, so nobody was told of what came after its lane.
                if !queue.runnable.is_empty() && queue.parked == 0 && queue.unwatched {
                    self.late.notify_one();
                }
                return Some(lane);
            }
            if self.ending.load(Ordering::Relaxed) || self.is_surplus(&queue) {
                queue.alive -= 1;
                return None;
            }
            queue.parked += 1;
            queue = if queue.alive > self.threads {
                self.wake.wait_timeout(queue, SURPLUS).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)
            };
            queue.parked -= 1;
        }
    }

    fn end(&self) {
        let queue = lock(&self.queue);
        self.ending.store(true, Ordering::Relaxed);
        drop(queue);
        self.wake.notify_all();
        self.late.notify_all();
    }
}

/// Starts threads while lanes wait for slow ones, until the end.
fn watch(shared: &Arc<Shared>) {
    let mut queue = lock(&shared.queue);
    while !(shared.ending.load(Ordering::Relaxed) && queue.runnable.is_empty()) {
        if queue.runnable.is_empty() || queue.parked > 0 {
            queue.unwatched = true;
            queue = shared.late.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.unwatched = false;
            continue;
        }
        let waiting_since = queue.pushed;
        drop(queue);
        std::thread::sleep(SLOW);
        queue = lock(&shared.queue);
        // What waited before the sleep still waits.
        if queue.taken < waiting_since {
            let missing = shared.missing(&queue);
            drop(queue);
            // Refused by the operating system: the next look tries again.
            let _ = (0..missing).try_for_each(|_| Shared::start(shared));
            queue = lock(&shared.queue);
        }
    }
}

/// What a thread does until the end.
fn work(shared: &Shared, clock: &JobClock) {
    while let Some(lane) = shared.next() {
        let (job, more) = lane.take();
        if more == More::Runnable {
            shared.enqueue(Arc::clone(&lane));
        }
        if let Some(job) = job {
            clock.store(shared.nanos(), Ordering::Relaxed);
            let _ = catch_panic(|| {
                job();
                Ok(())
            });
            clock.store(0, Ordering::Relaxed);
            if lane.finish() == More::Runnable {
                shared.enqueue(lane);
            }
        }
    }
    shared.ended.notify_waiters();
}

#[derive(Debug)]
struct LaneInner {
    running_max: usize,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    jobs: VecDeque<Job>,
    running: usize,
    /// True while the lane stands in the queue of runnable lanes.
    queued: bool,
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneState").field("jobs", &self.jobs.len()).field("running", &self.running).finish()
    }
}

/// Whether the lane has to enter the queue of runnable lanes now.
#[derive(Debug, PartialEq, Eq)]
enum More {
    Runnable,
    No,
}

impl LaneInner {
    fn push(&self, job: Job) -> Result<More> {
        let mut state = lock(&self.state);
        if state.jobs.len() >= LANE_JOBS_MAX {
            return Err(Error::new(ErrorKind::Busy, format!("{LANE_JOBS_MAX} jobs are waiting for this database")));
        }
        state.jobs.push_back(job);
        Ok(self.requeue(&mut state))
    }

    /// The oldest job, counted as running.
    fn take(&self) -> (Option<Job>, More) {
        let mut state = lock(&self.state);
        state.queued = false;
        let job = state.jobs.pop_front();
        state.running += usize::from(job.is_some());
        (job, self.requeue(&mut state))
    }

    fn finish(&self) -> More {
        let mut state = lock(&self.state);
        state.running -= 1;
        self.requeue(&mut state)
    }

    fn requeue(&self, state: &mut LaneState) -> More {
        if state.queued || state.jobs.is_empty() || state.running >= self.running_max {
            return More::No;
        }
        state.queued = true;
        More::Runnable
    }

    fn clear(&self) {
        let jobs = {
            let mut state = lock(&self.state);
            state.queued = false;
            std::mem::take(&mut state.jobs)
        };
        // Outside the lock: a job may own a connection, and closing that may submit to this very lane.
        drop(jobs);
    }
}

/// Nothing here can be left half-changed by a panic, so a poisoned lock is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
