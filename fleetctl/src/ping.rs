//! Reports the start and end of a command to a monitor: `URL/start`, then `URL/<exit code>`.
//!
//! A monitor that does not answer never changes the command or its exit code.

use std::time::Duration;

use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::settings::CommandSettings;

/// Maximum wait for the monitor: a cron job must not hang on it.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A monitor to report to.
pub(crate) struct MonitorPing {
    client: reqwest::Client,
    url: String,
}

impl MonitorPing {
    /// The monitor in the settings; `None` when there is none.
    pub(crate) fn from_settings(settings: &CommandSettings) -> Result<Option<Self>> {
        let Some(url) = settings.parse_value("ping_url", parse_ping_url)? else { return Ok(None) };
        let client = reqwest::Client::builder().timeout(PING_TIMEOUT).build();
        let client =
            client.map_err(|e| CommandFailure::new(CommandExit::Failed, "cannot set up HTTP").with_cause(e))?;
        Ok(Some(Self { client, url }))
    }

    pub(crate) async fn ping_start(&self, context: &mut CommandContext) {
        self.call_monitor("start", context).await;
    }

    pub(crate) async fn ping_end(&self, context: &mut CommandContext, exit: CommandExit) {
        self.call_monitor(&(exit as u8).to_string(), context).await;
    }

    async fn call_monitor(&self, what: &str, context: &mut CommandContext) {
        let answer = self.client.get(format!("{}/{what}", self.url)).send().await;
        if let Err(error) = answer.and_then(reqwest::Response::error_for_status) {
            // Printed without the address, which is a secret.
            context.out.print_note(&format!("warning: the monitor was not reached: {}", error.without_url()));
        }
    }
}

fn parse_ping_url(text: &str) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err("expected http://… or https://…".to_owned())
}
