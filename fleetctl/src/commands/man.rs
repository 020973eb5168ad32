//! `fleetctl man`: the manual pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::cli::Cli;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};

/// Flags of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl man | man -l -
  fleetctl man /usr/local/share/man/man1      # one page per command")]
pub(crate) struct Man {
    /// Write every page into this directory
    directory: Option<PathBuf>,
}

/// Runs `fleetctl man`.
pub(crate) fn run(args: &Man, context: &mut Context) -> Result<Exit> {
    let unwritable = |e: std::io::Error| Failure::new(Exit::Failed, "cannot write the manual pages").because(e);
    let command = Cli::command();
    match &args.directory {
        Some(directory) => clap_mangen::generate_to(command, context.absolute(directory)).map_err(unwritable)?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(unwritable)?;
            context.out.text(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(Exit::Done)
}
