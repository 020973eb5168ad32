//! PostgreSQL's own programs: finds them, checks their version, and runs one so that it ends when its caller stops
//! waiting. Passwords are passed only in the child's environment.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::servers::admin_connection::while_alive;
use crate::postgres::servers::logins::migrator_login;
use crate::postgres::servers::server::PostgresServer;
use crate::postgres::servers::settings::program_options;

/// The directory where Debian and its derivatives put each major version's programs.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Bytes kept of a program's complaints: the first line has the cause, the rest repeats it.
const COMPLAINT_BYTES_MAX: usize = 8 << 10;
/// Bytes of a complaint that are shown to people.
const COMPLAINT_SHOWN_MAX: usize = 400;
/// A dump or a restore of one database that takes longer is not going to end.
pub(in crate::postgres) const WHOLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A program that does not print its version in this time is hanging.
const VERSION_MAX: Duration = Duration::from_secs(20);

/// Variables that are removed from the environment of a child: only this program decides where the child connects.
const FORGOTTEN: [&str; 30] = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGDATABASE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "PGOPTIONS",
    "PGCLIENTENCODING",
    "PGTZ",
    "PGDATESTYLE",
    "PGGEQO",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGCHANNELBINDING",
    "PGGSSENCMODE",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLNEGOTIATION",
    "PGSSLMODE",
    "PGREQUIRESSL",
    "PGSSLCOMPRESSION",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
];

/// The programs, found once.
#[derive(Debug)]
pub(in crate::postgres) struct PostgresTools {
    /// `None`: the programs on the search path.
    directory: Option<PathBuf>,
    /// The major version of `pg_dump`.
    version: OnceCell<u32>,
}

/// The login with which a program connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::postgres) enum ToolLogin {
    Maintenance,
    Migrator,
}

impl PostgresTools {
    /// The programs in this directory, or the newest ones that are installed.
    pub(in crate::postgres) fn find_programs(directory: Option<PathBuf>) -> Self {
        Self { directory: directory.or_else(newest_installed), version: OnceCell::new() }
    }

    /// Refuses programs that are older than the server. The server's version is a number such as 150018.
    pub(in crate::postgres) async fn require_version(&self, server_version: u32) -> Result<()> {
        let (ours, theirs) = (self.major_version().await?, server_version / 10_000);
        if ours >= theirs {
            return Ok(());
        }
        let message = format!(
            "the pg_dump here is of PostgreSQL {ours}, the server is {theirs}: install the client programs of version \
             {theirs} or newer"
        );
        Err(Error::new(ErrorKind::ToolTooOld, message))
    }

    /// The major version of the programs.
    pub(in crate::postgres) async fn major_version(&self) -> Result<u32> {
        self.version.get_or_try_init(|| self.ask_version()).await.copied()
    }

    async fn ask_version(&self) -> Result<u32> {
        let mut command = self.program_command("pg_dump");
        let asked = command.arg("--version").output();
        let answer = tokio::time::timeout(VERSION_MAX, asked).await;
        let answer = answer
            .map_err(|_| tools_unusable("it does not report its version"))?
            .map_err(|error| program_missing(&error))?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        major_in(&text).ok_or_else(|| tools_unusable("it does not report its version"))
    }

    /// The command of a program, without variables of the environment that could change where it connects.
    pub(super) fn program_command(&self, program: &str) -> Command {
        let path = self.directory.as_deref().map_or_else(|| PathBuf::from(program), |at| at.join(program));
        let mut command = Command::new(path);
        for name in FORGOTTEN {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// The command of a program that connects to a database.
    pub(in crate::postgres) fn connecting_command(
        &self,
        program: &str,
        server: &PostgresServer,
        who: ToolLogin,
        database: &str,
    ) -> Command {
        let dsn = server.server_dsn();
        let mut command = self.program_command(program);
        command.env("PGHOST", dsn.host_name().trim_matches(['[', ']'])).env("PGPORT", dsn.port_number().to_string());
        command.env("PGDATABASE", database).env("PGAPPNAME", "fleet tool").env("PGCONNECT_TIMEOUT", "10");
        let (user, password) = match who {
            ToolLogin::Maintenance => (dsn.user_name(), dsn.user_password()),
            ToolLogin::Migrator => (migrator_login(database), Some(server.migrator_password(database))),
        };
        command.env("PGUSER", user);
        if let Some(password) = password {
            command.env("PGPASSWORD", password.expose_secret());
        }
        for (parameter, name) in [
            ("sslmode", "PGSSLMODE"),
            ("sslrootcert", "PGSSLROOTCERT"),
            ("sslcert", "PGSSLCERT"),
            ("sslkey", "PGSSLKEY"),
        ] {
            if let Some(value) = dsn.query_parameter(parameter) {
                command.env(name, value);
            }
        }
        // The server releases locks soon after the program is killed. Nothing needs to be durable before the identity
        // is written.
        let more = [("client_connection_check_interval", "2s"), ("synchronous_commit", "off")];
        command.env("PGOPTIONS", program_options(&more));
        command
    }
}

/// A program that ended: its exit status and its complaints.
#[derive(Debug)]
pub(in crate::postgres) struct FinishedProgram {
    status: ExitStatus,
    complaint: String,
}

impl FinishedProgram {
    pub(in crate::postgres) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// The first line that names a cause.
    pub(in crate::postgres) fn first_complaint(&self) -> String {
        let is_error = |line: &&str| line.contains("error:") || line.contains("FATAL:");
        let line = self.complaint.lines().find(is_error).or_else(|| self.complaint.lines().next());
        match line {
            Some(line) => line.chars().take(COMPLAINT_SHOWN_MAX).collect(),
            None => format!("it ended with {}", self.status),
        }
    }
}

/// Starts a program.
///
/// # Errors
/// [`ErrorKind::ToolMissing`] when it cannot be started.
pub(in crate::postgres) fn start_program(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| program_missing(&error))
}

/// Waits for a program that works on a server, while the caller's future `output` reads its output.
///
/// # Errors
/// [`ErrorKind::ConnectionLost`] when the server stops answering; errors of the caller's future.
pub(in crate::postgres) async fn finish_program<T>(
    server: &Arc<PostgresServer>,
    mut child: Child,
    output: impl Future<Output = Result<T>>,
) -> Result<(T, FinishedProgram)> {
    let stderr = child.stderr.take().expect("it is piped");
    let work = async {
        let (complaint, taken) = tokio::join!(first_bytes(stderr), output);
        let status = child.wait().await.map_err(|error| program_missing(&error))?;
        Ok((taken?, FinishedProgram { status, complaint }))
    };
    while_alive(server, WHOLE_MAX, work).await?
}

/// Waits for a program that works on a server, and passes each line of its complaints to the caller.
///
/// # Errors
/// [`ErrorKind::ConnectionLost`] when the server stops answering.
pub(super) async fn finish_telling(
    server: &Arc<PostgresServer>,
    mut child: Child,
    told: impl FnMut(&str),
) -> Result<ExitStatus> {
    let stderr = child.stderr.take().expect("it is piped");
    let work = async {
        read_lines(stderr, told).await;
        child.wait().await.map_err(|error| program_missing(&error))
    };
    while_alive(server, WHOLE_MAX, work).await?
}

/// Reads to the end and passes on the beginning of each line.
async fn read_lines(mut from: impl AsyncRead + Unpin, mut told: impl FnMut(&str)) {
    let (mut line, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        for byte in &chunk[..read] {
            match byte {
                b'\n' => told(&String::from_utf8_lossy(&std::mem::take(&mut line))),
                byte if line.len() < COMPLAINT_BYTES_MAX => line.push(*byte),
                _ => {}
            }
        }
    }
    told(&String::from_utf8_lossy(&line));
}

/// Reads to the end and keeps the beginning.
async fn first_bytes(mut from: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let room = COMPLAINT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn newest_installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir(Path::new(DEBIAN)).ok()?.flatten();
    let installed = versions.filter(|entry| entry.path().join("bin/pg_dump").exists());
    let newest = installed.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    Some(Path::new(DEBIAN).join(newest.to_string()).join("bin"))
}

/// Parses the major version from `pg_dump (PostgreSQL) 15.18 (Debian …)`, `17beta1`.
fn major_in(text: &str) -> Option<u32> {
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn program_missing(error: &dyn fmt::Display) -> Error {
    tools_unusable(&format!("it does not start: {error}"))
}

fn tools_unusable(why: &str) -> Error {
    let message =
        format!("pg_dump and pg_restore are needed for this, and {why}; install PostgreSQL's client programs");
    Error::new(ErrorKind::ToolMissing, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major_in("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_in("pg_dump (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_in("something else"), None);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_missing() {
        let tools = PostgresTools::find_programs(Some("/nowhere".into()));
        assert_eq!(tools.require_version(150_000).await.unwrap_err().kind(), ErrorKind::ToolMissing);
    }
}
