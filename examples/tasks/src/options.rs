//! The command line. `clap` refuses combinations that contradict each other.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use secrecy::SecretString;

/// An example application: the tasks of organisations, each with a database of its own.
#[derive(Debug, Clone, Parser)]
#[command(after_help = "Examples:
  tasks
  tasks --listen 127.0.0.1:0 --data-dir /tmp/play
  TASKS_POSTGRES=postgres://role:password@host/postgres tasks
  tasks --data-dir /var/lib/fleet --fleet https://fleet.example.org:8081 --fleet-token-file admin.token

Without --fleet, the application starts a fleet of its own in the data directory.")]
pub struct CommandOptions {
    /// Address of the page; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub listen: SocketAddr,
    /// Directory of the fleet [default: ./tasks-data; with --fleet: FLEET_DATA_DIR or FLEET_CATALOG_URL]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Create databases of new organisations on this PostgreSQL server: postgres://role:password@host/database
    #[arg(long, value_name = "URL", env = "TASKS_POSTGRES", hide_env_values = true, value_parser = parse_secret)]
    pub postgres: Option<SecretString>,
    /// Use the control plane at this address, and start none
    #[arg(long, value_name = "URL", env = "TASKS_FLEET", requires = "fleet_token_file", conflicts_with = "postgres")]
    pub fleet: Option<String>,
    /// File with a token of the control plane's role admin
    #[arg(long, value_name = "FILE", env = "TASKS_FLEET_TOKEN_FILE", requires = "fleet")]
    pub fleet_token_file: Option<PathBuf>,
    /// File with further certificates to trust, PEM
    #[arg(long, value_name = "FILE", requires = "fleet")]
    pub ca_file: Option<PathBuf>,
}

fn parse_secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<CommandOptions, String> {
        let words = ["tasks"].into_iter().chain(flags.iter().copied());
        CommandOptions::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn combinations_that_contradict_each_other_are_refused() {
        assert!(parse(&[]).unwrap().fleet.is_none());
        assert!(parse(&["--fleet", "https://f", "--fleet-token-file", "t", "--ca-file", "ca.pem"]).is_ok());
        for (flags, named) in [
            (&["--fleet", "https://f"] as &[_], "--fleet-token-file"),
            (&["--fleet-token-file", "t"], "--fleet"),
            (&["--ca-file", "ca.pem"], "--fleet"),
            (&["--fleet", "https://f", "--fleet-token-file", "t", "--postgres", "postgres://r:p@h/d"], "--postgres"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(named), "{error}");
            assert!(!error.contains("r:p@"), "a password is not printed: {error}");
        }
    }
}
