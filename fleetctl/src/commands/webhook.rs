//! `fleetctl webhook`: the addresses that get the fleet's events.

use clap::{Args, Subcommand};
use fleet_api::changes::ChangeOptions;
use fleet_api::webhooks::{NewWebhook, WebhookDelivery, WebhookMade, WebhookView};
use fleet_api::{field, pointer};
use fleet_client::{ApiRequest, path_segment};

use super::{change_and_print, print_pages};
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::operation;
use crate::table::{TableColumn, TableView};

const WEBHOOK: TableView = TableView {
    name: pointer!(WebhookView: id),
    columns: &[
        TableColumn::of_text("ID", pointer!(WebhookView: id)),
        TableColumn::of_text("STATE", pointer!(WebhookView: state)),
        TableColumn::of_text("URL", pointer!(WebhookView: url)).may_cut(),
        TableColumn::of_text("TENANT", pointer!(WebhookView: tenant)).may_cut(),
        TableColumn::of_text("KINDS", pointer!(WebhookView: kinds)).may_cut(),
        TableColumn::of_text("FAILURES", pointer!(WebhookView: failures)),
        TableColumn::of_time("NEXT ATTEMPT", pointer!(WebhookView: next_attempt_at)),
        TableColumn::of_time("DELIVERED", pointer!(WebhookView: delivered_at)),
        TableColumn::of_text("SENT", pointer!(WebhookView: sent_seq)).only_wide(),
        TableColumn::of_text("PRIVATE", pointer!(WebhookView: allow_private)).only_wide(),
        TableColumn::of_time("ADDED", pointer!(WebhookView: created_at)).only_wide(),
    ],
};

/// A new webhook: its secret is shown only here.
const ADDED: TableView = TableView {
    name: pointer!(WebhookMade: webhook, WebhookView: id),
    columns: &[
        TableColumn::of_text("SECRET", pointer!(WebhookMade: secret)),
        TableColumn::of_text("ID", pointer!(WebhookMade: webhook, WebhookView: id)),
        TableColumn::of_text("URL", pointer!(WebhookMade: webhook, WebhookView: url)),
        TableColumn::of_text("TENANT", pointer!(WebhookMade: webhook, WebhookView: tenant)),
        TableColumn::of_text("KINDS", pointer!(WebhookMade: webhook, WebhookView: kinds)),
    ],
};

const DELIVERY: TableView = TableView {
    name: pointer!(WebhookDelivery: message_id),
    columns: &[
        TableColumn::of_time("AT", pointer!(WebhookDelivery: at)),
        TableColumn::of_text("EVENT", pointer!(WebhookDelivery: event_seq)),
        TableColumn::of_text("KIND", pointer!(WebhookDelivery: kind)),
        TableColumn::of_text("ATTEMPT", pointer!(WebhookDelivery: attempt)),
        TableColumn::of_text("RESULT", pointer!(WebhookDelivery: result)),
        TableColumn::of_text("STATUS", pointer!(WebhookDelivery: status)),
        TableColumn::of_text("MS", pointer!(WebhookDelivery: duration_ms)),
        TableColumn::of_text("ERROR", pointer!(WebhookDelivery: error)).may_cut(),
        TableColumn::of_text("MESSAGE", pointer!(WebhookDelivery: message_id)).only_wide(),
    ],
};

/// Commands of webhooks.
#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Send events to an address; the secret that verifies them is printed once
    Add(WebhookAddArgs),
    /// List webhooks, never their secrets
    List,
    /// Remove a webhook; events that it has not got are not sent
    Remove(WebhookChangeArgs),
    /// Send nothing until the webhook is resumed; its place in the events is kept
    Pause(WebhookChangeArgs),
    /// Send again, beginning with the events that the webhook missed
    Resume(WebhookChangeArgs),
    /// Send a signed test message now, and print the answer
    Test {
        /// The webhook's id (`whk_…`)
        webhook: String,
    },
    /// List the latest attempts of a webhook, newest first
    Log {
        /// The webhook's id (`whk_…`)
        webhook: String,
    },
}

/// Flags of `webhook add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl webhook add https://receiver.example/fleet
  fleetctl webhook add https://receiver.example/fleet --kind tenant.created --kind tenant.deleted
  fleetctl webhook add http://10.0.0.7:9000/ --allow-private --tenant acme")]
pub(crate) struct WebhookAddArgs {
    /// Address that gets the events, https://…
    // Not named `url`, which is the flag of every command.
    #[arg(value_name = "URL")]
    address: String,
    /// Only events of this kind, for instance tenant.created; may be repeated
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Only events about this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Also allow plain HTTP, and addresses of this machine and of private networks
    #[arg(long)]
    allow_private: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of a change of one webhook.
#[derive(Debug, Args)]
pub(crate) struct WebhookChangeArgs {
    /// The webhook's id (`whk_…`)
    webhook: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `fleetctl webhook …`.
pub(crate) async fn run_webhook_command(verb: WebhookCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        WebhookCommand::Add(args) => add_webhook(args, context).await,
        WebhookCommand::List => print_pages(context, ApiRequest::get("/v1/webhooks"), &WEBHOOK).await,
        WebhookCommand::Remove(args) => {
            let request = ApiRequest::delete(webhook_path(&args.webhook)?);
            change_and_print(context, request, &args.change, &WEBHOOK).await
        }
        WebhookCommand::Pause(args) => change_state(&args, "pause", context).await,
        WebhookCommand::Resume(args) => change_state(&args, "resume", context).await,
        WebhookCommand::Test { webhook } => test_webhook(&webhook, context).await,
        WebhookCommand::Log { webhook } => {
            let request = ApiRequest::get(format!("{}/deliveries", webhook_path(&webhook)?));
            print_pages(context, request, &DELIVERY).await
        }
    }
}

async fn add_webhook(args: WebhookAddArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let new = NewWebhook {
        url: args.address,
        kinds: args.kinds,
        tenant: args.tenant,
        allow_private: args.allow_private,
        ..NewWebhook::default()
    };
    let request = ApiRequest::post("/v1/webhooks", &new);
    if let Some(made) = operation::send_change(context, request, &args.change).await? {
        context.out.print_facts(&ADDED, &made)?;
    }
    Ok(CommandExit::Done)
}

async fn change_state(args: &WebhookChangeArgs, verb: &str, context: &mut CommandContext) -> Result<CommandExit> {
    let request = ApiRequest::post(format!("{}/{verb}", webhook_path(&args.webhook)?), &ChangeOptions::default());
    change_and_print(context, request, &args.change, &WEBHOOK).await
}

/// Fails when the receiver did not accept the message, so that a script notices.
async fn test_webhook(webhook: &str, context: &mut CommandContext) -> Result<CommandExit> {
    let request = ApiRequest::post(format!("{}/test", webhook_path(webhook)?), &serde_json::json!({}));
    let client = context.api_client().await?;
    let delivery = client.send_for_json(&request).await?;
    context.out.print_facts(&DELIVERY, &delivery)?;
    match delivery[field!(WebhookDelivery: error)].is_null() {
        true => Ok(CommandExit::Done),
        false => Ok(CommandExit::Failed),
    }
}

fn webhook_path(webhook: &str) -> Result<String> {
    Ok(format!("/v1/webhooks/{}", path_segment(webhook)?))
}
