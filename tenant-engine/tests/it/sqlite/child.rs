//! Runs a test of this program in a process of its own: to be killed, or to see another filesystem.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set only by a parent test for its child.
const DIRECTORY: &str = "TENANT_ENGINE_TEST_DIRECTORY";

/// The directory a parent test gave; `None` in the parent.
#[expect(clippy::disallowed_methods, reason = "how a test tells itself in another process what to do")]
pub(crate) fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// This program, about to run the one test `name` with `directory`.
pub(crate) fn command(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    prepared(&mut command, name, directory);
    command
}

/// The same after `script` has run in a mount namespace of its own, where it may mount over `$0`.
pub(crate) fn mounted(script: &str, name: &str, directory: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-euc", &format!("{script}; exec \"$@\"")]);
    command.arg(directory).arg(std::env::current_exe().unwrap());
    prepared(&mut command, name, directory);
    command
}

fn prepared(command: &mut Command, name: &str, directory: &Path) {
    command.args(["--exact", name, "--nocapture"]).env(DIRECTORY, directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
}

/// Runs it to its end, which must be a success.
#[track_caller]
pub(crate) fn succeeds(mut command: Command) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}
