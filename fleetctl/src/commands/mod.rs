//! One file per noun: its flags, its requests, its columns. A new noun needs a file here, a variant and a
//! match arm in `cli.rs`, and a line in `COMMANDS` of `refusals.rs`.

pub(crate) mod account;
pub(crate) mod adopt;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod catalog;
mod catalog_identity;
pub(crate) mod completions;
pub(crate) mod config;
mod create;
pub(crate) mod describe;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod domain;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod impersonate;
pub(crate) mod init;
pub(crate) mod job;
pub(crate) mod leaktest;
pub(crate) mod lifecycle;
pub(crate) mod man;
pub(crate) mod member;
pub(crate) mod migrate;
pub(crate) mod op;
pub(crate) mod plan;
pub(crate) mod query;
pub(crate) mod release;
pub(crate) mod restore;
pub(crate) mod scrub;
pub(crate) mod serve;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod token;
pub(crate) mod version;
pub(crate) mod webhook;

use control_plane::ErrorKind;
use fleet_api::field;
use fleet_api::migrations::TenantPin;
use fleet_api::pages::PageOf;
use fleet_api::tenants::TenantView;
use fleet_client::ApiRequest;
use serde_json::Value;

use crate::args::{ChangeArgs, SelectionArgs};
use crate::client::ApiClient;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::operation;
use crate::table::{TableView, escape_text, plain_text};

/// The API's maximum page size: fewest requests for long lists.
const PAGE_MAX: &str = "1000";

/// Walks a list page by page.
struct PageWalker {
    request: ApiRequest,
    cursor: Option<String>,
    ended: bool,
}

impl PageWalker {
    fn for_request(request: ApiRequest) -> Self {
        Self { request: request.with_query("limit", PAGE_MAX), cursor: None, ended: false }
    }

    /// Walks in pages of `size` items, but at most the API's maximum.
    fn with_page_size(request: ApiRequest, size: usize) -> Self {
        let most = PAGE_MAX.parse().unwrap_or(usize::MAX);
        Self { request: request.with_query("limit", &size.min(most).to_string()), cursor: None, ended: false }
    }

    async fn next_page(&mut self, client: &ApiClient) -> Result<Option<Vec<Value>>> {
        if self.ended {
            return Ok(None);
        }
        let request = match &self.cursor {
            Some(cursor) => self.request.clone().with_query("cursor", cursor),
            None => self.request.clone(),
        };
        let mut page = client.send_for_json(&request).await?;
        self.cursor = page[field!(PageOf<Value>: next_cursor)].as_str().map(str::to_owned);
        self.ended = self.cursor.is_none();
        match page[field!(PageOf<Value>: items)].take() {
            Value::Array(items) => Ok(Some(items)),
            _ => Err(CommandFailure::unexpected_answer("the answer is not a list")),
        }
    }
}

/// Prints a list as its pages arrive. The first page is fetched before anything is printed.
async fn print_pages(context: &mut CommandContext, request: ApiRequest, view: &TableView) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let mut pages = PageWalker::for_request(request);
    let first = pages.next_page(&client).await?.unwrap_or_default();
    let mut list = context.out.begin_list(view)?;
    list.print_page(&first)?;
    while let Some(page) = pages.next_page(&client).await? {
        list.print_page(&page)?;
    }
    list.finish_list()?;
    Ok(CommandExit::Done)
}

/// Fetches one object and prints it as a column of facts.
async fn print_one(context: &mut CommandContext, request: ApiRequest, view: &TableView) -> Result<CommandExit> {
    let client = context.api_client().await?;
    let item = client.send_for_json(&request).await?;
    context.out.print_facts(view, &item)?;
    Ok(CommandExit::Done)
}

/// Prints that a tenant is pinned, and why. Prints nothing for a tenant that is not pinned.
fn note_pin(context: &mut CommandContext, name: &Value, pin: &Value) {
    if pin[field!(TenantPin: since_at)].is_string() {
        let [at, head, since, by] =
            ["version", "head_version", "since_at", "operation_id"].map(|key| plain_text(&pin[key]));
        let at = if at.is_empty() { "no version".to_owned() } else { format!("version {at}") };
        let line = format!("{} is pinned at {at}, head {head}, since {since}, by {by}", plain_text(name));
        context.out.print_note(&escape_text(&line));
    }
}

/// Sends a change that is complete when it is answered, and prints the result.
async fn change_and_print(
    context: &mut CommandContext,
    request: ApiRequest,
    change: &ChangeArgs,
    view: &TableView,
) -> Result<CommandExit> {
    if let Some(item) = operation::send_change(context, request, change).await?.filter(|item| !item.is_null()) {
        context.out.print_item(view, &item)?;
    }
    Ok(CommandExit::Done)
}

/// Adds the selection to the query of a list of tenants.
fn filter_request(mut request: ApiRequest, selection: &SelectionArgs) -> ApiRequest {
    if !selection.selectors.is_empty() {
        request = request.with_query("labels", &selection.selectors.join(","));
    }
    if let Some(server) = &selection.server {
        request = request.with_query("server", server);
    }
    request
}

/// The names of the selected tenants, for commands that act on one tenant at a time.
async fn selected_names(
    context: &mut CommandContext,
    names: &[String],
    selection: &SelectionArgs,
) -> Result<Vec<String>> {
    selected_in_state(context, names, selection, "active").await
}

/// As [`selected_names`], but labels, servers and `--all` select only tenants in this state.
async fn selected_in_state(
    context: &mut CommandContext,
    names: &[String],
    selection: &SelectionArgs,
    state: &str,
) -> Result<Vec<String>> {
    let resolved = selection.to_selection(names, context, crate::args::WhenEmpty::Refuse)?;
    let wanted = resolved.names;
    if !wanted.is_empty() && selection.selectors.is_empty() && selection.server.is_none() {
        return Ok(wanted);
    }
    let client = context.api_client().await?;
    let mut pages =
        PageWalker::for_request(filter_request(ApiRequest::get("/v1/tenants").with_query("state", state), selection));
    let mut out = Vec::new();
    while let Some(page) = pages.next_page(&client).await? {
        let is_named = |text: &Value| wanted.iter().any(|name| text == name);
        let fits = |t: &&Value| {
            wanted.is_empty() || is_named(&t[field!(TenantView: name)]) || is_named(&t[field!(TenantView: id)])
        };
        out.extend(page.iter().filter(fits).filter_map(|t| t[field!(TenantView: name)].as_str()).map(str::to_owned));
    }
    if out.is_empty() && !selection.allow_empty {
        let detail = format!("the selection matches no tenant that is {state}");
        return Err(CommandFailure::new(CommandExit::NotFound, detail).code(ErrorKind::SelectionMatchesNobody.code()));
    }
    Ok(out)
}

/// The combined result of several single changes.
#[derive(Debug, Default)]
struct ExitTally {
    done: usize,
    failures: Vec<CommandExit>,
}

impl ExitTally {
    fn add_exit(&mut self, exit: CommandExit) {
        match exit {
            CommandExit::Done => self.done += 1,
            other => self.failures.push(other),
        }
    }

    /// A single change keeps its own exit code. Of several, some failures are partial and all are failed.
    fn combined_exit(&self) -> CommandExit {
        match (self.done, self.failures.as_slice()) {
            (_, []) => CommandExit::Done,
            (0, [only]) => *only,
            (_, all) if all.contains(&CommandExit::Interrupted) => CommandExit::Interrupted,
            (0, _) => CommandExit::Failed,
            _ => CommandExit::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_changes_come_to_one_exit_code() {
        let exit = |exits: &[CommandExit]| {
            let mut tally = ExitTally::default();
            exits.iter().for_each(|e| tally.add_exit(*e));
            tally.combined_exit()
        };
        assert_eq!(exit(&[]), CommandExit::Done);
        assert_eq!(exit(&[CommandExit::Done, CommandExit::Done]), CommandExit::Done);
        assert_eq!(exit(&[CommandExit::NotFound]), CommandExit::NotFound);
        assert_eq!(exit(&[CommandExit::Done, CommandExit::NotFound]), CommandExit::Partial);
        assert_eq!(exit(&[CommandExit::NotFound, CommandExit::Conflict]), CommandExit::Failed);
        assert_eq!(exit(&[CommandExit::Done, CommandExit::Interrupted]), CommandExit::Interrupted);
    }
}
