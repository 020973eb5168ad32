//! PURE: the counters of one server's connections.

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// To make room for a connection of another tenant.
    Evicted,
    /// It was not used for a while.
    Idle,
    /// It was old: a server process frees the memory of a session only when the session ends.
    Lifetime,
    /// Its pool was closed or dropped.
    PoolClosed,
    /// Its database is no longer the expected one, or refuses the login.
    Fenced,
    /// The connection broke, or the server ended it.
    Broken,
    /// The server did not answer within the time of the request.
    TimedOut,
    /// Its request was abandoned in the middle of a statement, or it could not be cleaned in time.
    Abandoned,
    /// An answer exceeded its request's limits and was not read to its end.
    Overlong,
    /// The limit of this process was lowered.
    Shrunk,
    /// The process is ending.
    Shutdown,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Evicted,
        Self::Idle,
        Self::Lifetime,
        Self::PoolClosed,
        Self::Fenced,
        Self::Broken,
        Self::TimedOut,
        Self::Abandoned,
        Self::Overlong,
        Self::Shrunk,
        Self::Shutdown,
    ];

    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::PoolClosed => "pool_closed",
            Self::Fenced => "fenced",
            Self::Broken => "broken",
            Self::TimedOut => "timed_out",
            Self::Abandoned => "abandoned",
            Self::Overlong => "overlong",
            Self::Shrunk => "shrunk",
            Self::Shutdown => "shutdown",
        }
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct ConnectionCounters {
    pub(super) idle: usize,
    pub(super) in_use: usize,
    pub(super) opening: usize,
    pub(super) closing: usize,
    /// Number of waiting requests.
    pub(super) waiting: usize,
    /// Number of closed connections since the start, by [`CloseReason`].
    pub(super) closes: [u64; CloseReason::ALL.len()],
}

impl ConnectionCounters {
    /// Number of connections that take a place on the server.
    pub(super) fn open_count(&self) -> usize {
        self.idle + self.in_use + self.opening + self.closing
    }

    /// Number of connections that take a place and are not about to free it.
    pub(super) fn staying_count(&self) -> usize {
        self.idle + self.in_use + self.opening
    }

    pub(super) fn count_close(&mut self, reason: CloseReason) {
        self.closes[reason as usize] += 1;
    }

    pub(super) fn count_eviction(&mut self) {
        self.count_close(CloseReason::Evicted);
    }

    /// Number of connections that were moved from one tenant to another.
    pub(super) fn switch_count(&self) -> u64 {
        self.closes[CloseReason::Evicted as usize]
    }
}
