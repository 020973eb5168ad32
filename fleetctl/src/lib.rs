//! Lets a person or a cron job operate a fleet.
//!
//! `run` is the whole program: it parses the flags (`cli`), merges the settings (`settings`) and runs one command
//! (`commands`). Commands use the control plane's API through one `client`, with the same code in process and over
//! HTTP. This crate never opens a database; only `settings` reads the environment, and only `output` prints.

mod args;
mod cli;
mod client;
mod commands;
mod context;
mod embedded;
mod error;
mod explanations;
mod ignored;
mod input;
mod issuer_tables;
mod operation;
mod output;
mod ping;
mod progress;
mod run_lock;
mod setting_values;
mod settings;
mod table;

#[cfg(test)]
mod refusals;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use cli::CommandLine;
use context::CommandContext;
pub use error::CommandExit;
use error::{CommandFailure, Result};
use output::{CommandOutput, OutputVerbosity};
use settings::CommandSettings;
pub use settings::ProcessEnvironment;

/// The streams and the environment of a run.
pub struct ProcessIo {
    /// Input for names and confirmations.
    pub stdin: Box<dyn Read + Send>,
    /// Output for data.
    pub stdout: Box<dyn Write + Send>,
    /// Output for everything else.
    pub stderr: Box<dyn Write + Send>,
    /// True when a user can answer questions.
    pub stdin_is_terminal: bool,
    /// True when a user watches the output.
    pub stderr_is_terminal: bool,
    /// Width of the terminal of standard output; `None` when it is not a terminal.
    pub stdout_columns: Option<usize>,
    /// Variables and working directory.
    pub environment: ProcessEnvironment,
}

impl ProcessIo {
    /// The streams and the environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::BufWriter::new(io::stdout())),
            stderr: Box::new(io::stderr()),
            stdin_is_terminal: io::stdin().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            stdout_columns: terminal_columns(),
            environment: ProcessEnvironment::of_process(),
        }
    }
}

/// Width of a terminal that does not report one.
const COLUMNS_DEFAULT: usize = 80;

/// Width of the terminal of standard output.
fn terminal_columns() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let told = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    Some(told.filter(|columns| *columns > 0).unwrap_or(COLUMNS_DEFAULT))
}

/// Runs one command to its end.
pub fn run_command_line(args: impl IntoIterator<Item = OsString>, io: ProcessIo) -> CommandExit {
    let mut out = CommandOutput::new(io.stdout, io.stderr, io.stderr_is_terminal);
    out.terminal = io.stdout_columns.map(|columns| io.environment.table_width().unwrap_or(columns));
    let cli = match CommandLine::try_parse_from(args) {
        Ok(cli) => cli.settle_flags(),
        Err(error) => return report_parse_error(&mut out, &error),
    };
    let given = cli.flags.given_settings().into_iter().chain(cli.command.given_settings()).collect();
    let prepared = CommandSettings::from_sources(&io.environment, given).and_then(|settings| {
        out.format = cli.flags.output_format(&settings, &cli.command)?;
        Ok(settings)
    });
    let settings = match prepared {
        Ok(settings) => settings,
        Err(failure) => return report_failure(&mut out, &failure),
    };
    if cli.flags.quiet {
        out.loudness = OutputVerbosity::Quiet;
        out.silent = cli.flags.output.is_none();
    }
    let asks = io.stdin_is_terminal && io.stderr_is_terminal;
    let mut context = CommandContext::new(settings, io.environment, out, io.stdin, asks);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = CommandFailure::new(CommandExit::Failed, "cannot start").with_cause(error);
            return report_failure(&mut context.out, &failure);
        }
    };
    let asked = context.settings.value_origin("log").is_some_and(|o| *o != settings::SettingOrigin::Default);
    if asked
        && !cli.command.sets_up_log()
        && let Err(failure) = commands::serve::set_up_log(&context)
    {
        return report_failure(&mut context.out, &failure);
    }
    runtime.block_on(run_with_pings(cli, &mut context))
}

/// Runs one command between its two pings.
async fn run_with_pings(cli: CommandLine, context: &mut CommandContext) -> CommandExit {
    let ping = ping::MonitorPing::from_settings(&context.settings);
    let exit = match ping {
        Err(failure) => report_failure(&mut context.out, &failure),
        Ok(None) => run_and_flush(cli, context).await,
        Ok(Some(ping)) => {
            ping.ping_start(context).await;
            let exit = run_and_flush(cli, context).await;
            ping.ping_end(context, exit).await;
            exit
        }
    };
    context.close().await;
    exit
}

async fn run_and_flush(cli: CommandLine, context: &mut CommandContext) -> CommandExit {
    let result = cli::dispatch_command(cli.command, context).await;
    let flushed = context.out.flush_stdout();
    match combine_results(result, flushed) {
        Ok(exit) => exit,
        Err(failure) => report_failure(&mut context.out, &failure),
    }
}

/// A command whose output could not be written has failed, even if all else succeeded.
fn combine_results(result: Result<CommandExit>, flushed: Result<()>) -> Result<CommandExit> {
    match (result, flushed) {
        (Ok(exit), Ok(())) => Ok(exit),
        (Ok(exit), Err(unwritten)) if unwritten.exit == CommandExit::Done => Ok(exit),
        (Ok(_), Err(unwritten)) => Err(unwritten),
        (Err(failure), _) => Err(failure),
    }
}

/// A failure with the exit code of success means that the reader closed the pipe; nothing is printed.
fn report_failure(out: &mut CommandOutput, failure: &CommandFailure) -> CommandExit {
    if failure.exit != CommandExit::Done {
        out.print_failure(failure);
    }
    failure.exit
}

/// Prints help and version on stdout with success; everything else is a usage error.
fn report_parse_error(out: &mut CommandOutput, error: &clap::Error) -> CommandExit {
    let text = error.render().to_string();
    if error.use_stderr() {
        out.print_message(&text);
        if error.kind() == ErrorKind::InvalidSubcommand
            && let Some(ContextValue::String(verb)) = error.get(ContextKind::InvalidSubcommand)
        {
            cli::commands_with_verb(verb).iter().for_each(|command| out.print_message(&format!("try:   {command}")));
        }
        return CommandExit::Usage;
    }
    match out.print_text(&text).and_then(|()| out.flush_stdout()) {
        Ok(()) => CommandExit::Done,
        Err(failure) => report_failure(out, &failure),
    }
}
