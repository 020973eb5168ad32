//! `fleetctl dev`: a fleet to play with, in one command.
//!
//! What is missing is made through the same API everybody uses: the example's release, two tenants with a member each,
//! their tokens. What is there is served as it is.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use control_plane::App;
use control_plane::config::Role;
use control_plane::serve::{Endpoint, Options};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::serve::{Listeners, Signals, free, log, refuse_url, start};
use crate::client::{Client, Request};
use crate::context::Context;
use crate::embedded::Embedded;
use crate::error::{Exit, Failure, Result};

/// The example application's schema.
const MIGRATIONS: &[(&str, &str)] =
    &[("0001_tasks.sql", include_str!("../../../migrations/example/sqlite/0001_tasks.sql"))];
/// Tenants with their only member.
const TENANTS: [(&str, &str); 2] = [("acme", "alice"), ("globex", "bob")];
/// Longest wait for one tenant to be made; it takes milliseconds.
const CREATE_SECONDS_MAX: &str = "60";

/// Flags of `dev`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl dev
  fleetctl dev --data-dir /tmp/play --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0

A second `dev` on the same directory serves what is there.")]
pub(crate) struct Dev {
    #[command(flatten)]
    pub(crate) listeners: Listeners,
}

/// Secrets of the example's members, kept so that a second `dev` prints the same lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    tokens: Vec<SavedToken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedToken {
    tenant: String,
    secret: String,
}

/// Runs `fleetctl dev`.
pub(crate) async fn run(_args: &Dev, context: &mut Context) -> Result<Exit> {
    refuse_url(context, "dev")?;
    let config = context.settings.config(Role::Serving)?;
    // The lines to paste should not drown in the log.
    context.settings.set_default("log", "warn");
    log(context)?;
    let data_dir = config.data_dir.clone();
    free(&data_dir)?;
    App::init(&config).await?;
    let fleet = Embedded::open(config, &context.environment.actor()).await?;
    let example = Example { admin: fleet.client(), fleet: &fleet, file: data_dir.join("dev.json") };
    let saved = example.ensure().await?;
    let ports = "fleetctl dev --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0      # any free ports";
    let signals = Signals::watch()?;
    let serving = start(fleet.app(), Options::default()).await.map_err(|failure| failure.try_next(ports))?;
    let operator = std::fs::read_to_string(data_dir.join("operator.token")).unwrap_or_default();
    context.out.text(&welcome(&data_dir, serving.endpoint(), &saved, operator.trim()))?;
    context.out.flush()?;
    signals.end(serving).await
}

/// The example's parts, each made if it is missing.
struct Example<'f> {
    admin: Client,
    fleet: &'f Embedded,
    file: PathBuf,
}

impl Example<'_> {
    async fn ensure(&self) -> Result<Saved> {
        let old = read_saved(&self.file)?;
        if old.is_none() && !self.is_empty().await? {
            // Somebody's fleet, not an example: nothing is added to it.
            return Ok(Saved::default());
        }
        let old = old.unwrap_or_default();
        self.release().await?;
        let mut saved = Saved::default();
        for (tenant, member) in TENANTS {
            let new = self.tenant(tenant, member).await?;
            let known = old.tokens.iter().find(|t| t.tenant == tenant).map(|t| t.secret.clone());
            let secret = self.token(tenant, member, known).await?;
            if new {
                self.sample(tenant, &secret).await?;
            }
            saved.tokens.push(SavedToken { tenant: tenant.to_owned(), secret });
        }
        if saved != old {
            write_saved(&self.file, &saved)?;
        }
        Ok(saved)
    }

    async fn is_empty(&self) -> Result<bool> {
        let page = self.admin.json(&Request::get("/v1/tenants?limit=1")).await?;
        Ok(page["items"].as_array().is_none_or(Vec::is_empty))
    }

    /// The example's schema becomes current only where none is.
    async fn release(&self) -> Result<()> {
        let status = self.admin.json(&Request::get("/v1/migrations/status")).await?;
        if !status["head"].is_null() {
            return Ok(());
        }
        let files: Vec<_> = MIGRATIONS.iter().map(|(name, sql)| json!({"name": name, "sql": sql})).collect();
        let release = self.admin.json(&Request::post("/v1/releases", json!({"files": files}))).await?;
        let id = release["id"].as_str().ok_or_else(|| Failure::unexpected("the new release has no id"))?;
        self.admin.json(&Request::post(format!("/v1/releases/{id}/activate"), json!({}))).await.map(drop)
    }

    /// True when it was made now.
    async fn tenant(&self, name: &str, member: &str) -> Result<bool> {
        let path = format!("/v1/tenants/{name}");
        match self.admin.json(&Request::get(path.as_str())).await {
            Ok(_) => return Ok(false),
            Err(failure) if failure.exit == Exit::NotFound => {}
            Err(failure) => return Err(failure),
        }
        let made = self.admin.json(&Request::post("/v1/tenants", json!({"name": name}))).await?;
        let op =
            made["operation"]["id"].as_str().ok_or_else(|| Failure::unexpected("the new tenant has no operation"))?;
        let wait = Request::get(format!("/v1/operations/{op}")).query("wait_seconds", CREATE_SECONDS_MAX);
        let operation = self.admin.json(&wait).await?;
        if operation["state"] != "succeeded" {
            return Err(Failure::new(Exit::Failed, format!("the tenant {name} could not be made"))
                .try_next(format!("fleetctl op get {op} --steps")));
        }
        let body = json!({"principal": member, "role": "manager"});
        self.admin.json(&Request::post(format!("{path}/members"), body)).await?;
        Ok(true)
    }

    /// The known secret if it still opens the tenant, else a new one.
    async fn token(&self, tenant: &str, member: &str, known: Option<String>) -> Result<String> {
        if let Some(secret) = known
            && self.query(tenant, &secret, &json!({"sql": "select 1"})).await?
        {
            return Ok(secret);
        }
        let body = json!({"member": member, "label": format!("dev: {member} of {tenant}")});
        let made = self.admin.json(&Request::post("/v1/tokens", body)).await?;
        made["secret"].as_str().map(str::to_owned).ok_or_else(|| Failure::unexpected("the new token has no secret"))
    }

    async fn sample(&self, tenant: &str, secret: &str) -> Result<()> {
        for title in [format!("Welcome to {tenant}"), "Invite the team".to_owned()] {
            let body = json!({"sql": "insert into tasks (title) values (?1)", "params": [title]});
            self.query(tenant, secret, &body).await?;
        }
        Ok(())
    }

    /// Whether the data API answers this with success.
    async fn query(&self, tenant: &str, secret: &str, body: &Value) -> Result<bool> {
        let client = self.fleet.data(secret.to_owned().into());
        match client.json(&Request::post(format!("/t/{tenant}/query"), body.clone())).await {
            Ok(_) => Ok(true),
            Err(failure) if matches!(failure.exit, Exit::NotAuthorised | Exit::NotFound) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

fn read_saved(file: &Path) -> Result<Option<Saved>> {
    let unusable = |why: String| {
        Failure::new(Exit::Failed, format!("cannot use {}", file.display()))
            .because(why)
            .try_next("remove it: its tokens are made anew")
    };
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| unusable(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unusable(e.to_string())),
    }
}

/// Readable by its owner only, and whole or not at all.
fn write_saved(file: &Path, saved: &Saved) -> Result<()> {
    let part = file.with_extension("json.part");
    let write = || {
        let text = serde_json::to_string_pretty(saved).map_err(std::io::Error::other)?;
        let _ = std::fs::remove_file(&part);
        let mut out = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&part)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&part, file)
    };
    write().map_err(|e: std::io::Error| Failure::new(Exit::Failed, "cannot keep the tokens").because(e))
}

/// What a newcomer reads: addresses, and lines to paste.
fn welcome(data_dir: &Path, endpoint: &Endpoint, saved: &Saved, operator: &str) -> String {
    let (data, admin) = (&endpoint.data_url, &endpoint.admin_url);
    let mut out =
        format!("A fleet in {}. Stop with Ctrl-C.\n\n  data   {data}\n  admin  {admin}\n\n", data_dir.display());
    let curl = |flags: &str, path: &str, secret: &str, body: &str| {
        format!(
            "curl {flags} {data}{path} -H 'Authorization: Bearer {secret}' -H 'Content-Type: application/json' -d '{body}'\n\n"
        )
    };
    if let Some(acme) = saved.tokens.iter().find(|t| t.tenant == "acme").map(|t| t.secret.as_str()) {
        out.push_str("# acme's tasks\n");
        out.push_str(&curl("-s", "/t/acme/query", acme, r#"{"sql":"select id, title, done from tasks"}"#));
        out.push_str("# one more\n");
        let insert = r#"{"sql":"insert into tasks (title) values (?1)","params":["Read the README"]}"#;
        out.push_str(&curl("-s", "/t/acme/query", acme, insert));
        out.push_str("# globex with acme's token: 404, as if there were no such tenant\n");
        out.push_str(&curl("-si", "/t/globex/query", acme, r#"{"sql":"select id, title, done from tasks"}"#));
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
        let saved = Saved { tokens: vec![SavedToken { tenant: "acme".into(), secret: "flt_x".into() }] };
        write_saved(&file, &saved).unwrap();
        write_saved(&file, &saved).unwrap();
        assert_eq!(read_saved(&file).unwrap(), Some(saved));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "{").unwrap();
        assert!(read_saved(&file).is_err());
    }

    #[test]
    fn every_line_can_be_pasted() {
        let endpoint = Endpoint { data_url: "http://d".into(), admin_url: "http://a".into(), pid: 1 };
        let saved = Saved { tokens: vec![SavedToken { tenant: "acme".into(), secret: "flt_x".into() }] };
        let text = welcome(Path::new("/x"), &endpoint, &saved, "flt_op");
        let lines: Vec<_> = text.lines().filter(|l| l.starts_with("curl ")).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|l| l.matches('\'').count() % 2 == 0), "{text}");
        assert!(lines[3].contains("flt_op") && !lines[0].contains("flt_op"));
    }
}
