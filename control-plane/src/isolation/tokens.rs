//! Tokens: those that open many tenants must end by themselves.

use catalog::tokens::{self, TokenCondition, TokenRecord, TokenScope};

use super::line::{AuditLine, few_names};
use crate::app::App;
use crate::error::Result;

const AREA: &str = "tokens";
const PAGE: u32 = 1_000;

/// The lines of all tokens that can be used now.
pub(super) async fn token_lines(app: &App) -> Result<Vec<AuditLine>> {
    let own = std::fs::read_to_string(app.config.data_dir.join("operator.token")).ok();
    let mut tx = app.catalog.read().await?;
    let own = match &own {
        Some(secret) => tokens::by_secret(&mut tx, secret.trim()).await?.map(|token| token.id),
        None => None,
    };
    let now = tx.now();
    let (mut after, mut wide, mut narrow, mut seen) = (None, Vec::new(), 0, 0);
    loop {
        let page = tokens::list_tokens(&mut tx, &TokenCondition::default(), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for token in page.iter().filter(|token| is_usable(token, now)) {
            seen += 1;
            if token.expires_at.is_some() || Some(token.id) == own {
                continue;
            }
            match token.scope {
                TokenScope::Operator { .. } | TokenScope::Service { .. } => wide.push(token.id.to_string()),
                _ => narrow += 1,
            }
        }
    }
    Ok(vec![expiry_line(&wide, seen, narrow)])
}

fn is_usable(token: &TokenRecord, now: i64) -> bool {
    token.revoked_at.is_none() && token.expires_at.is_none_or(|at| at > now)
}

/// PURE: the line about expiry. `operator.token` does not expire; its file is checked with the others.
fn expiry_line(wide: &[String], seen: usize, narrow: usize) -> AuditLine {
    let about = format!("{seen} tokens can be used; {narrow} of single tenants or members do not expire");
    match wide.is_empty() {
        true => AuditLine::pass(AREA, "expiry", format!("{about}; all of operators and services expire")),
        false => AuditLine::fail(
            AREA,
            "expiry",
            format!("tokens of operators or services without an expiry: {}; {about}", few_names(wide)),
            "fleetctl token create … --expires-in 90d, then fleetctl token revoke ID",
        ),
    }
}
