//! One file per noun: its flags, its requests, its columns. A new noun is a file here and a line in `cli`.

pub(crate) mod adopt;
pub(crate) mod backup;
pub(crate) mod catalog;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod lifecycle;
pub(crate) mod man;
pub(crate) mod member;
pub(crate) mod migrate;
pub(crate) mod op;
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

use serde_json::Value;

use crate::args::{Change, Selection};
use crate::client::{Client, Request};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::operation;
use crate::table::{View, plain, printable};

/// What the API gives at most: fewest requests for long lists.
const PAGE_MAX: &str = "1000";

/// Walks a list page by page.
struct Pages {
    request: Request,
    cursor: Option<String>,
    ended: bool,
}

impl Pages {
    fn of(request: Request) -> Self {
        Self { request: request.query("limit", PAGE_MAX), cursor: None, ended: false }
    }

    async fn next(&mut self, client: &Client) -> Result<Option<Vec<Value>>> {
        if self.ended {
            return Ok(None);
        }
        let request = match &self.cursor {
            Some(cursor) => self.request.clone().query("cursor", cursor),
            None => self.request.clone(),
        };
        let mut page = client.json(&request).await?;
        self.cursor = page["next_cursor"].as_str().map(str::to_owned);
        self.ended = self.cursor.is_none();
        match page["items"].take() {
            Value::Array(items) => Ok(Some(items)),
            _ => Err(Failure::unexpected("the answer is no list")),
        }
    }
}

/// Prints a list as its pages arrive. The first one is fetched before anything is printed.
async fn print_pages(context: &mut Context, request: Request, view: &View) -> Result<Exit> {
    let client = context.client().await?;
    let mut pages = Pages::of(request);
    let first = pages.next(&client).await?.unwrap_or_default();
    let mut list = context.out.list(view)?;
    list.page(&first)?;
    while let Some(page) = pages.next(&client).await? {
        list.page(&page)?;
    }
    list.finish()?;
    Ok(Exit::Done)
}

/// Fetches one thing and prints it as facts.
async fn print_one(context: &mut Context, request: Request, view: &View) -> Result<Exit> {
    let client = context.client().await?;
    let item = client.json(&request).await?;
    context.out.facts(view, &item)?;
    Ok(Exit::Done)
}

/// Says that a tenant stays at its version, and why; nothing of one that is not pinned.
fn note_pin(context: &mut Context, name: &Value, pin: &Value) {
    if pin["since_at"].is_string() {
        let [at, head, since, by] = ["version", "head_version", "since_at", "operation_id"].map(|key| plain(&pin[key]));
        let at = if at.is_empty() { "no version".to_owned() } else { format!("version {at}") };
        let line = format!("{} is pinned at {at}, head {head}, since {since}, by {by}", plain(name));
        context.out.note(&printable(&line));
    }
}

/// Sends a change that is done when it is answered, and prints what it made.
async fn change_and_print(context: &mut Context, request: Request, change: &Change, view: &View) -> Result<Exit> {
    if let Some(item) = operation::change(context, request, change).await?.filter(|item| !item.is_null()) {
        context.out.item(view, &item)?;
    }
    Ok(Exit::Done)
}

/// The selection as the query of a list of tenants.
fn filtered(mut request: Request, selection: &Selection) -> Request {
    if !selection.selectors.is_empty() {
        request = request.query("labels", &selection.selectors.join(","));
    }
    if let Some(server) = &selection.server {
        request = request.query("server", server);
    }
    request
}

/// The names of the selected tenants, for verbs that act on one tenant at a time.
async fn selected_names(context: &mut Context, names: &[String], selection: &Selection) -> Result<Vec<String>> {
    selected_in(context, names, selection, "active").await
}

/// The same, where labels, servers and `--all` mean tenants in this state.
async fn selected_in(
    context: &mut Context,
    names: &[String],
    selection: &Selection,
    state: &str,
) -> Result<Vec<String>> {
    let resolved = selection.resolve(names, context, crate::args::WhenEmpty::Refuse)?;
    let listed = resolved.get("names").and_then(Value::as_array);
    if let Some(names) = listed.filter(|_| selection.selectors.is_empty() && selection.server.is_none()) {
        return Ok(names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    let wanted: Option<Vec<Value>> = listed.cloned();
    let client = context.client().await?;
    let mut pages = Pages::of(filtered(Request::get("/v1/tenants").query("state", state), selection));
    let mut out = Vec::new();
    while let Some(page) = pages.next(&client).await? {
        let fits = |t: &&Value| wanted.as_ref().is_none_or(|w| w.contains(&t["name"]) || w.contains(&t["id"]));
        out.extend(page.iter().filter(fits).filter_map(|t| t["name"].as_str()).map(str::to_owned));
    }
    if out.is_empty() && !selection.allow_empty {
        let detail = format!("the selection matches no tenant that is {state}");
        return Err(Failure::new(Exit::NotFound, detail).code("selection_matches_nobody"));
    }
    Ok(out)
}

/// What a sequence of single changes comes to.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    failures: Vec<Exit>,
}

impl Tally {
    fn add(&mut self, exit: Exit) {
        match exit {
            Exit::Done => self.done += 1,
            other => self.failures.push(other),
        }
    }

    /// One alone keeps its own code; some of several are partial; all of several are failed.
    fn exit(&self) -> Exit {
        match (self.done, self.failures.as_slice()) {
            (_, []) => Exit::Done,
            (0, [only]) => *only,
            (_, all) if all.contains(&Exit::Interrupted) => Exit::Interrupted,
            (0, _) => Exit::Failed,
            _ => Exit::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_changes_come_to_one_exit_code() {
        let exit = |exits: &[Exit]| {
            let mut tally = Tally::default();
            exits.iter().for_each(|e| tally.add(*e));
            tally.exit()
        };
        assert_eq!(exit(&[]), Exit::Done);
        assert_eq!(exit(&[Exit::Done, Exit::Done]), Exit::Done);
        assert_eq!(exit(&[Exit::NotFound]), Exit::NotFound);
        assert_eq!(exit(&[Exit::Done, Exit::NotFound]), Exit::Partial);
        assert_eq!(exit(&[Exit::NotFound, Exit::Conflict]), Exit::Failed);
        assert_eq!(exit(&[Exit::Done, Exit::Interrupted]), Exit::Interrupted);
    }
}
