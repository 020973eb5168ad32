//! Sets up the process's log: JSON lines for machines, short lines for a human at a terminal. Called once by a binary.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// Short lines.
    Human,
}

impl Format {
    /// Short lines when a human looks on, JSON when a collector does.
    #[must_use]
    pub fn for_stderr() -> Self {
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) { Self::Human } else { Self::Json }
    }
}

/// Writes the log to stderr. `filter` is in the notation of tracing's `EnvFilter` (`info`, `warn,control_plane=debug`).
///
/// # Errors
/// When the filter does not parse, or a log was set up before.
pub fn init(format: Format, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| format!("log filter '{filter}': {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        Format::Human => registry.with(lines.compact().with_target(false)).try_init(),
    }
    .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        assert!(init(Format::Json, "control_plane=loudly").unwrap_err().contains("control_plane=loudly"));
    }
}
