//! The blocking threads that every SQLite database of this process shares.
//!
//! SQLite blocks, so no call into it may run on an async thread. A thread per tenant would cost a cold wake-up per
//! request and 10 KiB each. So a fixed set of threads runs small jobs. A job belongs to a [`WorkerLane`] (one per pool,
//! one for the engine operations; `lanes.rs`). Lanes with jobs are served round robin, and jobs within a lane first in,
//! first out. A lane never runs more than its maximum at once, so one heavy tenant cannot occupy every thread.
//!
//! A job may take long, or never end. When lanes wait while threads are busy with slow jobs, a watching thread starts
//! others in their place, up to [`EXTRA_MAX`]. A surplus thread ends when it finds no work.
//!
//! A lane with a heavy job, now or recently, waits in a second queue. No more jobs of that queue run at once than there
//! are threads without the additional ones. So any number of heavy tenants leaves threads for the rest, and shares few.
//!
//! Engine operations have threads of their own, with a lower priority, so that a migration of the whole fleet does not
//! take the cores from requests.
//!
//! Called by `pool.rs`, `session.rs` and the engine operations. It knows nothing of SQL.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use tokio::sync::{Notify, oneshot};

pub(crate) use super::lanes::WorkerLane;
use super::lanes::{LaneInner, LaneReadiness};
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::locks::lock_ignoring_poison;

/// Stack of a worker. SQLite prepares by recursion, and the deepest statement that `limits/complexity.rs` accepts takes
/// 3 MiB in a build without optimisation. The nesting of a schema alone (views, triggers, cascades) takes 2 KiB per
/// level. JSON in binary form nests 200,000 levels in the longest value, of some hundred bytes each. Only the touched
/// part takes memory, until the thread ends.
pub(super) const STACK_BYTES: usize = 256 << 20;

/// A job that runs longer is slow: a waiting lane gets another thread, and the operating system shares the cores.
const SLOW: Duration = Duration::from_millis(5);

/// A lane with a job that runs this long is heavy: far longer than a commit waits for the disk.
pub(super) const HEAVY: Duration = Duration::from_millis(50);

/// How long a lane stays heavy after such a job: longer than a hundred heavy tenants take for a round of turns. A quick
/// job waits no longer because of that, unless many lanes are heavy.
pub(super) const HEAVY_AFTER: Duration = Duration::from_secs(60);

/// Jobs of heavy lanes that run before those of other lanes, so that heavy lanes do not wait without end.
const HEAVY_MIN: usize = 1;

/// How often a thread that replaced a slow one checks whether it is still needed.
const SURPLUS: Duration = Duration::from_millis(500);

/// Additional threads in the place of slow ones. With two slow jobs per lane, some sixty heavy tenants are needed to
/// use them up.
pub(super) const EXTRA_MAX: usize = 120;

/// The priority of threads beside all other threads of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThreadPriority {
    /// As the process: for requests.
    Normal,
    /// Lower: for engine operations. When the cores are busy, a request gets about three times the time of an operation.
    Low,
}

impl ThreadPriority {
    /// The beginning of the names of threads, as the operating system shows them.
    fn thread_name(self) -> &'static str {
        match self {
            Self::Normal => "sqlite",
            Self::Low => "sqlite-op",
        }
    }
}

/// The nice value of [`ThreadPriority::Low`].
const LOW_PRIORITY: i32 = 5;

/// Work for one thread. A panic is caught and the job is lost, so a panic must not leave shared state half-changed.
pub(crate) type WorkerJob = Box<dyn FnOnce() + Send>;

/// The shared threads. Clones share them; they end when the last clone is dropped or [`WorkerThreads::shut_down`] is
/// called.
#[derive(Debug, Clone)]
pub(crate) struct WorkerThreads {
    shared: Arc<WorkersShared>,
    _end: Arc<EndWorkersOnDrop>,
}

impl WorkerThreads {
    /// Starts `threads` threads, and more of the same priority in the place of slow ones.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the operating system refuses a thread.
    pub(crate) fn start_threads(threads: usize, priority: ThreadPriority) -> Result<Self> {
        let shared = Arc::new(WorkersShared {
            threads,
            priority,
            queue: Mutex::new(LaneQueue { heavy_max: threads.max(HEAVY_MIN + 1), ..LaneQueue::default() }),
            wake: Condvar::new(),
            late: Condvar::new(),
            base: Instant::now(),
            ending: AtomicBool::new(false),
            ended: Notify::new(),
        });
        // From here on an error ends the threads that were already started.
        let workers = Self { shared: Arc::clone(&shared), _end: Arc::new(EndWorkersOnDrop(Arc::clone(&shared))) };
        for _ in 0..threads {
            WorkersShared::start_thread(&workers.shared)?;
        }
        let shared = Arc::clone(&workers.shared);
        std::thread::Builder::new()
            .name("sqlite-watch".to_owned())
            .spawn(move || watch_threads(&shared))
            .map_err(|e| Error::new(ErrorKind::Io, "cannot start the workers' watching thread").with_source(e))?;
        Ok(workers)
    }

    /// Number of threads.
    pub(crate) fn thread_count(&self) -> usize {
        self.shared.threads
    }

    /// Runs `work` on a thread and returns its result. If the returned future is dropped, work that has not begun never
    /// begins, and work that has begun runs to its end.
    ///
    /// # Errors
    /// Those of `work`; [`ErrorKind::Closed`] after shutdown, [`ErrorKind::Busy`] when the lane is full,
    /// [`ErrorKind::Internal`] when `work` panics.
    pub(crate) async fn run_job<T: Send + 'static>(
        &self,
        lane: &WorkerLane,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            if !reply.is_closed() {
                let _ = reply.send(catch_panic(work));
            }
        };
        self.submit_job(lane, Box::new(job))?;
        answer.await.map_err(|_| engine_closed())?
    }

    /// Queues a job whose result no caller waits for. A refused job is dropped at once.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after shutdown, [`ErrorKind::Busy`] when the lane is full.
    pub(crate) fn submit_job(&self, lane: &WorkerLane, job: WorkerJob) -> Result<()> {
        if self.shared.ending.load(Ordering::Relaxed) {
            return Err(engine_closed());
        }
        if lane.0.push_job(job)? == LaneReadiness::Runnable {
            self.shared.enqueue_lane(Arc::clone(&lane.0));
        }
        Ok(())
    }

    /// Refuses new jobs, runs the queued ones, and returns when the last thread has ended.
    pub(crate) async fn shut_down(&self) {
        self.shared.end_threads();
        loop {
            let ended = self.shared.ended.notified();
            if lock_ignoring_poison(&self.shared.queue).alive == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// Calls `work` and turns a panic into an error, so that a bug does not end the thread.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Internal, "the database worker failed unexpectedly; the program's log says where"))
    })
}

fn engine_closed() -> Error {
    Error::new(ErrorKind::Closed, "the engine is shutting down")
}

#[derive(Debug)]
struct EndWorkersOnDrop(Arc<WorkersShared>);

impl Drop for EndWorkersOnDrop {
    fn drop(&mut self) {
        self.0.end_threads();
    }
}

#[derive(Debug)]
struct WorkersShared {
    threads: usize,
    priority: ThreadPriority,
    queue: Mutex<LaneQueue>,
    wake: Condvar,
    /// Wakes the watching thread when a lane waits and no thread is free.
    late: Condvar,
    base: Instant,
    /// Refuses new jobs; the queued ones still run.
    ending: AtomicBool,
    ended: Notify,
}

#[derive(Debug, Default)]
struct LaneQueue {
    /// Lanes with a job that may run now; each at most once.
    runnable: VecDeque<Arc<LaneInner>>,
    /// Heavy lanes with a job that waits for its turn; each at most once.
    heavy: VecDeque<Arc<LaneInner>>,
    /// Number of running jobs of heavy lanes, and their maximum.
    heavy_running: usize,
    heavy_max: usize,
    /// Number of threads that wait for `wake`.
    parked: usize,
    /// Number of threads that have not ended.
    alive: usize,
    /// Number of lanes that entered and left `runnable` since the start.
    pushed: u64,
    taken: u64,
    /// When each thread began its job.
    clocks: Vec<Weak<JobClock>>,
    /// True while the watching thread sleeps until it is notified.
    unwatched: bool,
}

/// When a thread began its current job, in nanoseconds after [`WorkersShared::base`]; 0 while it runs none.
type JobClock = AtomicU64;

/// A lane that may run a job now.
struct LaneTurn {
    lane: Arc<LaneInner>,
    /// The time when its turn came.
    now: u64,
    /// Whether it counts in [`LaneQueue::heavy_running`].
    heavy: bool,
}

impl LaneQueue {
    fn is_empty(&self) -> bool {
        self.runnable.is_empty() && self.heavy.is_empty()
    }

    /// Number of lanes that a thread could serve now.
    fn waiting_lanes(&self) -> usize {
        self.runnable.len() + self.heavy.len().min(self.heavy_max.saturating_sub(self.heavy_running))
    }

    /// Takes the next turn. Lanes that have become heavy go to the other queue.
    fn pop_turn(&mut self, now: u64) -> Option<LaneTurn> {
        loop {
            let heavy_first = self.heavy_running < HEAVY_MIN && !self.heavy.is_empty();
            match self.runnable.pop_front() {
                Some(lane) if heavy_first => self.runnable.push_front(lane),
                Some(lane) if lane.is_heavy(now) => {
                    self.taken += 1;
                    self.heavy.push_back(lane);
                    continue;
                }
                Some(lane) => {
                    self.taken += 1;
                    return Some(LaneTurn { lane, now, heavy: false });
                }
                None => {}
            }
            if self.heavy_running >= self.heavy_max {
                return None;
            }
            let lane = self.heavy.pop_front()?;
            self.heavy_running += 1;
            return Some(LaneTurn { lane, now, heavy: true });
        }
    }
}

impl WorkersShared {
    /// Makes a lane runnable and wakes a thread for it. If no thread is left, the lane's jobs are dropped.
    fn enqueue_lane(&self, lane: Arc<LaneInner>) {
        let mut queue = lock_ignoring_poison(&self.queue);
        if queue.alive == 0 && self.ending.load(Ordering::Relaxed) {
            drop(queue);
            return lane.drop_jobs();
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
    fn start_thread(shared: &Arc<Self>) -> Result<()> {
        let clock = Arc::new(JobClock::new(0));
        let number = {
            let mut queue = lock_ignoring_poison(&shared.queue);
            queue.clocks.retain(|clock| clock.strong_count() > 0);
            queue.clocks.push(Arc::downgrade(&clock));
            queue.alive += 1;
            queue.alive
        };
        let thread = std::thread::Builder::new()
            .name(format!("{}-{number}", shared.priority.thread_name()))
            .stack_size(STACK_BYTES);
        let working = Arc::clone(shared);
        thread.spawn(move || run_thread(&working, &clock)).map(drop).map_err(|e| {
            lock_ignoring_poison(&shared.queue).alive -= 1;
            Error::new(ErrorKind::Io, format!("cannot start thread {number} of {}", shared.threads)).with_source(e)
        })
    }

    fn elapsed_nanos(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Number of threads whose job is slow.
    fn slow_threads(&self, queue: &LaneQueue) -> usize {
        let limit = self.elapsed_nanos().saturating_sub(nanos_of(SLOW));
        let began = |clock: &Weak<JobClock>| clock.upgrade().map_or(0, |clock| clock.load(Ordering::Relaxed));
        queue.clocks.iter().filter(|clock| (1..limit).contains(&began(clock))).count()
    }

    /// How many threads to start: so that the usual number of threads is not slow, but no more than lanes wait.
    fn missing_threads(&self, queue: &LaneQueue) -> usize {
        let room = (self.threads + EXTRA_MAX).saturating_sub(queue.alive);
        (self.threads + self.slow_threads(queue)).saturating_sub(queue.alive).min(queue.waiting_lanes()).min(room)
    }

    /// True when there are enough threads without the calling one.
    fn is_surplus(&self, queue: &LaneQueue) -> bool {
        queue.alive > self.threads && queue.alive > self.threads + self.slow_threads(queue)
    }

    /// Waits for the next lane to serve. `None`: the thread has to end.
    fn next_turn(&self) -> Option<LaneTurn> {
        let mut queue = lock_ignoring_poison(&self.queue);
        loop {
            if let Some(turn) = queue.pop_turn(self.elapsed_nanos()) {
                // A thread that is still waking up counts as parked, so no thread was notified of lanes after its own.
                if queue.waiting_lanes() > 0 && queue.parked == 0 && queue.unwatched {
                    self.late.notify_one();
                }
                return Some(turn);
            }
            let ending = self.ending.load(Ordering::Relaxed) && queue.heavy.is_empty();
            if ending || self.is_surplus(&queue) {
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

    /// Ends the calling thread and starts another in its place; false when all threads are ending anyway.
    fn retire_thread(&self) -> bool {
        let mut queue = lock_ignoring_poison(&self.queue);
        if self.ending.load(Ordering::Relaxed) {
            return false;
        }
        queue.alive -= 1;
        drop(queue);
        self.late.notify_one();
        true
    }

    /// Records that a job of a heavy lane has ended, so another one may begin.
    fn end_heavy(&self) {
        let mut queue = lock_ignoring_poison(&self.queue);
        queue.heavy_running -= 1;
        // At shutdown, threads without a turn wait for no other lane, and must be notified.
        let wake = queue.parked > 0 && (queue.waiting_lanes() > 0 || self.ending.load(Ordering::Relaxed));
        drop(queue);
        if wake {
            self.wake.notify_all();
        }
    }

    fn end_threads(&self) {
        let queue = lock_ignoring_poison(&self.queue);
        self.ending.store(true, Ordering::Relaxed);
        drop(queue);
        self.wake.notify_all();
        self.late.notify_all();
    }
}

/// Starts threads in the place of retired ones, and while lanes wait for slow ones, until shutdown.
fn watch_threads(shared: &Arc<WorkersShared>) {
    let mut queue = lock_ignoring_poison(&shared.queue);
    while !(shared.ending.load(Ordering::Relaxed) && queue.is_empty()) {
        let retired = shared.threads.saturating_sub(queue.alive);
        if retired > 0 && !shared.ending.load(Ordering::Relaxed) {
            drop(queue);
            if (0..retired).try_for_each(|_| WorkersShared::start_thread(shared)).is_err() {
                // If the operating system refuses a thread, the next check tries again.
                std::thread::sleep(SLOW);
            }
            queue = lock_ignoring_poison(&shared.queue);
            continue;
        }
        if queue.waiting_lanes() == 0 || queue.parked > 0 {
            queue.unwatched = true;
            queue = shared.late.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.unwatched = false;
            continue;
        }
        let (waiting_since, heavy_waits) = (queue.pushed, queue.runnable.is_empty());
        drop(queue);
        std::thread::sleep(SLOW);
        queue = lock_ignoring_poison(&shared.queue);
        // Lanes that waited before the sleep still wait.
        if queue.taken < waiting_since || heavy_waits {
            let missing = shared.missing_threads(&queue);
            drop(queue);
            let _ = (0..missing).try_for_each(|_| WorkersShared::start_thread(shared));
            queue = lock_ignoring_poison(&shared.queue);
        }
    }
}

/// The work of a thread until shutdown. After a heavy job the thread ends, and the watching thread starts another. The
/// deepest statements leave a stack of many MiB behind, and a lowered priority cannot be raised again.
fn run_thread(shared: &WorkersShared, clock: &JobClock) {
    if shared.priority == ThreadPriority::Low {
        // For this thread alone on Linux. Has no effect where the system forbids it.
        let _ = setpriority_process(None, LOW_PRIORITY);
    }
    while let Some(turn) = shared.next_turn() {
        let began = turn.now;
        let done = serve_turn(shared, clock, turn);
        if done - began > nanos_of(HEAVY) && shared.retire_thread() {
            break;
        }
    }
    shared.ended.notify_waiters();
}

/// Runs one job, and returns when it ended.
fn serve_turn(shared: &WorkersShared, clock: &JobClock, turn: LaneTurn) -> u64 {
    let LaneTurn { lane, now: began, heavy } = turn;
    let (job, more) = lane.take_job(began);
    if more == LaneReadiness::Runnable {
        shared.enqueue_lane(Arc::clone(&lane));
    }
    let mut done = began;
    if let Some(job) = job {
        clock.store(began, Ordering::Relaxed);
        let _ = catch_panic(|| {
            job();
            Ok(())
        });
        clock.store(0, Ordering::Relaxed);
        done = shared.elapsed_nanos();
        if lane.finish_job(began, done) == LaneReadiness::Runnable {
            shared.enqueue_lane(lane);
        }
    }
    if heavy {
        shared.end_heavy();
    }
    done
}

pub(super) fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
