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

#[test]
fn every_list_fits_a_terminal_of_80_columns_and_a_pipe_gets_everything() {
    let shell = Shell::init();
    let (name, other) = ("a".repeat(63), "b".repeat(63));
    let words = "x".repeat(60);
    shell.ok(&format!("tenant create {name} {other} -l plan={words},region={words}"));
    shell.ok(&format!("member add {name} {} --role reader", "p".repeat(200)));
    shell.ok(&format!("token create --tenant {name} --role reader --label {}", "l".repeat(200)));
    shell.ok(&format!("backup run {name} --reason '{}'", "because ".repeat(30)));
    shell.write("m/0001_a.sql", "create table a (b integer check (b > 0));\ninsert into a values (-1);\n");
    let failed = shell.run(&format!("migrate run m {name}"));
    assert_ne!(failed.code, Some(0));
    let op = shell.ok("op list --kind migrate -o name").trim().to_owned();
    shell.ok(&format!("tenant read-only {name} --reason '{}'", "because ".repeat(30)));
    std::fs::create_dir(shell.path().join("d".repeat(120))).unwrap();
    shell.ok(&format!("server add {} --base {}/{}", "s".repeat(40), shell.path().display(), "d".repeat(120)));
    let lists = [
        "tenant list",
        "op list",
        &format!("op get {op} --steps"),
        &format!("op events {op}"),
        "events",
        "backup list",
        "server list",
        "release list",
        &format!("member list {name}"),
        "token list",
        "explain",
    ];
    for line in lists {
        let (code, screen) = at_terminal(&shell, line, "");
        assert_eq!(code, Some(0), "{line}: {screen}");
        assert!(screen.lines().count() > 1, "{line}: {screen}");
        for row in screen.lines() {
            assert!(row.trim_end().chars().count() <= 80, "{line}: {row}");
        }
        let whole = shell.ok(line);
        assert!(!whole.contains('…'), "{line}: {whole}");
    }
    assert!(shell.ok("tenant list").contains(&format!("plan={words},region={words}")));
    let (_, screen) = at_terminal(&shell, "tenant list", "");
    assert!(screen.contains(&name) && screen.contains("read-only"), "{screen}");
    let (_, wide) = at_terminal(&shell, "tenant list -o wide", "");
    assert!(wide.contains(&format!("region={words}")), "{wide}");
}
