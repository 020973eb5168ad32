//! The command line: that of `tasks`, and the choice of a leak.

use anyhow::{Result, bail};
use clap::Parser;
use tasks::options::CommandOptions;

use crate::leak::{LEAKS, Leak, find_leak};

/// The word for the correct application.
const NONE: &str = "none";

/// The example application with one deliberate leak between organisations.
#[derive(Debug, Clone, Parser)]
#[command(name = "leaky-zoo")]
pub struct ZooOptions {
    /// The options of the example application.
    #[command(flatten)]
    pub tasks: CommandOptions,
    /// The leak, or none [default: the only one that is compiled in]
    #[arg(long, value_name = "NAME")]
    pub leak: Option<String>,
    /// Print the leaks that are compiled in, with their classes and probes, and stop
    #[arg(long)]
    pub list: bool,
    /// Key of the operator's route [default: a random one that nobody knows]
    #[arg(long, value_name = "KEY", env = "ZOO_ADMIN_KEY", hide_env_values = true)]
    pub admin_key: Option<String>,
}

impl ZooOptions {
    /// The leak that the command line chooses.
    ///
    /// # Errors
    /// For an unknown name, and when several leaks are compiled in and none is chosen.
    pub fn chosen_leak(&self) -> Result<Option<&'static Leak>> {
        match (self.leak.as_deref(), LEAKS) {
            (Some(NONE), _) | (None, []) => Ok(None),
            (None, [only]) => Ok(Some(only)),
            (None, _) => bail!("choose a leak with --leak: {}", known_names()),
            (Some(name), _) => match find_leak(name) {
                Some(leak) => Ok(Some(leak)),
                None => bail!("the leak {name} is not compiled in; there are: {}", known_names()),
            },
        }
    }
}

/// The leaks with class and probes, a line each, separated by tabs.
#[must_use]
pub fn list_leaks() -> String {
    let line = |leak: &&Leak| format!("{}\t{}\t{}\n", leak.name, leak.class, leak.probes.join(","));
    LEAKS.iter().map(line).collect()
}

fn known_names() -> String {
    let names = LEAKS.iter().map(|leak| leak.name).chain([NONE]);
    names.collect::<Vec<_>>().join(", ")
}
