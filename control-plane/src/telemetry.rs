//! Sets up the process's log: JSON lines for programs, short lines for a person at a terminal. Called once by a binary.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Short lines of text.
    Human,
}

impl LogFormat {
    /// Short lines when stderr is a terminal, JSON otherwise.
    #[must_use]
    pub fn for_stderr() -> Self {
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) { Self::Human } else { Self::Json }
    }
}

/// Writes the log to stderr. `filter` has the syntax of tracing's `EnvFilter` (`info`, `warn,control_plane=debug`).
///
/// # Errors
/// When the filter does not parse, or a log was set up before.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| format!("log filter '{filter}': {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Human => registry.with(lines.compact().with_target(false)).try_init(),
    }
    .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        assert!(init_logging(LogFormat::Json, "control_plane=loudly").unwrap_err().contains("control_plane=loudly"));
    }
}
