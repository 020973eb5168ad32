//! What a human at a terminal is asked. `script` makes the terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::shell::Shell;

/// Runs a line at a terminal, with what is typed; what the screen shows, and the exit code.
fn at_terminal(shell: &Shell, line: &str, typed: &str) -> (Option<i32>, String) {
    let program = shell.command().get_program().to_string_lossy().into_owned();
    let mut command = Command::new("script");
    command.args(["-qec", &format!("'{program}' {line}"), "/dev/null"]).current_dir(shell.path());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", shell.path()).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("`script` (util-linux) is installed");
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_human_types_the_name_or_the_number() {
    let shell = Shell::init();
    shell.ok("tenant create acme globex initech umbrella");
    let (code, screen) = at_terminal(&shell, "tenant delete acme", "globex\n");
    assert_eq!(code, Some(2), "{screen}");
    assert!(screen.contains("This will delete the tenant \"acme\". Type acme to go on: "), "{screen}");
    assert!(screen.contains("not confirmed"), "{screen}");
    assert_eq!(shell.ok("tenant list --state active -o name").lines().count(), 4);

    let (code, screen) = at_terminal(&shell, "tenant delete acme", "acme\n");
    assert_eq!(code, Some(0), "{screen}");
    let (code, screen) = at_terminal(&shell, "tenant delete globex initech", "3\n");
    assert_eq!(code, Some(2), "{screen}");
    let (code, screen) = at_terminal(&shell, "tenant delete globex initech", "2\n");
    assert_eq!(code, Some(0), "{screen}");
    assert_eq!(shell.ok("tenant list --state active -o name"), "umbrella\n");
}

#[test]
fn a_script_is_never_asked() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    let ran = shell.fed("tenant delete acme", b"acme\n");
    assert_eq!(ran.code, Some(2), "typing into a pipe confirms nothing: {ran:?}");
    assert_eq!(shell.ok("tenant list --state active -o name"), "acme\n");
}
