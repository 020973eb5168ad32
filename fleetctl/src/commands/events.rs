//! `fleetctl events`: the audit log, newest event first.

use clap::Args;
use control_plane::ErrorKind;
use fleet_api::events::EventView;
use fleet_api::{field, pointer};
use fleet_client::ApiRequest;
use jiff::Timestamp;
use serde_json::Value;

use super::PageWalker;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result, shorten_text};
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView, plain_text};

/// How events are listed, here and by `op events`.
pub(crate) const EVENT: TableView = TableView {
    name: pointer!(EventView: seq),
    columns: &[
        TableColumn::of_time("AT", pointer!(EventView: at)),
        TableColumn::of_text("KIND", pointer!(EventView: kind)),
        TableColumn::of_text("TENANT", pointer!(EventView: tenant)).may_cut(),
        TableColumn::of_text("BY", pointer!(EventView: actor)).may_cut(),
        TableColumn::of_text("SEQ", pointer!(EventView: seq)),
        TableColumn::of_text("BY NAME", pointer!(EventView: actor_name)).only_wide(),
        TableColumn::of_text("TENANT ID", pointer!(EventView: tenant_id)).only_wide(),
        TableColumn::of_text("OPERATION", pointer!(EventView: operation_id)).only_wide(),
        TableColumn::of_text("REQUEST", pointer!(EventView: request_id)).only_wide(),
        TableColumn::of_text("DATA", pointer!(EventView: data)).only_wide(),
    ],
};

/// Flags of `events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl events --tenant acme --since 2h
  fleetctl events --kind tenant.suspended --since 2026-11-01 -o wide
  fleetctl events --actor token-of-ci --limit 20 -o json")]
pub(crate) struct EventsArgs {
    /// Only about this tenant, by name or id; also if it is purged
    #[arg(long)]
    tenant: Option<String>,
    /// Only of this operation (`op_…`)
    #[arg(long)]
    operation: Option<String>,
    /// Only by this actor: as BY shows it, or a token's id or label
    #[arg(long)]
    actor: Option<String>,
    /// Only of this kind, for instance tenant.suspended
    #[arg(long)]
    kind: Option<String>,
    /// Only events at or after this time: a time, a date, or an age (2h, 7d)
    #[arg(long, value_name = "TIME|AGO")]
    since: Option<String>,
    /// Only events before this time: a time, a date, or an age
    #[arg(long, value_name = "TIME|AGO")]
    until: Option<String>,
    /// Maximum number of events
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Runs `fleetctl events …`.
pub(crate) async fn run_events_command(args: EventsArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let now = Timestamp::now();
    let at = |flag: &str, text: Option<String>| text.map(|text| parse_moment(flag, &text, now)).transpose();
    let (since, until) = (at("--since", args.since)?, at("--until", args.until)?);
    let filters = [
        ("tenant", args.tenant),
        ("op", args.operation),
        ("actor", args.actor),
        ("kind", args.kind),
        ("since", since),
        ("until", until),
    ];
    let request =
        filters.into_iter().fold(ApiRequest::get("/v1/events").with_query("order", "newest"), |request, filter| {
            let (key, value) = filter;
            value.iter().fold(request, |request, value| request.with_query(key, value))
        });
    print_events(context, request, args.limit as usize).await
}

/// Prints up to `most` events, page by page.
async fn print_events(context: &mut CommandContext, request: ApiRequest, most: usize) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let mut pages = PageWalker::with_page_size(request, most);
    let mut left = most;
    let mut page = pages.next_page(&client).await?;
    let humans = matches!(context.out.format, OutputFormat::Table | OutputFormat::Wide);
    let mut list = context.out.begin_list(&EVENT)?;
    while let Some(mut events) = page {
        events.truncate(left);
        left -= events.len();
        if humans {
            events.iter_mut().for_each(show_token_label);
        }
        list.print_page(&events)?;
        page = if left == 0 { None } else { pages.next_page(&client).await? };
    }
    list.finish_list()?;
    Ok(CommandExit::Done)
}

/// Shows a token by its label, if it has one.
pub(crate) fn show_token_label(event: &mut Value) {
    if event[field!(EventView: actor_name)].is_string() {
        event["actor"] = Value::from(plain_text(&event["actor_name"]));
    }
}

/// Converts a time, a date (midnight UTC) or an age to a time of the API.
fn parse_moment(flag: &str, text: &str, now: Timestamp) -> Result<String> {
    if text.parse::<Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>()
        && let Ok(start) = date.to_zoned(jiff::tz::TimeZone::UTC)
    {
        return Ok(start.timestamp().to_string());
    }
    let ago = crate::setting_values::parse_duration(text).ok().and_then(|ago| now.checked_sub(ago).ok());
    let wrong = || {
        CommandFailure::usage_error(format!("{flag}: {:?} is not a time, a date or an age", shorten_text(text)))
            .try_next(format!("{flag} 2026-11-23T10:00:00Z, {flag} 2026-11-23 or {flag} 2h"))
            .code(ErrorKind::Invalid.code())
    };
    ago.map(|at| at.to_string()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_date_or_a_length_before_now() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let at = |text: &str| parse_moment("--since", text, now);
        assert_eq!(at("2026-11-23T10:00:00Z").unwrap(), "2026-11-23T10:00:00Z");
        assert_eq!(at("2026-11-23").unwrap(), "2026-11-23T00:00:00Z");
        assert_eq!(at("2h").unwrap(), "2026-11-28T10:00:00Z");
        for bad in ["", "yesterday", "-2h", "2", "2026-13-01", "99999999d"] {
            assert_eq!(at(bad).unwrap_err().exit, CommandExit::Usage, "{bad}");
        }
    }
}
