//! The blocking threads that every SQLite database of this process shares.
//!
//! SQLite blocks, so no call into it may happen on an async thread; and a thread per tenant costs a cold wake-up per
//! request and 10 KiB each. Here a fixed set of threads runs small jobs instead. A job belongs to a [`Lane`] (one per
//! pool, one for the engine's verbs; `lanes.rs`). Lanes with something to do are served round robin, first in first out inside
//! one, and a lane never runs more than its maximum at once, so one heavy tenant cannot hold every thread.
//!
//! A job may take long, or never end. When lanes wait while threads are busy with slow jobs, a watching thread starts
//! others in their place, up to [`EXTRA_MAX`]. A thread too many ends when it finds nothing to do.
//!
//! A lane with a heavy job, now or a moment ago, waits in a second queue. Of that no more jobs run at once than there are
//! threads without those others. So any number of greedy tenants leaves threads for the rest, and shares few.
//!
//! Called by `pool.rs`, `session.rs` and the verbs. Knows nothing of SQL.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

pub(crate) use super::lanes::Lane;
use super::lanes::{LaneInner, More};
use crate::error::{Error, ErrorKind, Result};

/// Stack of a worker. SQLite prepares by recursion, and the deepest statement that `complexity.rs` lets through takes 3
/// MiB in a build without optimisation; what a schema alone can nest (views, triggers, cascades) takes 2 KiB a level.
/// JSON in binary form nests 200,000 levels in the longest value, of some hundred bytes each. Only what is touched takes
/// memory, until the thread ends.
pub(super) const STACK_BYTES: usize = 256 << 20;

/// A job that runs longer is slow: a lane that waits gets another thread, and the operating system shares the cores.
const SLOW: Duration = Duration::from_millis(5);

/// A lane with a job that runs this long is heavy: far longer than a commit waits for the disk.
pub(super) const HEAVY: Duration = Duration::from_millis(50);

/// How long a lane stays heavy after such a job: longer than a hundred greedy tenants take for a round of turns. What is
/// quick waits no longer for that, unless many are heavy.
pub(super) const HEAVY_AFTER: Duration = Duration::from_secs(60);

/// Jobs of heavy lanes that run before those of others: they wait, but not without an end.
const HEAVY_MIN: usize = 1;

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

impl Workers {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the operating system refuses a thread.
    pub(crate) fn start(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            threads,
            queue: Mutex::new(Queue { heavy_max: threads.max(HEAVY_MIN + 1), ..Queue::default() }),
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
    /// Heavy lanes with a job that waits for its turn; each at most once.
    heavy: VecDeque<Arc<LaneInner>>,
    /// Jobs of heavy lanes that run, and how many may.
    heavy_running: usize,
    heavy_max: usize,
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

/// A lane whose turn it is.
struct Turn {
    lane: Arc<LaneInner>,
    /// When it came.
    now: u64,
    /// Whether it counts in [`Queue::heavy_running`].
    heavy: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.runnable.is_empty() && self.heavy.is_empty()
    }

    /// Lanes that a thread could serve now.
    fn waiting(&self) -> usize {
        self.runnable.len() + self.heavy.len().min(self.heavy_max.saturating_sub(self.heavy_running))
    }

    /// The next turn. Lanes that have become heavy go to the other queue.
    fn pop(&mut self, now: u64) -> Option<Turn> {
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
                    return Some(Turn { lane, now, heavy: false });
                }
                None => {}
            }
            if self.heavy_running >= self.heavy_max {
                return None;
            }
            let lane = self.heavy.pop_front()?;
            self.heavy_running += 1;
            return Some(Turn { lane, now, heavy: true });
        }
    }
}

impl Shared {
    /// Makes a lane runnable and wakes a thread for it. A lane that comes too late for any thread loses its jobs.
    fn enqueue(&self, lane: Arc<LaneInner>) {
        let mut queue = lock(&self.queue);
        if queue.alive == 0 && self.ending.load(Ordering::Relaxed) {
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
        let limit = self.nanos().saturating_sub(nanos_of(SLOW));
        let began = |clock: &Weak<JobClock>| clock.upgrade().map_or(0, |clock| clock.load(Ordering::Relaxed));
        queue.clocks.iter().filter(|clock| (1..limit).contains(&began(clock))).count()
    }

    /// How many threads to start: so that as many as usual are not slow, but no more than lanes wait.
    fn missing(&self, queue: &Queue) -> usize {
        let room = (self.threads + EXTRA_MAX).saturating_sub(queue.alive);
        (self.threads + self.slow(queue)).saturating_sub(queue.alive).min(queue.waiting()).min(room)
    }

    /// True when there are enough threads without the one that asks.
    fn is_surplus(&self, queue: &Queue) -> bool {
        queue.alive > self.threads && queue.alive > self.threads + self.slow(queue)
    }

    /// The next lane to serve; waits for one. `None`: the thread has to end.
    fn next(&self) -> Option<Turn> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(turn) = queue.pop(self.nanos()) {
                // A thread that is still waking up counts as parked, so nobody was told of what came after its lane.
                if queue.waiting() > 0 && queue.parked == 0 && queue.unwatched {
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

    /// Ends the calling thread for another in its place; false when the end has come anyway.
    fn retire(&self) -> bool {
        let mut queue = lock(&self.queue);
        if self.ending.load(Ordering::Relaxed) {
            return false;
        }
        queue.alive -= 1;
        drop(queue);
        self.late.notify_one();
        true
    }

    /// A job of a heavy lane has ended: another one may begin.
    fn end_heavy(&self) {
        let mut queue = lock(&self.queue);
        queue.heavy_running -= 1;
        // At the end, those without a turn wait for no other lane, and have to be told.
        let wake = queue.parked > 0 && (queue.waiting() > 0 || self.ending.load(Ordering::Relaxed));
        drop(queue);
        if wake {
            self.wake.notify_all();
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

/// Starts threads in the place of those that retired, and while lanes wait for slow ones, until the end.
fn watch(shared: &Arc<Shared>) {
    let mut queue = lock(&shared.queue);
    while !(shared.ending.load(Ordering::Relaxed) && queue.is_empty()) {
        let retired = shared.threads.saturating_sub(queue.alive);
        if retired > 0 && !shared.ending.load(Ordering::Relaxed) {
            drop(queue);
            if (0..retired).try_for_each(|_| Shared::start(shared)).is_err() {
                // Refused by the operating system: the next look tries again.
                std::thread::sleep(SLOW);
            }
            queue = lock(&shared.queue);
            continue;
        }
        if queue.waiting() == 0 || queue.parked > 0 {
            queue.unwatched = true;
            queue = shared.late.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.unwatched = false;
            continue;
        }
        let (waiting_since, heavy_waits) = (queue.pushed, queue.runnable.is_empty());
        drop(queue);
        std::thread::sleep(SLOW);
        queue = lock(&shared.queue);
        // What waited before the sleep still waits.
        if queue.taken < waiting_since || heavy_waits {
            let missing = shared.missing(&queue);
            drop(queue);
            let _ = (0..missing).try_for_each(|_| Shared::start(shared));
            queue = lock(&shared.queue);
        }
    }
}

/// What a thread does until the end. After a heavy job it ends, too, and the watching thread starts another: the deepest
/// statements leave a stack of many MiB behind, and a priority that was lowered cannot be raised again.
fn work(shared: &Shared, clock: &JobClock) {
    while let Some(turn) = shared.next() {
        let began = turn.now;
        let done = serve(shared, clock, turn);
        if done - began > nanos_of(HEAVY) && shared.retire() {
            break;
        }
    }
    shared.ended.notify_waiters();
}

/// Runs one job, and returns when it ended.
fn serve(shared: &Shared, clock: &JobClock, turn: Turn) -> u64 {
    let Turn { lane, now: began, heavy } = turn;
    let (job, more) = lane.take(began);
    if more == More::Runnable {
        shared.enqueue(Arc::clone(&lane));
    }
    let mut done = began;
    if let Some(job) = job {
        clock.store(began, Ordering::Relaxed);
        let _ = catch_panic(|| {
            job();
            Ok(())
        });
        clock.store(0, Ordering::Relaxed);
        done = shared.nanos();
        if lane.finish(began, done) == More::Runnable {
            shared.enqueue(lane);
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

/// Nothing here can be left half-changed by a panic, so a poisoned lock is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
