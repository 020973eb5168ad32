//! The binary: arguments and streams of the process in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleetctl::run(std::env::args_os(), fleetctl::Io::of_process()).into()
}
