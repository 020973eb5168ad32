//! What every command gets: settings, both streams, and a client for the control plane.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_plane::ErrorKind;
use control_plane::config::ProcessRole;
use control_plane::serve::{AdminSocket, ServerEndpoint};
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::ApiClient;
use crate::embedded::EmbeddedFleet;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::output::CommandOutput;
use crate::settings::{CommandSettings, ProcessEnvironment};

/// A token file holds one token; a longer file is something else.
const TOKEN_BYTES_MAX: u64 = 4_096;
/// How long running steps may take when a command ends. One phase takes far less.
const DRAIN: Duration = Duration::from_secs(10);

/// The environment of one command.
pub(crate) struct CommandContext {
    pub(crate) settings: CommandSettings,
    pub(crate) environment: ProcessEnvironment,
    pub(crate) out: CommandOutput,
    pub(crate) stdin: Box<dyn Read + Send>,
    /// True when a user can be asked: both stdin and stderr are terminals.
    pub(crate) asks: bool,
    client: Option<ApiClient>,
    embedded: Option<EmbeddedFleet>,
    interrupts: Option<Signal>,
}

impl CommandContext {
    pub(crate) fn new(
        settings: CommandSettings,
        environment: ProcessEnvironment,
        out: CommandOutput,
        stdin: Box<dyn Read + Send>,
        asks: bool,
    ) -> Self {
        Self { settings, environment, out, stdin, asks, client: None, embedded: None, interrupts: None }
    }

    /// A path relative to the working directory.
    pub(crate) fn absolute_path(&self, path: &Path) -> PathBuf {
        self.environment.directory.join(path)
    }

    /// From now on, Ctrl-C is recorded for [`CommandContext::wait_for_interrupt`] and does not end the process. The
    /// requested operation may already be in the catalog, and the user must be told how to continue it.
    pub(crate) fn remember_interrupts(&mut self) -> Result<()> {
        if self.interrupts.is_none() {
            let watched = signal(SignalKind::interrupt());
            self.interrupts = Some(
                watched
                    .map_err(|e| CommandFailure::new(CommandExit::Failed, "cannot wait for signals").with_cause(e))?,
            );
        }
        Ok(())
    }

    /// Resolves at the next Ctrl-C, or at once if one was recorded.
    pub(crate) async fn wait_for_interrupt(&mut self) {
        match &mut self.interrupts {
            Some(interrupts) => drop(interrupts.recv().await),
            None => drop(tokio::signal::ctrl_c().await),
        }
    }

    /// The control plane that this command uses, found once.
    ///
    /// An address in the settings has priority, then a server that runs on the data directory, then the data directory
    /// itself.
    pub(crate) async fn api_client(&mut self) -> Result<ApiClient> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = self.find_client().await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    async fn find_client(&mut self) -> Result<ApiClient> {
        let ca = self.ca_certificates()?;
        if let Some(url) = self.settings.get("url").map(str::to_owned) {
            check_url(&url)?;
            let token = self.api_token(&url)?;
            return ApiClient::over_address(&url, token, ca.as_deref());
        }
        let data_dir = self.settings.data_dir();
        if let Some(endpoint) = control_plane::serve::find_running(&data_dir)? {
            return connect_beside(&data_dir, &endpoint, ca.as_deref());
        }
        let embedded = EmbeddedFleet::open(
            self.settings.control_plane_config(ProcessRole::Embedded)?,
            &self.environment.actor_name(),
        )
        .await?;
        let client = embedded.admin_client();
        self.embedded = Some(embedded);
        Ok(client)
    }

    fn ca_certificates(&mut self) -> Result<Option<Vec<u8>>> {
        /// All public roots together are about 200 kB.
        const CA_BYTES_MAX: u64 = 4 << 20;
        let Some(path) = self.settings.value_path("ca_file") else { return Ok(None) };
        crate::input::read_input(&path, CA_BYTES_MAX, self).map(Some)
    }

    fn api_token(&mut self, url: &str) -> Result<SecretString> {
        if let Some(file) = self.settings.get("token_file").map(PathBuf::from) {
            let bytes = crate::input::read_input(&file, TOKEN_BYTES_MAX, self)?;
            return parse_token(bytes, &file);
        }
        self.settings.token_value().ok_or_else(|| {
            CommandFailure::new(CommandExit::NotAuthorised, format!("no token is set for {url}"))
                .code(ErrorKind::Unauthenticated.code())
                .try_next("set FLEET_TOKEN, or use --token-file FILE (- is standard input)")
        })
    }

    /// Lets an embedded control plane finish its running steps. Another Ctrl-C ends the wait.
    pub(crate) async fn close(&mut self) {
        self.client = None;
        if let Some(embedded) = self.embedded.take() {
            tokio::select! {
                () = embedded.shutdown(DRAIN) => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
    }
}

/// A client for the server on this data directory, with the operator token that the server wrote there. Uses its
/// socket, or its address if it has no socket.
fn connect_beside(data_dir: &Path, endpoint: &ServerEndpoint, ca: Option<&[u8]>) -> Result<ApiClient> {
    let file = data_dir.join("operator.token");
    let bytes = std::fs::read(&file).map_err(|e| {
        CommandFailure::new(
            CommandExit::NotAuthorised,
            "a server runs on this data directory, but its operator token cannot be read",
        )
        .with_cause(format!("{}: {e}", file.display()))
        .try_next(format!("set FLEET_URL={} and FLEET_TOKEN", endpoint.admin_url))
    })?;
    let token = parse_token(bytes, &file)?;
    match endpoint.admin_socket.as_ref().and_then(|_| AdminSocket::of_data_dir(data_dir).ok()) {
        Some(socket) if socket.socket_path().exists() => ApiClient::over_socket(data_dir, socket, token),
        _ => ApiClient::over_address(&endpoint.admin_url, token, ca),
    }
}

fn parse_token(bytes: Vec<u8>, file: &Path) -> Result<SecretString> {
    let text = String::from_utf8(bytes).unwrap_or_default();
    let token = text.trim();
    if token.starts_with("tok_") {
        return Err(CommandFailure::usage_error(format!(
            "{} contains the id of a token, not its secret",
            file.display()
        ))
        .try_next("fleetctl token create --operator ROLE      # the secret is printed once"));
    }
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CommandFailure::usage_error(format!("{} contains no token", file.display())));
    }
    Ok(SecretString::from(token.to_owned()))
}

fn check_url(url: &str) -> Result<()> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let path = rest.and_then(|rest| rest.split_once('/')).map(|(_, path)| path.trim_end_matches('/'));
    if let Some(path) = path.filter(|path| path.split('/').any(|part| part == "v1")) {
        let cut = url.find(path).map_or(url, |at| &url[..at]);
        let base = path.split("v1").next().unwrap_or_default();
        let address = format!("{cut}{base}");
        return Err(CommandFailure::usage_error(
            "the address of a control plane has no /v1 in it: the commands add it",
        )
        .try_next(format!("--url {}", address.trim_end_matches('/')))
        .try_next("fleetctl config show --origin"));
    }
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['@', '?', '#']) => Ok(()),
        _ => Err(CommandFailure::usage_error(
            "the address of a control plane looks like https://host:port, without user or query",
        )
        .try_next("fleetctl config show --origin")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain() {
        for good in ["http://127.0.0.1:8081", "https://fleet.example.org/base/"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for path in ["/v1", "/v1/", "/v1/status", "/base/v1"] {
            let failure = check_url(&format!("http://127.0.0.1:8081{path}")).unwrap_err();
            let base = if path.starts_with("/base") { "/base" } else { "" };
            assert_eq!(failure.tries[0], format!("--url http://127.0.0.1:8081{base}"), "{path}");
        }
        for wrong in ["", "localhost:8081", "ftp://x", "http://", "https://user:secret@host", "http://x/?a=b"] {
            assert!(check_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_one_word() {
        use secrecy::ExposeSecret;
        assert_eq!(parse_token(b"flt_x\n".to_vec(), Path::new("f")).unwrap().expose_secret(), "flt_x");
        for wrong in [&b""[..], b"a b", b"\xff", b"a\0b"] {
            assert!(parse_token(wrong.to_vec(), Path::new("f")).is_err());
        }
    }
}
