//! The binary: arguments and streams of the process in, exit code out.

use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    fleetctl::ProcessEnvironment::keep_files_private();
    fleetctl::ProcessEnvironment::forget_postgres_variables()?;
    Ok(fleetctl::run_command_line(std::env::args_os(), fleetctl::ProcessIo::of_process()).into())
}
