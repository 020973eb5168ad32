//! `fleetctl man`: the manual pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::cli::CommandLine;
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};

/// Flags of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl man | man -l -
  fleetctl man /usr/local/share/man/man1      # one page per command")]
pub(crate) struct ManArgs {
    /// Write every page into this directory
    directory: Option<PathBuf>,
}

/// Runs `fleetctl man`.
pub(crate) fn run_man_command(args: &ManArgs, context: &mut CommandContext) -> Result<CommandExit> {
    let unwritable =
        |e: std::io::Error| CommandFailure::new(CommandExit::Failed, "cannot write the manual pages").with_cause(e);
    let command = CommandLine::command();
    match &args.directory {
        Some(directory) => clap_mangen::generate_to(command, context.absolute_path(directory)).map_err(unwritable)?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(unwritable)?;
            context.out.print_text(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(CommandExit::Done)
}
