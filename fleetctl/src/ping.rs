//! Tells a monitor that a command begins and how it ended: `URL/start`, then `URL/<exit code>`.
//!
//! A monitor that does not answer never changes what the command does or how it ends.

use std::time::Duration;

use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::settings::Settings;

/// A monitor answers at once or not at all; a cron job must not hang on it.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A monitor.
pub(crate) struct Ping {
    client: reqwest::Client,
    url: String,
}

impl Ping {
    /// The monitor that was set, if any.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>> {
        let Some(url) = settings.parse("ping_url", address)? else { return Ok(None) };
        let client = reqwest::Client::builder().timeout(PING_TIMEOUT).build();
        let client = client.map_err(|e| Failure::new(Exit::Failed, "cannot set up HTTP").because(e))?;
        Ok(Some(Self { client, url }))
    }

    pub(crate) async fn start(&self, context: &mut Context) {
        self.call("start", context).await;
    }

    pub(crate) async fn end(&self, context: &mut Context, exit: Exit) {
        self.call(&(exit as u8).to_string(), context).await;
    }

    async fn call(&self, what: &str, context: &mut Context) {
        let answer = self.client.get(format!("{}/{what}", self.url)).send().await;
        if let Err(error) = answer.and_then(reqwest::Response::error_for_status) {
            // Without the address: it is a secret of its own.
            context.out.note(&format!("warning: the monitor was not reached: {}", error.without_url()));
        }
    }
}

fn address(text: &str) -> Result<String, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err("expected http://… or https://…".to_owned())
}
