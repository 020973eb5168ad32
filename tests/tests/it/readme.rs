//! The `console` blocks of the README and of docs/data-api.md, typed in order into one shell, must print what they show.

use std::process::Command;

use crate::shell::Shell;
use fleet_tests::{Served, example_migrations, workspace_root};

/// A typed line and what is shown below it.
struct Typed {
    line: String,
    shown: String,
}

#[test]
fn the_first_five_minutes_print_what_they_show() {
    let shell = Shell::new();
    std::os::unix::fs::symlink(workspace_root().join("migrations"), shell.path().join("migrations")).unwrap();
    let readme = std::fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let typed = typed(&readme);
    assert!(typed.len() > 10, "the blocks were not found");
    assert!(readme.contains("export FLEET_DATA_DIR=first-fleet "), "the commands use this directory");
    for Typed { line, shown } in typed {
        let printed = print(&shell, &line, &[("FLEET_DATA_DIR", "first-fleet")]);
        assert_eq!(normal(&printed, &shell), normal(&shown, &shell), "$ {line}\n{printed}");
    }
}

#[test]
fn the_data_api_answers_what_its_page_shows() {
    let shell = Shell::init();
    shell.ok(&format!("migrate run {} --all", example_migrations()));
    shell.ok("tenant create acme globex");
    let token = shell.ok("token create --tenant acme --role writer -o name");
    let served = Served::start(shell.path());
    let page = std::fs::read_to_string(workspace_root().join("docs/data-api.md")).unwrap();
    let typed = typed(&page);
    assert!(typed.len() >= 5, "the blocks were not found");
    for Typed { line, shown } in typed {
        let printed = print(&shell, &line, &[("DATA", &served.data_url), ("TOKEN", token.trim())]);
        assert_eq!(printed.trim(), shown.trim(), "$ {line}");
    }
}

fn typed(readme: &str) -> Vec<Typed> {
    let mut out: Vec<Typed> = Vec::new();
    let blocks = readme.split("```console\n").skip(1).filter_map(|b| b.split("```").next());
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), out.last_mut()) {
            (Some(line), _) => out.push(Typed { line: line.to_owned(), shown: String::new() }),
            (None, Some(last)) => last.shown.push_str(&format!("{line}\n")),
            (None, None) => panic!("a block begins with output: {line}"),
        }
    }
    out
}

/// Both streams together, as a terminal shows them.
fn print(shell: &Shell, line: &str, variables: &[(&str, &str)]) -> String {
    let fleetctl = shell.command();
    let program = std::path::Path::new(fleetctl.get_program());
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("{line} 2>&1")]).current_dir(shell.path());
    bash.env_clear().env("PATH", path).env("HOME", shell.path()).env("NO_COLOR", "1");
    bash.envs(variables.iter().copied());
    String::from_utf8(bash.output().unwrap().stdout).unwrap()
}

/// Ids, times and places differ from run to run; everything else must not.
fn normal(text: &str, shell: &Shell) -> String {
    let here = std::fs::canonicalize(shell.path()).unwrap();
    let text =
        text.replace(&*here.to_string_lossy(), "/home/you").replace(&*shell.path().to_string_lossy(), "/home/you");
    let word = |word: &str| match word.split_once('_') {
        Some((kind @ ("op" | "tnt" | "rel" | "bkp"), id)) if id.len() == 32 => format!("{kind}_…"),
        _ if word.starts_with("20") && word.ends_with('Z') && word.contains('T') => "<time>".to_owned(),
        _ => word.to_owned(),
    };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}
