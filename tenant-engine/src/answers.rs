//! Limits the bytes of answers that a process holds at once, from the first row read until the last row sent.
//!
//! There is one [`AnswerBudget`] for the process, one [`AnswerShare`] of it for each pool, and one [`AnswerHold`] in
//! each answer. An answer asks for more room while its rows are read, which is before its transaction commits. A
//! statement that is refused for lack of room has therefore changed nothing and may be repeated. The room is returned
//! when the answer is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Gauge, describe_gauge, gauge};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::value::SqlValue;

/// Small answers are never refused and not counted: one for every connection fits into a few dozen MiB.
const SMALL_BYTES: usize = 16 << 10;

/// An answer asks for room in steps, so that a long answer does not ask for each row.
const STEP_BYTES: usize = 64 << 10;

/// One tenant may hold this fraction of the budget: clients of one tenant that do not read must not block the other
/// tenants.
const SHARE_OF_BUDGET: usize = 2;

/// A waiting caller is notified when this fraction of its share is free: enough for most answers.
const ROOM_OF_SHARE: usize = 4;

/// Cost of a row besides its cells: its vector, and the growth of the vector that holds it.
const ROW_BYTES: usize = 48;

/// The budget of all answers of a process. Clones share one budget.
#[derive(Debug, Clone)]
pub struct AnswerBudget {
    inner: Arc<AnswerBudgetInner>,
}

struct AnswerBudgetInner {
    bytes_max: usize,
    held: AtomicUsize,
    /// Number of answers that were sent and dropped. A waiting caller retries only after this number has risen.
    returned: AtomicU64,
    freed: Notify,
    gauge: Gauge,
}

/// The share of one tenant's pool. Without limit by default, for engine operations and tests. Clones are one share.
#[derive(Debug, Clone, Default)]
pub struct AnswerShare {
    inner: Option<Arc<AnswerShareInner>>,
}

#[derive(Debug)]
struct AnswerShareInner {
    budget: Arc<AnswerBudgetInner>,
    bytes_max: usize,
    held: AtomicUsize,
}

/// The room that one answer holds. A clone counts as much again.
#[derive(Debug, Default)]
pub struct AnswerHold {
    share: AnswerShare,
    used: usize,
    charged: usize,
}

impl AnswerBudget {
    /// A budget of `bytes_max` bytes, counted as the answers lie in memory.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        describe_gauge!("fleet_answers_held_bytes", "Bytes of answers that are being read or sent");
        let (held, returned, freed) = (AtomicUsize::new(0), AtomicU64::new(0), Notify::new());
        let gauge = gauge!("fleet_answers_held_bytes");
        Self { inner: Arc::new(AnswerBudgetInner { bytes_max, held, returned, freed, gauge }) }
    }

    /// A new share of this budget, for another pool.
    #[must_use]
    pub fn new_share(&self) -> AnswerShare {
        let (budget, bytes_max) = (Arc::clone(&self.inner), self.inner.bytes_max / SHARE_OF_BUDGET);
        AnswerShare { inner: Some(Arc::new(AnswerShareInner { budget, bytes_max, held: AtomicUsize::new(0) })) }
    }

    /// Bytes that all answers hold now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.inner.held.load(Ordering::Relaxed)
    }
}

impl AnswerShare {
    /// Waits until an answer of ordinary size has room again, for at most `patience`; true when there is room. With
    /// `seen` (of [`AnswerShare::returned_count`], read before an attempt that failed) it also waits until another
    /// answer was dropped since.
    pub async fn wait_for_room(&self, seen: Option<u64>, patience: Duration) -> bool {
        let Some(share) = &self.inner else { return true };
        let room = async {
            loop {
                let freed = share.budget.freed.notified();
                tokio::pin!(freed);
                // From here on no notification is missed.
                freed.as_mut().enable();
                if share.has_room() && seen.is_none_or(|seen| seen != self.returned_count()) {
                    return;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, room).await.is_ok()
    }

    /// Number of counted answers that this process has dropped.
    #[must_use]
    pub fn returned_count(&self) -> u64 {
        self.inner.as_ref().map_or(0, |share| share.budget.returned.load(Ordering::Relaxed))
    }

    pub(crate) fn new_hold(&self) -> AnswerHold {
        AnswerHold { share: self.clone(), used: 0, charged: 0 }
    }
}

impl AnswerShareInner {
    fn has_room(&self) -> bool {
        let Self { budget, bytes_max, held } = self;
        let wanted = bytes_max / ROOM_OF_SHARE;
        let fits = |held: &AtomicUsize, max: usize| held.load(Ordering::Relaxed).saturating_add(wanted) <= max;
        fits(held, *bytes_max) && fits(&budget.held, budget.bytes_max)
    }

    fn take_bytes(&self, bytes: usize) -> bool {
        let Self { budget, bytes_max, held } = self;
        if !add_up_to(held, bytes, *bytes_max) {
            return false;
        }
        if !add_up_to(&budget.held, bytes, budget.bytes_max) {
            held.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        budget.gauge.increment(bytes as f64);
        true
    }

    fn give_back(&self, bytes: usize) {
        let Self { budget, held, .. } = self;
        held.fetch_sub(bytes, Ordering::Relaxed);
        budget.held.fetch_sub(bytes, Ordering::Relaxed);
        budget.gauge.decrement(bytes as f64);
        budget.returned.fetch_add(1, Ordering::Relaxed);
        budget.freed.notify_waiters();
    }
}

impl AnswerHold {
    /// Counts one more row.
    ///
    /// # Errors
    /// As [`AnswerHold::count_cell`].
    pub(crate) fn count_row(&mut self) -> Result<()> {
        self.reserve_bytes(ROW_BYTES)
    }

    /// Counts one more cell; `heap_bytes` is the length of its text or bytes.
    ///
    /// # Errors
    /// [`ErrorKind::AnswersMax`] when there is no room for more.
    pub(crate) fn count_cell(&mut self, heap_bytes: usize) -> Result<()> {
        self.reserve_bytes(size_of::<SqlValue>() + heap_bytes)
    }

    /// Bytes that the rows take so far.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used
    }

    fn reserve_bytes(&mut self, bytes: usize) -> Result<()> {
        self.used = self.used.saturating_add(bytes);
        let missing = self.used.saturating_sub(SMALL_BYTES + self.charged);
        if missing == 0 {
            return Ok(());
        }
        let Some(share) = &self.share.inner else { return Ok(()) };
        let step = missing.max(STEP_BYTES);
        if !share.take_bytes(step) {
            let message = "no memory is free for more answers; nothing was changed";
            return Err(Error::new(ErrorKind::AnswersMax, message));
        }
        self.charged += step;
        Ok(())
    }
}

impl Drop for AnswerHold {
    fn drop(&mut self) {
        if let (Some(share), 1..) = (&self.share.inner, self.charged) {
            share.give_back(self.charged);
        }
    }
}

impl Clone for AnswerHold {
    /// The copy exists whether or not there is room, so its bytes are counted only as far as the budget allows.
    fn clone(&self) -> Self {
        let charged = match &self.share.inner {
            Some(share) if self.charged > 0 && share.take_bytes(self.charged) => self.charged,
            _ => 0,
        };
        Self { share: self.share.clone(), used: self.used, charged }
    }
}

impl PartialEq for AnswerHold {
    /// Two answers with equal rows are equal, however much memory they hold.
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl std::fmt::Debug for AnswerBudgetInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerBudgetInner")
            .field("bytes_max", &self.bytes_max)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// Adds unless the sum would exceed `max`.
fn add_up_to(sum: &AtomicUsize, bytes: usize, max: usize) -> bool {
    let added = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= max);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(share: &AnswerShare, bytes: usize) -> Result<AnswerHold> {
        let mut hold = share.new_hold();
        hold.count_cell(bytes).map(|()| hold)
    }

    #[test]
    fn a_large_answer_is_counted_until_it_is_dropped() {
        let budget = AnswerBudget::new(4 << 20);
        let share = budget.new_share();
        let hold = filled(&share, 1 << 20).unwrap();
        assert!(budget.held_bytes() >= (1 << 20) - SMALL_BYTES, "{}", budget.held_bytes());
        let copy = hold.clone();
        assert!(budget.held_bytes() >= 2 * ((1 << 20) - SMALL_BYTES));
        assert_eq!(filled(&share, 1 << 20).unwrap_err().kind(), ErrorKind::AnswersMax, "its share is used up");
        let others = budget.new_share();
        assert!(filled(&others, 1 << 20).is_ok(), "another tenant's is not");
        drop((hold, copy));
        assert_eq!(budget.held_bytes(), 0);
        assert!(filled(&share, 1 << 20).is_ok());
    }

    #[test]
    fn small_answers_are_never_refused() {
        let budget = AnswerBudget::new(0);
        let share = budget.new_share();
        let mut hold = share.new_hold();
        while hold.used < SMALL_BYTES - 100 {
            hold.count_row().unwrap();
            hold.count_cell(8).unwrap();
        }
        assert_eq!(hold.count_cell(SMALL_BYTES).unwrap_err().kind(), ErrorKind::AnswersMax);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_of_it() {
        let budget = AnswerBudget::new(1 << 20);
        let share = budget.new_share();
        assert!(share.wait_for_room(None, Duration::ZERO).await);
        let seen = Some(share.returned_count());
        assert!(!share.wait_for_room(seen, Duration::ZERO).await, "nothing came back since");
        let hold = filled(&share, 500_000).unwrap();
        assert!(!share.wait_for_room(None, Duration::ZERO).await);
        let waiting = tokio::spawn(async move { share.wait_for_room(seen, Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        drop(hold);
        assert!(waiting.await.unwrap());
    }
}
