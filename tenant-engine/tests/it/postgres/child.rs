//! Runs a test of this program in a process of its own, to be killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

/// Set only by a parent test for its child.
const TOLD: &str = "TENANT_ENGINE_TEST_SERVER";

/// What a parent test told; `None` in the parent.
#[expect(clippy::disallowed_methods, reason = "how a test tells itself in another process what to do")]
pub(crate) fn told() -> Option<String> {
    std::env::var(TOLD).ok()
}

/// This program, running the one test `name`, told `what`.
pub(crate) fn start(name: &str, what: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(TOLD, what);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until it has said so many lines.
pub(crate) fn hear(child: &mut Child, lines: usize) {
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let heard = said.filter(|line| line.starts_with("did ")).take(lines).count();
    assert_eq!(heard, lines, "the child did not get that far");
}

/// SIGKILL.
pub(crate) fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

pub(crate) fn say(what: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "did {what}").and_then(|()| out.flush()).unwrap();
}
