//! An operator's hand on a running operation.

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Claim no more steps; those that run finish.
    Pause,
    /// Go on.
    Resume,
    /// Run the failed steps again.
    Retry,
    /// Run no more steps, ever.
    Cancel,
    /// Cancel, and give up what is half made: an abandoned create frees its names.
    Abandon,
}
