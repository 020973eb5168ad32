//! What a caller is told of its tenant's rate: the fields of draft-ietf-httpapi-ratelimit-headers.

/// The rate of a tenant after one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// Requests that may come at once, in the whole fleet.
    pub burst: u64,
    /// Seconds in which an empty bucket becomes full.
    pub window_seconds: u64,
    /// Requests that this process would answer now.
    pub remaining: u64,
    /// Seconds until the bucket is full, or after a refusal until there is one token.
    pub reset_seconds: u64,
}

impl RateState {
    /// The names of the headers and their values.
    #[must_use]
    pub fn headers(&self) -> [(&'static str, String); 2] {
        let Self { burst, window_seconds, remaining, reset_seconds } = self;
        [
            ("ratelimit-policy", format!("\"plan\";q={burst};w={window_seconds}")),
            ("ratelimit", format!("\"plan\";r={remaining};t={reset_seconds}")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_follow_the_draft() {
        let state = RateState { burst: 100, window_seconds: 2, remaining: 7, reset_seconds: 1 };
        let [policy, rate] = state.headers();
        assert_eq!(policy, ("ratelimit-policy", "\"plan\";q=100;w=2".to_owned()));
        assert_eq!(rate, ("ratelimit", "\"plan\";r=7;t=1".to_owned()));
    }
}
