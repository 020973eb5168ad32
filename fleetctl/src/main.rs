//! The binary: arguments and streams of the process in, exit code out.

use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    fleetctl::Environment::forget_postgres_variables()?;
    Ok(fleetctl::run(std::env::args_os(), fleetctl::Io::of_process()).into())
}
