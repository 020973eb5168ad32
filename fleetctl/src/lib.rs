//! Lets one human, or cron, operate a fleet.
//!
//! `run` is the whole program: parse (`cli`), lay the settings over each other (`settings`), then one command
//! (`commands`) that speaks the control plane's API through one `client` — in process or over HTTP, the same code.
//! Nothing here opens a database; only `settings` reads the environment, only `output` prints.

mod args;
mod cli;
mod client;
mod commands;
mod context;
mod embedded;
mod error;
mod explanations;
mod input;
mod lock;
mod operation;
mod output;
mod ping;
mod progress;
mod settings;
mod table;

#[cfg(test)]
mod refusals;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};

use clap::Parser;

use cli::Cli;
use context::Context;
pub use error::Exit;
use error::{Failure, Result};
use output::{Loudness, Output};
pub use settings::Environment;
use settings::Settings;

/// The streams and surroundings of a run.
pub struct Io {
    /// Names and confirmations come from here.
    pub stdin: Box<dyn Read + Send>,
    /// Data.
    pub stdout: Box<dyn Write + Send>,
    /// Everything else.
    pub stderr: Box<dyn Write + Send>,
    /// Whether a human can answer questions.
    pub stdin_is_terminal: bool,
    /// Whether a human watches.
    pub stderr_is_terminal: bool,
    /// Variables and working directory.
    pub environment: Environment,
}

impl Io {
    /// This process's own.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::BufWriter::new(io::stdout())),
            stderr: Box::new(io::stderr()),
            stdin_is_terminal: io::stdin().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            environment: Environment::of_process(),
        }
    }
}

/// Runs one command to its end.
pub fn run(args: impl IntoIterator<Item = OsString>, io: Io) -> Exit {
    let mut out = Output::new(io.stdout, io.stderr, io.stderr_is_terminal);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return unparsed(&mut out, &error),
    };
    let given = cli.flags.given().into_iter().chain(cli.command.given()).collect();
    let prepared = Settings::resolve(&io.environment, given).and_then(|settings| {
        out.format = cli.flags.format(&settings)?;
        Ok(settings)
    });
    let settings = match prepared {
        Ok(settings) => settings,
        Err(failure) => return failed(&mut out, &failure),
    };
    if cli.flags.quiet {
        out.loudness = Loudness::Quiet;
        out.silent = cli.flags.output.is_none();
    }
    let asks = io.stdin_is_terminal && io.stderr_is_terminal;
    let mut context = Context::new(settings, io.environment, out, io.stdin, asks);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new(Exit::Failed, "cannot start").because(error);
            return failed(&mut context.out, &failure);
        }
    };
    let asked = context.settings.origin("log").is_some_and(|o| *o != settings::Origin::Default);
    if asked
        && !cli.command.logs()
        && let Err(failure) = commands::serve::log(&context)
    {
        return failed(&mut context.out, &failure);
    }
    runtime.block_on(command(cli, &mut context))
}

/// One command between its two pings.
async fn command(cli: Cli, context: &mut Context) -> Exit {
    let ping = ping::Ping::of(&context.settings);
    let exit = match ping {
        Err(failure) => failed(&mut context.out, &failure),
        Ok(None) => finished(cli, context).await,
        Ok(Some(ping)) => {
            ping.start(context).await;
            let exit = finished(cli, context).await;
            ping.end(context, exit).await;
            exit
        }
    };
    context.close().await;
    exit
}

async fn finished(cli: Cli, context: &mut Context) -> Exit {
    let result = cli::dispatch(cli.command, context).await;
    let flushed = context.out.flush();
    match settled(result, flushed) {
        Ok(exit) => exit,
        Err(failure) => failed(&mut context.out, &failure),
    }
}

/// A command whose data could not be written has failed, whatever else it did.
fn settled(result: Result<Exit>, flushed: Result<()>) -> Result<Exit> {
    match (result, flushed) {
        (Ok(exit), Ok(())) => Ok(exit),
        (Ok(exit), Err(unwritten)) if unwritten.exit == Exit::Done => Ok(exit),
        (Ok(_), Err(unwritten)) => Err(unwritten),
        (Err(failure), _) => Err(failure),
    }
}

/// A failure that stands for success is a reader that went away: nothing is said.
fn failed(out: &mut Output, failure: &Failure) -> Exit {
    if failure.exit != Exit::Done {
        out.failure(failure);
    }
    failure.exit
}

/// Help and version go to stdout and are no error; everything else is a usage error.
fn unparsed(out: &mut Output, error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    if error.use_stderr() {
        out.complain(&text);
        return Exit::Usage;
    }
    match out.text(&text).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(failure) => failed(out, &failure),
    }
}
