//! `fleetctl completions`: what a shell needs to complete commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::context::Context;
use crate::error::{Exit, Result};

/// Flags of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(fleetctl completions bash)
  fleetctl completions zsh > ~/.zfunc/_fleetctl
  fleetctl completions fish > ~/.config/fish/completions/fleetctl.fish")]
pub(crate) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs `fleetctl completions`.
pub(crate) fn run(args: &Completions, context: &mut Context) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fleetctl", &mut script);
    context.out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
