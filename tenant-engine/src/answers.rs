//! How many bytes of answers a process holds at once, from the first row that is read until the last is sent.
//!
//! One [`AnswerBudget`] for the process, one [`AnswerShare`] of it for each pool, one [`AnswerHold`] in each answer. An
//! answer asks for more while its rows are read, which is before its transaction commits: what is refused for want of
//! room was not done, and may be repeated. The hold is given back when the answer is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Gauge, describe_gauge, gauge};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::value::Value;

/// Small answers are never refused and not counted: as many as there are connections fit into a few dozen MiB.
const SMALL_BYTES: usize = 16 << 10;

/// An answer asks for room in steps, so that a long one does not ask for each row.
const STEP_BYTES: usize = 64 << 10;

/// One tenant may hold this part of the budget: its clients that do not read must not silence the other tenants.
const SHARE_OF_BUDGET: usize = 2;

/// A caller that waits for room is told when there is this part of its share: enough for most answers.
const ROOM_OF_SHARE: usize = 4;

/// What a row costs beside its cells: its vector, and the growth of the vector that it is in.
const ROW_BYTES: usize = 48;

/// All answers of a process. Clones are one budget.
#[derive(Debug, Clone)]
pub struct AnswerBudget {
    inner: Arc<Budget>,
}

struct Budget {
    bytes_max: usize,
    held: AtomicUsize,
    /// How many answers were sent and dropped: who waits tries again only after one was.
    returned: AtomicU64,
    freed: Notify,
    gauge: Gauge,
}

/// The answers of one tenant's pool; without limit by default, for verbs and tests. Clones are one share.
#[derive(Debug, Clone, Default)]
pub struct AnswerShare {
    inner: Option<Arc<Share>>,
}

#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes_max: usize,
    held: AtomicUsize,
}

/// What one answer holds. A copy counts as much again.
#[derive(Debug, Default)]
pub struct AnswerHold {
    share: AnswerShare,
    used: usize,
    charged: usize,
}

impl AnswerBudget {
    /// Room for answers of so many bytes, as they lie in memory.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        describe_gauge!("fleet_answers_held_bytes", "Bytes of answers that are being read or sent");
        let (held, returned, freed) = (AtomicUsize::new(0), AtomicU64::new(0), Notify::new());
        let gauge = gauge!("fleet_answers_held_bytes");
        Self { inner: Arc::new(Budget { bytes_max, held, returned, freed, gauge }) }
    }

    /// Another pool's share.
    #[must_use]
    pub fn share(&self) -> AnswerShare {
        let (budget, bytes_max) = (Arc::clone(&self.inner), self.inner.bytes_max / SHARE_OF_BUDGET);
        AnswerShare { inner: Some(Arc::new(Share { budget, bytes_max, held: AtomicUsize::new(0) })) }
    }

    /// Bytes held now.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.inner.held.load(Ordering::Relaxed)
    }
}

impl AnswerShare {
    /// Waits until an answer of ordinary size has room again, or for `patience`; true when there is room. With `seen`
    /// (of [`AnswerShare::returned`], before an attempt that failed) also until another answer was dropped since.
    pub async fn wait_for_room(&self, seen: Option<u64>, patience: Duration) -> bool {
        let Some(share) = &self.inner else { return true };
        let room = async {
            loop {
                let freed = share.budget.freed.notified();
                tokio::pin!(freed);
                // From here on no notice is missed.
                freed.as_mut().enable();
                if share.has_room() && seen.is_none_or(|seen| seen != self.returned()) {
                    return;
                }
                freed.await;
            }
        };
        tokio::time::timeout(patience, room).await.is_ok()
    }

    /// How many counted answers of the process were dropped so far.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.inner.as_ref().map_or(0, |share| share.budget.returned.load(Ordering::Relaxed))
    }

    pub(crate) fn hold(&self) -> AnswerHold {
        AnswerHold { share: self.clone(), used: 0, charged: 0 }
    }
}

impl Share {
    fn has_room(&self) -> bool {
        let Self { budget, bytes_max, held } = self;
        let wanted = bytes_max / ROOM_OF_SHARE;
        let fits = |held: &AtomicUsize, max: usize| held.load(Ordering::Relaxed).saturating_add(wanted) <= max;
        fits(held, *bytes_max) && fits(&budget.held, budget.bytes_max)
    }

    fn take(&self, bytes: usize) -> bool {
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
    /// As [`AnswerHold::cell`].
    pub(crate) fn row(&mut self) -> Result<()> {
        self.grow(ROW_BYTES)
    }

    /// Counts one more cell, whose text or bytes are so long.
    ///
    /// # Errors
    /// [`ErrorKind::AnswersMax`] when there is no room for more.
    pub(crate) fn cell(&mut self, heap_bytes: usize) -> Result<()> {
        self.grow(size_of::<Value>() + heap_bytes)
    }

    fn grow(&mut self, bytes: usize) -> Result<()> {
        self.used = self.used.saturating_add(bytes);
        let missing = self.used.saturating_sub(SMALL_BYTES + self.charged);
        if missing == 0 {
            return Ok(());
        }
        let Some(share) = &self.share.inner else { return Ok(()) };
        let step = missing.max(STEP_BYTES);
        if !share.take(step) {
            let message = "the answers that are being read and sent take all the memory they may; nothing was changed";
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
    /// The copy exists whether or not there is room: it is counted as far as there is.
    fn clone(&self) -> Self {
        let charged = match &self.share.inner {
            Some(share) if self.charged > 0 && share.take(self.charged) => self.charged,
            _ => 0,
        };
        Self { share: self.share.clone(), used: self.used, charged }
    }
}

impl PartialEq for AnswerHold {
    /// What is held says nothing about what an answer says.
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("bytes_max", &self.bytes_max).field("held", &self.held).finish_non_exhaustive()
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
        let mut hold = share.hold();
        hold.cell(bytes).map(|()| hold)
    }

    #[test]
    fn a_large_answer_is_counted_until_it_is_dropped() {
        let budget = AnswerBudget::new(4 << 20);
        let share = budget.share();
        let hold = filled(&share, 1 << 20).unwrap();
        assert!(budget.held_bytes() >= (1 << 20) - SMALL_BYTES, "{}", budget.held_bytes());
        let copy = hold.clone();
        assert!(budget.held_bytes() >= 2 * ((1 << 20) - SMALL_BYTES));
        assert_eq!(filled(&share, 1 << 20).unwrap_err().kind(), ErrorKind::AnswersMax, "its share is used up");
        let others = budget.share();
        assert!(filled(&others, 1 << 20).is_ok(), "another tenant's is not");
        drop((hold, copy));
        assert_eq!(budget.held_bytes(), 0);
        assert!(filled(&share, 1 << 20).is_ok());
    }

    #[test]
    fn small_answers_are_never_refused() {
        let budget = AnswerBudget::new(0);
        let share = budget.share();
        let mut hold = share.hold();
        while hold.used < SMALL_BYTES - 100 {
            hold.row().unwrap();
            hold.cell(8).unwrap();
        }
        assert_eq!(hold.cell(SMALL_BYTES).unwrap_err().kind(), ErrorKind::AnswersMax);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_of_it() {
        let budget = AnswerBudget::new(1 << 20);
        let share = budget.share();
        assert!(share.wait_for_room(None, Duration::ZERO).await);
        let seen = Some(share.returned());
        assert!(!share.wait_for_room(seen, Duration::ZERO).await, "nothing came back since");
        let hold = filled(&share, 500_000).unwrap();
        assert!(!share.wait_for_room(None, Duration::ZERO).await);
        let waiting = tokio::spawn(async move { share.wait_for_room(seen, Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        drop(hold);
        assert!(waiting.await.unwrap());
    }
}
