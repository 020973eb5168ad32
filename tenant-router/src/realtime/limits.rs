//! The limits of topics and subscriptions.

/// Limits of one router, and so usually of one process. Given to
/// [`RouterBuilder::realtime_limits`](crate::RouterBuilder::realtime_limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealtimeLimits {
    /// Open subscriptions of all tenants. The default is 10,000: a process often has only 20,000 file descriptors.
    pub subscriptions_max: usize,
    /// Open subscriptions of one tenant. The default is 1,000, so that one tenant cannot take all of them.
    pub tenant_subscriptions_max: usize,
    /// Messages that wait for one subscriber. The default is 64: some seconds of a busy topic. A subscriber with a full queue
    /// is dropped, because it would keep ever more memory.
    pub queue_messages_max: usize,
    /// Bytes of messages that wait for one subscriber. The default is 64 KiB, which is eight of the largest messages.
    pub queue_bytes_max: usize,
    /// Bytes of one message as JSON. The default is 8 KiB: a message says what changed, and the page reads the rest.
    pub message_bytes_max: usize,
    /// Messages that one tenant publishes in a second. The default is 50. All processes read all messages, and the catalog keeps
    /// a limited number of them.
    pub tenant_messages_per_second_max: u32,
}

impl Default for RealtimeLimits {
    fn default() -> Self {
        Self {
            subscriptions_max: 10_000,
            tenant_subscriptions_max: 1_000,
            queue_messages_max: 64,
            queue_bytes_max: 64 * 1_024,
            message_bytes_max: 8 * 1_024,
            tenant_messages_per_second_max: 50,
        }
    }
}
