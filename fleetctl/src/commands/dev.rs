//! `fleetctl dev`: starts an example fleet with one command.
//!
//! Creates missing parts through the public API: the example's release, two tenants with one member each, and their
//! tokens. Existing parts are served unchanged.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use control_plane::App;
use control_plane::config::{Config, DataPath, ProcessRole};
use control_plane::serve::{ServeOptions, ServerEndpoint};
use fleet_api::changes::ChangeOptions;
use fleet_api::field;
use fleet_api::members::NewMember;
use fleet_api::migrations::MigrationStatus;
use fleet_api::operations::OperationView;
use fleet_api::pages::PageOf;
use fleet_api::releases::{NewRelease, ReleaseFile, ReleaseView};
use fleet_api::tenants::{NewTenantRequest, TenantCreated};
use fleet_api::tokens::{TokenMade, TokenWanted};
use fleet_client::ApiRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::serve::{
    HangupSignal, ListenerArgs, ServerSignals, refuse_url, require_unserved, set_up_log, start_serving,
};
use crate::client::ApiClient;
use crate::context::CommandContext;
use crate::embedded::EmbeddedFleet;
use crate::error::{CommandExit, CommandFailure, Result};

/// The example application's schema.
const MIGRATIONS: &[(&str, &str)] =
    &[("0001_tasks.sql", include_str!("../../../migrations/example/sqlite/0001_tasks.sql"))];
/// The example's tenants, each with its only member.
const TENANTS: [(&str, &str); 2] = [("acme", "alice"), ("globex", "bob")];
/// Maximum wait for the creation of one tenant, which takes milliseconds.
const CREATE_SECONDS_MAX: &str = "60";

/// Flags of `dev`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl dev
  fleetctl dev --data-dir /tmp/play --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0

A second `dev` on the same directory serves the existing fleet.")]
pub(crate) struct DevArgs {
    #[command(flatten)]
    pub(crate) listeners: ListenerArgs,
}

/// The tokens of the example's members, saved so that a second `dev` prints the same lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SavedTokens {
    tokens: Vec<SavedToken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedToken {
    tenant: String,
    secret: String,
}

/// Runs `fleetctl dev`.
pub(crate) async fn run_dev_command(_args: &DevArgs, context: &mut CommandContext) -> Result<CommandExit> {
    refuse_url(context, "dev")?;
    let hangup = HangupSignal::watch_hangup()?;
    let config = context.settings.control_plane_config(ProcessRole::Serving)?;
    // A quiet log keeps the printed commands visible.
    context.settings.set_default("log", "warn");
    set_up_log(context)?;
    let data_dir = config.data_dir.clone();
    require_unserved(&data_dir)?;
    App::init_fleet(&config).await?;
    let fleet = EmbeddedFleet::open(config.clone(), &context.environment.actor_name()).await?;
    let example = ExampleFleet { admin: fleet.admin_client(), fleet: &fleet, file: data_dir.join("dev.json") };
    let saved = example.ensure_example().await?;
    let ports = "fleetctl dev --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0      # any free ports";
    let signals = ServerSignals::watch_signals(hangup)?;
    let serving =
        start_serving(fleet.app(), ServeOptions::default()).await.map_err(|failure| failure.try_next(ports))?;
    let operator = std::fs::read_to_string(data_dir.join("operator.token")).unwrap_or_default();
    context.out.print_text(&welcome_text(&config, serving.server_endpoint(), &saved, operator.trim()))?;
    context.out.flush_stdout()?;
    signals.serve_until_signal(serving).await
}

/// The parts of the example, each created if it is missing.
struct ExampleFleet<'f> {
    admin: ApiClient,
    fleet: &'f EmbeddedFleet,
    file: PathBuf,
}

impl ExampleFleet<'_> {
    async fn ensure_example(&self) -> Result<SavedTokens> {
        let old = read_saved(&self.file)?;
        if old.is_none() && !self.is_empty().await? {
            // This fleet is not an example, so nothing is added to it.
            return Ok(SavedTokens::default());
        }
        let old = old.unwrap_or_default();
        self.ensure_release().await?;
        let mut saved = SavedTokens::default();
        for (tenant, member) in TENANTS {
            let new = self.ensure_tenant(tenant, member).await?;
            let known = old.tokens.iter().find(|t| t.tenant == tenant).map(|t| t.secret.clone());
            let secret = self.ensure_token(tenant, member, known).await?;
            if new {
                self.insert_sample_rows(tenant, &secret).await?;
            }
            saved.tokens.push(SavedToken { tenant: tenant.to_owned(), secret });
        }
        if saved != old {
            write_saved(&self.file, &saved)?;
        }
        Ok(saved)
    }

    async fn is_empty(&self) -> Result<bool> {
        let page = self.admin.send_for_json(&ApiRequest::get("/v1/tenants?limit=1")).await?;
        Ok(page[field!(PageOf<Value>: items)].as_array().is_none_or(Vec::is_empty))
    }

    /// Activates the example's schema only in a fleet without a current release.
    async fn ensure_release(&self) -> Result<()> {
        let status = self.admin.send_for_json(&ApiRequest::get("/v1/migrations/status")).await?;
        if !status[field!(MigrationStatus: head)].is_null() {
            return Ok(());
        }
        let file = |(name, sql): &(&str, &str)| ReleaseFile { name: (*name).to_owned(), sql: (*sql).to_owned() };
        let new = NewRelease { files: MIGRATIONS.iter().map(file).collect(), ..NewRelease::default() };
        let release = self.admin.send_for_json(&ApiRequest::post("/v1/releases", &new)).await?;
        let id = release[field!(ReleaseView: id)]
            .as_str()
            .ok_or_else(|| CommandFailure::unexpected_answer("the new release has no id"))?;
        self.admin
            .send_for_json(&ApiRequest::post(format!("/v1/releases/{id}/activate"), &ChangeOptions::default()))
            .await
            .map(drop)
    }

    /// True when the tenant was created by this call.
    async fn ensure_tenant(&self, name: &str, member: &str) -> Result<bool> {
        let path = format!("/v1/tenants/{name}");
        match self.admin.send_for_json(&ApiRequest::get(path.as_str())).await {
            Ok(_) => return Ok(false),
            Err(failure) if failure.exit == CommandExit::NotFound => {}
            Err(failure) => return Err(failure),
        }
        let new = NewTenantRequest { name: name.to_owned(), ..NewTenantRequest::default() };
        let made = self.admin.send_for_json(&ApiRequest::post("/v1/tenants", &new)).await?;
        let op = made[field!(TenantCreated: operation)][field!(OperationView: id)]
            .as_str()
            .ok_or_else(|| CommandFailure::unexpected_answer("the new tenant has no operation"))?;
        let wait = ApiRequest::get(format!("/v1/operations/{op}")).with_query("wait_seconds", CREATE_SECONDS_MAX);
        let operation = self.admin.send_for_json(&wait).await?;
        if operation[field!(OperationView: state)] != "succeeded" {
            return Err(CommandFailure::new(CommandExit::Failed, format!("the tenant {name} could not be created"))
                .try_next(format!("fleetctl op get {op} --steps")));
        }
        let new = NewMember { principal: member.to_owned(), role: "manager".to_owned(), ..NewMember::default() };
        self.admin.send_for_json(&ApiRequest::post(format!("{path}/members"), &new)).await?;
        Ok(true)
    }

    /// The saved token if it still opens the tenant, otherwise a new one.
    async fn ensure_token(&self, tenant: &str, member: &str, known: Option<String>) -> Result<String> {
        if let Some(secret) = known
            && self.query_tenant(tenant, &secret, &json!({"sql": "select 1"})).await?
        {
            return Ok(secret);
        }
        let label = Some(format!("dev: {member} of {tenant}"));
        let wanted = TokenWanted { member: Some(member.to_owned()), label, ..TokenWanted::default() };
        let made = self.admin.send_for_json(&ApiRequest::post("/v1/tokens", &wanted)).await?;
        made[field!(TokenMade: secret)]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| CommandFailure::unexpected_answer("the new token has no secret"))
    }

    async fn insert_sample_rows(&self, tenant: &str, secret: &str) -> Result<()> {
        for title in [format!("Welcome to {tenant}"), "Invite the team".to_owned()] {
            let body = json!({"sql": "insert into tasks (title) values (?1)", "params": [title]});
            self.query_tenant(tenant, secret, &body).await?;
        }
        Ok(())
    }

    fn query_path(&self, tenant: &str) -> String {
        query_path(&self.fleet.app().config.data_path, tenant)
    }

    /// True when the data API answers this query with success.
    async fn query_tenant(&self, tenant: &str, secret: &str, body: &Value) -> Result<bool> {
        let client = self.fleet.data_client(secret.to_owned().into());
        match client.send_for_json(&ApiRequest::post(self.query_path(tenant), body)).await {
            Ok(_) => Ok(true),
            Err(failure) if matches!(failure.exit, CommandExit::NotAuthorised | CommandExit::NotFound) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

fn read_saved(file: &Path) -> Result<Option<SavedTokens>> {
    let unusable = |why: String| {
        CommandFailure::new(CommandExit::Failed, format!("cannot use {}", file.display()))
            .with_cause(why)
            .try_next("remove it: new tokens will be created")
    };
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| unusable(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unusable(e.to_string())),
    }
}

/// Writes the tokens atomically, readable only by the file's owner.
fn write_saved(file: &Path, saved: &SavedTokens) -> Result<()> {
    let part = file.with_extension("json.part");
    let write = || {
        let text = serde_json::to_string_pretty(saved).map_err(std::io::Error::other)?;
        let _ = std::fs::remove_file(&part);
        let mut out = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&part)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&part, file)
    };
    write()
        .map_err(|e: std::io::Error| CommandFailure::new(CommandExit::Failed, "cannot save the tokens").with_cause(e))
}

fn query_path(path: &DataPath, tenant: &str) -> String {
    format!("{}/query", path.of_tenant(tenant))
}

/// The text for newcomers: addresses, and commands to paste.
fn welcome_text(config: &Config, endpoint: &ServerEndpoint, saved: &SavedTokens, operator: &str) -> String {
    let (data, admin) = (&endpoint.data_url, &endpoint.admin_url);
    let mut out =
        format!("A fleet in {}. Stop with Ctrl-C.\n\n  data   {data}\n  admin  {admin}\n\n", config.data_dir.display());
    let query = |tenant| query_path(&config.data_path, tenant);
    let curl = |flags: &str, path: &str, secret: &str, body: &str| {
        format!(
            "curl {flags} {data}{path} -H 'Authorization: Bearer {secret}' -H 'Content-Type: application/json' -d '{body}'\n\n"
        )
    };
    if let Some(acme) = saved.tokens.iter().find(|t| t.tenant == "acme").map(|t| t.secret.as_str()) {
        out.push_str("# acme's tasks\n");
        out.push_str(&curl("-s", &query("acme"), acme, r#"{"sql":"select id, title, done from tasks"}"#));
        out.push_str("# one more\n");
        let insert = r#"{"sql":"insert into tasks (title) values (?1)","params":["Read the README"]}"#;
        out.push_str(&curl("-s", &query("acme"), acme, insert));
        out.push_str("# globex with acme's token: 404, as if there were no such tenant\n");
        out.push_str(&curl("-si", &query("globex"), acme, r#"{"sql":"select id, title, done from tasks"}"#));
    }
    out.push_str("# the fleet\n");
    out.push_str(&format!("curl -s {admin}/v1/status -H 'Authorization: Bearer {operator}'\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_are_kept_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dev.json");
        assert_eq!(read_saved(&file).unwrap(), None);
        let saved = SavedTokens { tokens: vec![SavedToken { tenant: "acme".into(), secret: "flt_x".into() }] };
        write_saved(&file, &saved).unwrap();
        write_saved(&file, &saved).unwrap();
        assert_eq!(read_saved(&file).unwrap(), Some(saved));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "{").unwrap();
        assert!(read_saved(&file).is_err());
    }

    #[test]
    fn every_line_can_be_pasted() {
        let (data_url, admin_url) = ("http://d".into(), "http://a".into());
        let endpoint = ServerEndpoint { data_url, admin_url, pid: 1, admin_socket: None, owner: None, lock: None };
        let saved = SavedTokens { tokens: vec![SavedToken { tenant: "acme".into(), secret: "flt_x".into() }] };
        let text = welcome_text(&Config::new("/x".into(), ProcessRole::Serving), &endpoint, &saved, "flt_op");
        let lines: Vec<_> = text.lines().filter(|l| l.starts_with("curl ")).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|l| l.matches('\'').count() % 2 == 0), "{text}");
        assert!(lines[3].contains("flt_op") && !lines[0].contains("flt_op"));
    }
}
