//! What every command gets: settings, both streams, and the one way to a control plane.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_plane::config::Role;
use control_plane::serve::Endpoint;
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::Client;
use crate::embedded::Embedded;
use crate::error::{Exit, Failure, Result};
use crate::output::Output;
use crate::settings::{Environment, Settings};

/// A token file holds one token; more is some other file.
const TOKEN_BYTES_MAX: u64 = 4_096;
/// Running steps get this long when a command ends: one phase takes far less.
const DRAIN: Duration = Duration::from_secs(10);

/// One command's surroundings.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) environment: Environment,
    pub(crate) out: Output,
    pub(crate) stdin: Box<dyn Read + Send>,
    /// Whether a human can be asked: both stdin and stderr are a terminal.
    pub(crate) asks: bool,
    client: Option<Client>,
    embedded: Option<Embedded>,
    interrupts: Option<Signal>,
}

impl Context {
    pub(crate) fn new(
        settings: Settings,
        environment: Environment,
        out: Output,
        stdin: Box<dyn Read + Send>,
        asks: bool,
    ) -> Self {
        Self { settings, environment, out, stdin, asks, client: None, embedded: None, interrupts: None }
    }

    /// A path relative to the working directory.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.environment.directory.join(path)
    }

    /// From here on Ctrl-C does not end the process but is remembered for [`Context::interrupted`]: what is being asked
    /// for may be in the catalog already, and whoever asked must be told how to go on.
    pub(crate) fn remember_interrupts(&mut self) -> Result<()> {
        if self.interrupts.is_none() {
            let watched = signal(SignalKind::interrupt());
            self.interrupts =
                Some(watched.map_err(|e| Failure::new(Exit::Failed, "signals cannot be waited for").because(e))?);
        }
        Ok(())
    }

    /// Resolves at the next Ctrl-C, or at once for one that was remembered.
    pub(crate) async fn interrupted(&mut self) {
        match &mut self.interrupts {
            Some(interrupts) => drop(interrupts.recv().await),
            None => drop(tokio::signal::ctrl_c().await),
        }
    }

    /// The control plane this command speaks to, found once.
    ///
    /// An address that was set wins; then a server that runs on the data directory; else the data directory itself.
    pub(crate) async fn client(&mut self) -> Result<Client> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = self.connect().await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    async fn connect(&mut self) -> Result<Client> {
        let ca = self.ca()?;
        if let Some(url) = self.settings.get("url").map(str::to_owned) {
            check_url(&url)?;
            let token = self.token(&url)?;
            return Client::http(&url, token, ca.as_deref());
        }
        let data_dir = self.settings.data_dir();
        if let Some(endpoint) = control_plane::serve::running(&data_dir)? {
            return beside(&data_dir, &endpoint, ca.as_deref());
        }
        let embedded = Embedded::open(self.settings.config(Role::Embedded)?, &self.environment.actor()).await?;
        let client = embedded.client();
        self.embedded = Some(embedded);
        Ok(client)
    }

    fn ca(&mut self) -> Result<Option<Vec<u8>>> {
        /// All public roots together are about 200 kB.
        const CA_BYTES_MAX: u64 = 4 << 20;
        let Some(path) = self.settings.path("ca_file") else { return Ok(None) };
        crate::input::read(&path, CA_BYTES_MAX, self).map(Some)
    }

    fn token(&mut self, url: &str) -> Result<SecretString> {
        if let Some(file) = self.settings.get("token_file").map(PathBuf::from) {
            let bytes = crate::input::read(&file, TOKEN_BYTES_MAX, self)?;
            return as_token(bytes, &file);
        }
        self.settings.token().ok_or_else(|| {
            Failure::new(Exit::NotAuthorised, format!("there is no token for {url}"))
                .code("unauthenticated")
                .try_next("set FLEET_TOKEN, or give --token-file FILE (- is standard input)")
        })
    }

    /// Lets an embedded control plane finish what it is doing. Another Ctrl-C does not wait.
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

/// The server that holds this data directory, with the operator's token it wrote there.
fn beside(data_dir: &Path, endpoint: &Endpoint, ca: Option<&[u8]>) -> Result<Client> {
    let file = data_dir.join("operator.token");
    let bytes = std::fs::read(&file).map_err(|e| {
        Failure::new(Exit::NotAuthorised, "a server runs on this data directory, and its operator token cannot be read")
            .because(format!("{}: {e}", file.display()))
            .try_next(format!("set FLEET_URL={} and FLEET_TOKEN", endpoint.admin_url))
    })?;
    Client::http(&endpoint.admin_url, as_token(bytes, &file)?, ca)
}

fn as_token(bytes: Vec<u8>, file: &Path) -> Result<SecretString> {
    let text = String::from_utf8(bytes).unwrap_or_default();
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::usage(format!("{} holds no token", file.display())));
    }
    Ok(SecretString::from(token.to_owned()))
}

fn check_url(url: &str) -> Result<()> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['@', '?', '#']) => Ok(()),
        _ => Err(Failure::usage("the address of a control plane looks like https://host:port, without user or query")
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
        for wrong in ["", "localhost:8081", "ftp://x", "http://", "https://user:secret@host", "http://x/?a=b"] {
            assert!(check_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_one_word() {
        use secrecy::ExposeSecret;
        assert_eq!(as_token(b"flt_x\n".to_vec(), Path::new("f")).unwrap().expose_secret(), "flt_x");
        for wrong in [&b""[..], b"a b", b"\xff", b"a\0b"] {
            assert!(as_token(wrong.to_vec(), Path::new("f")).is_err());
        }
    }
}
