//! `fleetctl completions`: prints the script with which a shell completes commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::CommandLine;
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};

/// Flags of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(fleetctl completions bash)
  fleetctl completions zsh > ~/.zfunc/_fleetctl
  fleetctl completions fish > ~/.config/fish/completions/fleetctl.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs `fleetctl completions`.
pub(crate) fn run_completions_command(args: &CompletionsArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "fleetctl", &mut script);
    context.out.print_text(&String::from_utf8_lossy(&script))?;
    Ok(CommandExit::Done)
}
