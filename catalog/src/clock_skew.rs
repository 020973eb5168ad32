//! Protects times that block work from wrong clocks. A lease or a wait written by a clock hours ahead would block for
//! hours after the clock is correct again. So a lease or wait counts as over if no correct clock can have written its
//! end. When a clock was set back, leases of live processes look like this, too. So code that knows that a process is
//! alive says so: a runner names the steps that it holds, and connection shares are watched.

/// The longest lease of a step is 20 s, and that of a webhook 45 s. The longest wait of a step between two attempts is
/// 30 s. The clocks of processes that share a catalog differ by at most 5 s.
pub(crate) const AHEAD_MS_MAX: i64 = 60_000;

/// The longest lease of a periodic task is twice its period of one hour.
pub(crate) const TASK_AHEAD_MS_MAX: i64 = 3 * 3_600_000;

/// The condition that a time in this column no longer blocks. `now` is an argument of the statement.
pub(crate) fn is_over(column: &str, now: &str) -> String {
    format!("({column} <= {now} or {column} > {now} + {AHEAD_MS_MAX})")
}
