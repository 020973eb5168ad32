//! `fleetctl tenant`: make, list, label, protect and delete tenants; the rest of their lives is in `lifecycle.rs`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::adopt::Adopt;
use super::{Pages, Tally, filtered, note_pin, selected_names};
use crate::args::{Change, Confirm, Labels, Selection, Wait, labels, pairs};
use crate::client::{Client, Request, segment};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::input;
use crate::operation::{self, Print, Started};
use crate::table::{Column, View};

/// What the API takes in one batch.
const BATCH_MAX: usize = 50_000;

/// How tenants are listed.
pub(crate) const TENANT: View = View {
    name: "/name",
    columns: &[
        Column::text("NAME", "/name"),
        Column::text("STATE", "/state"),
        Column::text("ENGINE", "/engine"),
        Column::text("SERVER", "/server"),
        Column::text("VERSION", "/schema_version"),
        Column::text("PINNED BELOW", "/pin/head_version").wide(),
        Column::time("PINNED SINCE", "/pin/since_at").wide(),
        Column::text("PINNED BY", "/pin/operation_id").wide(),
        Column::bytes("SIZE", "/size_bytes"),
        Column::labels("LABELS", "/labels"),
        Column::time("CREATED", "/created_at"),
        Column::text("ID", "/id").wide(),
        Column::text("GENERATION", "/generation").wide(),
        Column::text("PROTECTED", "/protected").wide(),
        Column::text("BLOCKED", "/block_writes").wide(),
        Column::text("WHY", "/state_reason").wide(),
        Column::text("OPERATION", "/operation_id").wide(),
        Column::time("PURGED AFTER", "/purge_after_at").wide(),
    ],
};

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make tenants
    Create(Create),
    /// Make a tenant of a Postgres database that exists already
    Adopt(Adopt),
    /// List tenants
    List(List),
    /// Show one tenant
    Get {
        /// Its name or id
        tenant: String,
    },
    /// Set or remove labels
    Label(Label),
    /// Refuse deletion (or allow it again)
    Protect(Protect),
    /// Delete tenants: a last verified backup is taken, and the name stays reserved
    Delete(Delete),
    #[command(flatten)]
    Lifecycle(super::lifecycle::Verb),
}

/// Flags of `tenant create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant create acme
  fleetctl tenant create acme globex -l plan=pro,region=eu
  fleetctl tenant create --from-file names.txt
  cut -d, -f1 customers.csv | fleetctl tenant create --from-file - --if-exists skip")]
pub(crate) struct Create {
    /// Names: 1 to 63 of a-z, 0-9 and hyphen
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Names from this file, one per line; - is standard input
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Labels of every tenant made
    #[arg(short = 'l', long = "label", value_name = "K=V,…", value_parser = labels)]
    labels: Option<Labels>,
    /// Where the databases live; the one with most room if not given
    #[arg(long)]
    server: Option<String>,
    /// What to do about names that are taken
    #[arg(long, value_enum, default_value_t = IfExists::Error)]
    if_exists: IfExists,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// What `tenant create` does about names that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum IfExists {
    /// Refuse, and make none of them
    Error,
    /// Leave them as they are
    Skip,
}

/// Flags of `tenant list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant list
  fleetctl tenant list -l plan=pro -o name
  fleetctl tenant list --state deleted -o wide")]
pub(crate) struct List {
    /// Only tenants with these names
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Only tenants in this state (active, suspended, deleted, …)
    #[arg(long)]
    state: Option<String>,
}

/// Flags of `tenant label`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant label acme plan=pro region=eu
  fleetctl tenant label acme region-              # removes it
  fleetctl tenant label -l plan=trial tier=free")]
pub(crate) struct Label {
    /// Tenants and changes: names, `key=value`, `key-`
    #[arg(value_name = "TENANT|KEY=VALUE|KEY-", required = true)]
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
}

/// Flags of `tenant protect`.
#[derive(Debug, Args)]
pub(crate) struct Protect {
    /// Names or ids
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Allow deletion again
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    change: Change,
}

/// Flags of `tenant delete`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl tenant delete acme --yes
  fleetctl tenant delete -l plan=trial --yes --expect-count 12")]
pub(crate) struct Delete {
    /// Names or ids
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    /// Take no final backup; its database can be undeleted until its purge
    #[arg(long)]
    no_backup: bool,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    wait: Wait,
}

/// Runs `fleetctl tenant …`.
pub(crate) async fn run(verb: Verb, context: &mut Context) -> Result<Exit> {
    match verb {
        Verb::Create(args) => create(args, context).await,
        Verb::Adopt(args) => super::adopt::run(args, context).await,
        Verb::List(args) => list(args, context).await,
        Verb::Get { tenant } => {
            let client = context.client().await?;
            let item = client.json(&one(&tenant)?).await?;
            context.out.facts(&TENANT, &item)?;
            note_pin(context, &item["name"], &item["pin"]);
            Ok(Exit::Done)
        }
        Verb::Label(args) => label(args, context).await,
        Verb::Protect(args) => {
            let names = selected_names(context, &args.names, &args.selection).await?;
            patch_each(context, &names, &json!({"protected": !args.off}), &args.change).await
        }
        Verb::Delete(args) => delete(args, context).await,
        Verb::Lifecycle(verb) => super::lifecycle::run(verb, context).await,
    }
}

fn one(tenant: &str) -> Result<Request> {
    Ok(Request::get(format!("/v1/tenants/{}", segment(tenant)?)))
}

async fn create(args: Create, context: &mut Context) -> Result<Exit> {
    let mut names = args.names.clone();
    if let Some(file) = &args.from_file {
        names.extend(input::listed(file, context)?);
    }
    let created = match names.as_slice() {
        [] => Err(Failure::usage("there is no name to make a tenant of").try_next("fleetctl tenant create acme")),
        [name] if args.from_file.is_none() && args.if_exists == IfExists::Error => {
            create_one(name, &args, context).await
        }
        _ => {
            // What an interrupted run reserved is no tenant yet; to skip it would call half-made ones done.
            let client = context.client().await?;
            if args.if_exists == IfExists::Skip && client.is_embedded() && !args.change.dry_run {
                crate::lock::finish_leftovers(context, &client, "create").await?;
            }
            create_many(&names, &args, context).await
        }
    };
    match created {
        Err(failure) if failure.code == "already_exists" => taken(failure, &names, &args, context).await,
        other => other,
    }
}

/// The names are taken. If it was by this very command, cut off before its end, it goes on now.
async fn taken(failure: Failure, names: &[String], args: &Create, context: &mut Context) -> Result<Exit> {
    let client = context.client().await?;
    let Some(left) = crate::lock::open_operation(&client, "create").await? else { return Err(failure) };
    let mine = client.is_embedded() && left["requested_by"] == json!(context.environment.actor());
    if !mine || args.change.dry_run || !makes_exactly(&client, &left, names).await? {
        let id = operation::id_of(&left)?;
        return Err(failure.try_first(format!("fleetctl op wait {id}      # finishes a creation that has not ended")));
    }
    context.out.note(&format!("going on with {}, which was cut off", operation::id_of(&left)?));
    operation::finish(context, &left, &args.wait, Print::Operation).await
}

/// Whether an operation's tenants are these names, no more and no fewer.
async fn makes_exactly(client: &Client, operation: &Value, names: &[String]) -> Result<bool> {
    let mut wanted: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let steps = format!("/v1/operations/{}/steps", segment(operation::id_of(operation)?)?);
    let mut pages = Pages::of(Request::get(steps));
    while let Some(page) = pages.next(client).await? {
        if page.iter().any(|step| !step["tenant"].as_str().is_some_and(|name| wanted.remove(name))) {
            return Ok(false);
        }
    }
    Ok(wanted.is_empty())
}

fn described(name: &str, args: &Create) -> Value {
    let mut out = json!({"name": name});
    if let Some(labels) = &args.labels {
        out["labels"] = pairs(labels);
    }
    out
}

async fn create_one(name: &str, args: &Create, context: &mut Context) -> Result<Exit> {
    let mut body = described(name, args);
    if let Some(server) = &args.server {
        body["server"] = json!(server);
    }
    let request = Request::post("/v1/tenants", body);
    let Started::Answer(answer) = operation::start(context, request, &args.change, &args.wait).await? else {
        return Ok(Exit::Done);
    };
    finish_created(context, &answer, name, &args.wait).await
}

/// Waits for the operation that makes a tenant, and shows the tenant.
pub(super) async fn finish_created(context: &mut Context, answer: &Value, name: &str, wait: &Wait) -> Result<Exit> {
    let exit = operation::finish(context, &answer["operation"], wait, Print::Nothing).await?;
    if exit == Exit::Done && !wait.no_wait {
        let client = context.client().await?;
        let id = answer["tenant"]["id"].as_str().unwrap_or(name);
        let tenant = client.json(&one(id)?).await?;
        context.out.item(&TENANT, &tenant)?;
    }
    Ok(exit)
}

async fn create_many(names: &[String], args: &Create, context: &mut Context) -> Result<Exit> {
    let mut tally = Tally::default();
    for batch in names.chunks(BATCH_MAX) {
        let tenants: Vec<_> = batch.iter().map(|name| described(name, args)).collect();
        let if_exists = if args.if_exists == IfExists::Skip { "skip" } else { "error" };
        let mut body = json!({"tenants": tenants, "if_exists": if_exists});
        if let Some(server) = &args.server {
            body["server"] = json!(server);
        }
        let exit = operation::run(context, Request::post("/v1/tenants/batch", body), &args.change, &args.wait).await?;
        tally.add(exit);
        if exit == Exit::Interrupted {
            break;
        }
    }
    Ok(tally.exit())
}

async fn list(args: List, context: &mut Context) -> Result<Exit> {
    let selection = args.selection.resolve(&args.names, context, crate::args::WhenEmpty::All)?;
    let mut request = filtered(Request::get("/v1/tenants"), &args.selection);
    if let Some(state) = &args.state {
        request = request.query("state", state);
    }
    match selection.get("names").and_then(Value::as_array) {
        None => super::print_pages(context, request, &TENANT).await,
        Some(names) => list_named(context, request, names).await,
    }
}

/// The API filters by one name at a time.
async fn list_named(context: &mut Context, request: Request, names: &[Value]) -> Result<Exit> {
    let client = context.client().await?;
    let mut items = Vec::new();
    let mut tally = Tally::default();
    for name in names.iter().filter_map(Value::as_str) {
        match Pages::of(request.clone().query("name", name)).next(&client).await {
            Ok(Some(found)) if !found.is_empty() => {
                items.extend(found);
                tally.add(Exit::Done);
            }
            Ok(_) => {
                context.out.complain(&format!("error: the tenant {name:?} does not fit the other filters"));
                context.out.complain(&format!("try:   fleetctl tenant get {name}"));
                tally.add(Exit::NotFound);
            }
            Err(failure) if failure.exit == Exit::NotFound => {
                context.out.failure(&failure);
                tally.add(Exit::NotFound);
            }
            Err(failure) => return Err(failure),
        }
    }
    let mut list = context.out.list(&TENANT)?;
    list.page(&items)?;
    list.finish()?;
    Ok(tally.exit())
}

async fn label(args: Label, context: &mut Context) -> Result<Exit> {
    let (changes, names): (Vec<_>, Vec<_>) = args.words.into_iter().partition(|w| w.contains('=') || w.ends_with('-'));
    if changes.is_empty() {
        return Err(Failure::usage("no label is given").try_next("fleetctl tenant label acme plan=pro"));
    }
    let change = |word: &String| match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), json!(value)),
        None => (word.trim_end_matches('-').to_owned(), Value::Null),
    };
    let labels: Map<_, _> = changes.iter().map(change).collect();
    if labels.keys().any(String::is_empty) {
        return Err(Failure::usage("a label needs a key").try_next("fleetctl tenant label acme plan=pro"));
    }
    let names = selected_names(context, &names, &args.selection).await?;
    patch_each(context, &names, &json!({"labels": labels}), &args.change).await
}

/// The same change of each tenant; those that fail are named, the others are done.
async fn patch_each(context: &mut Context, names: &[String], body: &Value, change: &Change) -> Result<Exit> {
    let mut tally = Tally::default();
    let mut changed = Vec::new();
    for name in names {
        let request = Request::patch(format!("/v1/tenants/{}", segment(name)?), body.clone());
        match operation::change(context, request, change).await {
            Ok(tenant) => {
                changed.extend(tenant);
                tally.add(Exit::Done);
            }
            Err(failure) if names.len() > 1 && failure.exit != Exit::Unreachable => {
                context.out.complain(&format!("error: {name}: {}", failure.what));
                tally.add(failure.exit);
            }
            Err(failure) => return Err(failure),
        }
    }
    if !change.dry_run {
        let mut list = context.out.list(&TENANT)?;
        list.page(&changed)?;
        list.finish()?;
    }
    Ok(tally.exit())
}

async fn delete(args: Delete, context: &mut Context) -> Result<Exit> {
    let names = selected_names(context, &args.names, &args.selection).await?;
    input::expected(&args.confirm, &names)?;
    if !args.change.dry_run {
        input::confirm(context, &args.confirm, "delete", &names)?;
    }
    let mut tally = Tally::default();
    for name in &names {
        let query = if args.no_backup { "?no_backup=true" } else { "" };
        let request = Request::delete(format!("/v1/tenants/{}{query}", segment(name)?));
        match operation::run(context, request, &args.change, &args.wait).await {
            Ok(exit) => tally.add(exit),
            Err(failure) if names.len() > 1 && failure.exit != Exit::Unreachable => {
                context.out.complain(&format!("error: {name}: {}", failure.what));
                tally.add(failure.exit);
            }
            Err(failure) => return Err(failure),
        }
        if tally.exit() == Exit::Interrupted {
            break;
        }
    }
    Ok(tally.exit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::plain;

    #[test]
    fn a_tenant_is_described_with_its_labels() {
        let args = Create {
            names: vec![],
            from_file: None,
            labels: Some(vec![("plan".into(), "pro".into())]),
            server: None,
            if_exists: IfExists::Error,
            change: Change::default(),
            wait: Wait::default(),
        };
        assert_eq!(described("acme", &args), json!({"name": "acme", "labels": {"plan": "pro"}}));
        assert_eq!(plain(&described("acme", &args)["labels"]), "plan=pro");
    }
}
