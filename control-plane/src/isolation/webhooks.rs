//! Sent webhooks: addresses inside the fleet's network were allowed by somebody, or not at all.

use catalog::webhooks;

use super::line::{AuditLine, few_names};
use crate::app::App;
use crate::error::Result;

const AREA: &str = "webhooks";
const PAGE: u32 = 1_000;

/// The line of all webhooks.
pub(super) async fn webhook_lines(app: &App) -> Result<Vec<AuditLine>> {
    let mut tx = app.catalog.read().await?;
    let (mut after, mut seen, mut private) = (None, 0, Vec::new());
    loop {
        let page = webhooks::list_webhooks(&mut tx, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen += page.len();
        private.extend(page.iter().filter(|webhook| webhook.private_allowed).map(|webhook| webhook.id.to_string()));
    }
    Ok(vec![address_line(seen, &private)])
}

/// PURE: the line about addresses.
fn address_line(seen: usize, private: &[String]) -> AuditLine {
    match (seen, private.is_empty()) {
        (0, _) => AuditLine::not_applicable(AREA, "addresses", "there is no webhook"),
        (_, true) => {
            AuditLine::pass(AREA, "addresses", format!("{seen} webhooks reach public addresses over TLS only"))
        }
        (_, false) => AuditLine::fail(
            AREA,
            "addresses",
            format!(
                "{} of {seen} may reach private addresses or use plain HTTP: {}",
                private.len(),
                few_names(private)
            ),
            "fleetctl webhook remove ID, then add it without --allow-private",
        ),
    }
}
