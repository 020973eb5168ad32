//! The blocking threads that every SQLite database of this process shares.
//!
//! SQLite blocks, so no call into it may happen on an async thread; and a thread per tenant costs a cold wake-up per
//! request and 10 KiB each. Here a fixed set of threads runs small jobs instead. A job belongs to a [`Lane`] (one per
//! pool, one for the engine's verbs). Lanes with something to do are served round robin, first in first out inside
//! one, and a lane never runs more than its maximum at once, so one heavy tenant cannot hold every thread.
//!
//! Called by `pool.rs`, `session.rs` and the verbs. Knows nothing of SQL.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::error::{Error, ErrorKind, Result};

/// Jobs one lane may have waiting. Sessions are bounded by their connections long before; this bounds callers of the
/// verbs, at about 100 bytes a job.
const LANE_JOBS_MAX: usize = 65_536;

/// Stack of a worker. SQLite prepares by recursion, and the deepest statement that `complexity.rs` lets through takes 3
/// MiB in a build without optimisation; what a schema alone can nest (views, triggers, cascades) takes 2 KiB a level.
/// Only what is touched takes memory.
pub(super) const STACK_BYTES: usize = 64 << 20;

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
            ending: AtomicBool::new(false),
            ended: Notify::new(),
        });
        // From here on an error ends the threads already started.
        let workers = Self { shared: Arc::clone(&shared), _end: Arc::new(EndOnDrop(Arc::clone(&shared))) };
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            lock(&workers.shared.queue).alive += 1;
            let thread = std::thread::Builder::new().name(format!("sqlite-{number}")).stack_size(STACK_BYTES);
            thread.spawn(move || work(&shared)).map_err(|e| {
                lock(&workers.shared.queue).alive -= 1;
                Error::new(ErrorKind::Io, format!("cannot start thread {} of {threads}", number + 1)).with_source(e)
            })?;
        }
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
}

impl Shared {
    /// Makes a lane runnable and wakes a thread for it. A lane that comes too late for any thread loses its jobs.
    fn enqueue(&self, lane: Arc<LaneInner>) {
        let mut queue = lock(&self.queue);
        if queue.alive == 0 {
            drop(queue);
            return lane.clear();
        }
        queue.runnable.push_back(lane);
        let wake = queue.parked > 0;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// The next lane to serve; waits for one. `None`: the thread has to end.
    fn next(&self) -> Option<Arc<LaneInner>> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(lane) = queue.runnable.pop_front() {
                return Some(lane);
            }
            if self.ending.load(Ordering::Relaxed) {
                queue.alive -= 1;
                return None;
            }
            queue.parked += 1;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.parked -= 1;
        }
    }

    fn end(&self) {
        let queue = lock(&self.queue);
        self.ending.store(true, Ordering::Relaxed);
        drop(queue);
        self.wake.notify_all();
    }
}

/// What a thread does until the end.
fn work(shared: &Shared) {
    while let Some(lane) = shared.next() {
        let (job, more) = lane.take();
        if more == More::Runnable {
            shared.enqueue(Arc::clone(&lane));
        }
        if let Some(job) = job {
            let _ = catch_panic(|| {
                job();
                Ok(())
            });
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
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn runs_and_returns() {
        let workers = Workers::start(2).unwrap();
        let lane = Lane::new(2);
        assert_eq!(workers.run(&lane, || Ok(41 + 1)).await.unwrap(), 42);
        let failed = workers.run::<()>(&lane, || Err(Error::new(ErrorKind::Busy, "no"))).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Busy);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_lives() {
        let workers = Workers::start(1).unwrap();
        let lane = Lane::new(1);
        let failed = workers.run::<()>(&lane, || panic!("a bug")).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Internal);
        workers.submit(&lane, Box::new(|| panic!("another"))).unwrap();
        assert_eq!(workers.run(&lane, || Ok(1)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn shutdown_runs_what_is_queued_and_refuses_the_rest() {
        let workers = Workers::start(2).unwrap();
        let lane = Lane::new(1);
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..500 {
            let done = Arc::clone(&done);
            workers
                .submit(
                    &lane,
                    Box::new(move || {
                        done.fetch_add(1, Ordering::Relaxed);
                    }),
                )
                .unwrap();
        }
        workers.shutdown().await;
        assert_eq!(done.load(Ordering::Relaxed), 500);
        assert_eq!(workers.run(&lane, || Ok(())).await.unwrap_err().kind(), ErrorKind::Closed);
        workers.shutdown().await;
    }

    #[tokio::test]
    async fn a_lane_never_runs_more_than_its_maximum_and_leaves_threads_to_others() {
        let workers = Workers::start(4).unwrap();
        let heavy = Lane::new(2);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..100 {
            let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
            let job = move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let _ = lock(&gate).recv();
                running.fetch_sub(1, Ordering::SeqCst);
            };
            workers.submit(&heavy, Box::new(job)).unwrap();
        }
        while running.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        // All of the heavy lane's jobs block, and still another lane is served.
        assert_eq!(workers.run(&Lane::new(1), || Ok("served")).await.unwrap(), "served");
        drop(release);
        workers.shutdown().await;
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn lanes_take_turns_and_each_is_first_in_first_out() {
        let workers = Workers::start(1).unwrap();
        let (begin, gate) = mpsc::channel::<()>();
        workers
            .submit(
                &Lane::new(1),
                Box::new(move || {
                    let _ = gate.recv();
                }),
            )
            .unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (a, b) = (Lane::new(1), Lane::new(1));
        for (lane, name) in [(&a, "a"), (&b, "b")] {
            for number in 0..3 {
                let order = Arc::clone(&order);
                workers.submit(lane, Box::new(move || lock(&order).push((name, number)))).unwrap();
            }
        }
        begin.send(()).unwrap();
        workers.shutdown().await;
        assert_eq!(*lock(&order), [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]);
    }

    #[tokio::test]
    async fn dropped_work_that_has_not_begun_never_begins() {
        let workers = Workers::start(1).unwrap();
        let lane = Lane::new(1);
        let (begin, gate) = mpsc::channel::<()>();
        workers
            .submit(
                &lane,
                Box::new(move || {
                    let _ = gate.recv();
                }),
            )
            .unwrap();
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        let future = workers.run(&lane, move || {
            seen.store(true, Ordering::SeqCst);
            Ok(())
        });
        tokio::select! {
            biased;
            _ = future => panic!("the only thread is blocked"),
            () = std::future::ready(()) => {}
        }
        begin.send(()).unwrap();
        workers.shutdown().await;
        assert!(!ran.load(Ordering::SeqCst));
    }
}
