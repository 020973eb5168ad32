//! PURE: what is counted about one server's connections.

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// To make room for another tenant's.
    Evicted,
    /// Nobody used it for a while.
    Idle,
    /// It was old: servers free what a session gathers only when it ends.
    Lifetime,
    /// Its pool was closed or dropped.
    PoolClosed,
    /// Its database is not the expected one any more, or refuses our login.
    Fenced,
    /// It broke, or the server ended it.
    Broken,
    /// The server did not answer within the time of the request.
    TimedOut,
    /// Its request was given up in the middle of a statement, or it could not be cleaned in time.
    Abandoned,
    /// An answer was longer than its request may take, and not read to its end.
    Overlong,
    /// This process may hold fewer now.
    Shrunk,
    /// The process is ending.
    Shutdown,
}

impl Reason {
    /// All of them.
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

    /// As metrics call it.
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
pub(super) struct Tally {
    pub(super) idle: usize,
    pub(super) in_use: usize,
    pub(super) opening: usize,
    pub(super) closing: usize,
    /// Requests.
    pub(super) waiting: usize,
    /// By [`Reason`], since the start.
    pub(super) closes: [u64; Reason::ALL.len()],
}

impl Tally {
    /// Connections that take a place on the server.
    pub(super) fn open(&self) -> usize {
        self.idle + self.in_use + self.opening + self.closing
    }

    /// Connections that take a place and are not about to free it.
    pub(super) fn staying(&self) -> usize {
        self.idle + self.in_use + self.opening
    }

    pub(super) fn closed(&mut self, reason: Reason) {
        self.closes[reason as usize] += 1;
    }

    pub(super) fn evicted(&mut self) {
        self.closed(Reason::Evicted);
    }

    /// Connections moved from one tenant to another.
    pub(super) fn switches(&self) -> u64 {
        self.closes[Reason::Evicted as usize]
    }
}
