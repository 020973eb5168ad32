//! Tests that every command refuses wrong input instead of ignoring it. The list of commands is the command line
//! itself: a new command or flag fails here until the tables below contain it.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use clap::{Arg, CommandFactory};

use crate::cli::CommandLine;
use crate::{CommandExit, ProcessEnvironment, ProcessIo};

/// Arguments with which each command succeeds and changes nothing. `NAME=value` gives `value` for the argument that the
/// help calls NAME.
const COMMANDS: &[(&str, &str)] = &[
    ("status", ""),
    ("doctor", ""),
    ("audit", ""),
    ("scrub", ""),
    ("tenant create", "NAME=initech --plan=free --dry-run"),
    ("tenant list", ""),
    ("tenant get", "TENANT=acme"),
    ("tenant describe", "TENANT=acme"),
    ("tenant label", "TENANT|KEY=VALUE|KEY-=acme plan=pro --dry-run"),
    ("tenant set", "TENANT=acme --plan=free --dry-run"),
    ("tenant protect", "TENANT=acme --dry-run"),
    ("tenant delete", "TENANT=acme --dry-run"),
    ("tenant rename", "TENANT=acme NAME=initech --dry-run"),
    ("tenant suspend", "TENANT=acme --dry-run"),
    ("tenant resume", "TENANT=suspended --dry-run"),
    ("tenant read-only", "TENANT=acme --dry-run"),
    ("tenant move", "TENANT=acme --to=spare --dry-run"),
    ("tenant clone", "TENANT=acme NAME=initech --dry-run"),
    ("tenant archive", "TENANT=acme --dry-run"),
    ("tenant unarchive", "TENANT=archived --dry-run"),
    ("tenant undelete", "TENANT=deleted --dry-run"),
    ("tenant purge", "TENANT=deleted --dry-run"),
    ("tenant repair", "TENANT=acme --dry-run"),
    ("tenant account link", "TENANT=acme PROVIDER=crm ACCOUNT=7 --dry-run"),
    ("tenant account list", "TENANT=acme"),
    ("tenant account unlink", "TENANT=acme PROVIDER=crm ACCOUNT=4711 --dry-run"),
    ("tenant domain add", "TENANT=acme HOST=shop.example --dry-run"),
    ("tenant domain list", "TENANT=acme"),
    ("tenant domain remove", "TENANT=acme HOST=old.example --dry-run"),
    ("plan add", "PLAN=pro --burst=5 --requests-per-second=5 --dry-run"),
    ("plan set", "PLAN=free --burst=5 --requests-per-second=5 --dry-run"),
    ("plan list", ""),
    ("plan get", "PLAN=free"),
    ("plan remove", "PLAN=unused --dry-run"),
    ("server add", "NAME=new --base={base} --dry-run"),
    ("server list", ""),
    ("server get", "SERVER=local"),
    ("server cordon", "SERVER=local --dry-run"),
    ("server uncordon", "SERVER=local --dry-run"),
    ("server drain", "SERVER=spare --dry-run"),
    ("server remove", "SERVER=spare --dry-run"),
    ("member add", "TENANT=acme PRINCIPAL=user-1 --role=reader --dry-run"),
    ("tenant impersonate", "TENANT=acme MEMBER=user-2 --dry-run --reason=test"),
    ("member list", "TENANT=acme"),
    ("member remove", "TENANT=acme PRINCIPAL=user-2 --dry-run"),
    ("token create", "--operator=viewer --dry-run"),
    ("token list", ""),
    ("token revoke", "TOKEN={token} --dry-run"),
    ("release list", ""),
    ("release get", "RELEASE={release}"),
    ("release add", "DIRECTORY=m --dry-run"),
    ("release activate", "RELEASE={release} --dry-run"),
    ("migrate plan", "DIR|RELEASE=m"),
    ("migrate run", "DIR|RELEASE=m TENANT=acme --dry-run"),
    ("migrate status", ""),
    ("migrate retry", "OPERATION={migration} --dry-run"),
    ("backup run", "TENANT=acme --dry-run"),
    ("backup list", "TENANT=acme"),
    ("backup get", "BACKUP={backup}"),
    ("backup verify", "BACKUP|TENANT=acme --dry-run"),
    ("restore run", "TENANT=acme --to=latest --dry-run"),
    ("restore preview", "TENANT=acme --to=latest"),
    ("restore undo", "TENANT=globex --dry-run"),
    ("op list", ""),
    ("op get", "OPERATION={operation}"),
    ("op wait", "OPERATION={operation}"),
    ("op events", "OPERATION={operation}"),
    ("op retry", "OPERATION={operation} --dry-run"),
    ("op cancel", "OPERATION={operation} --dry-run"),
    ("op pause", "OPERATION={operation} --dry-run"),
    ("op resume", "OPERATION={operation} --dry-run"),
    ("op abandon", "OPERATION={operation} --dry-run"),
    ("job list", "TENANT=acme"),
    ("query", "SQL=select_1 TENANT=acme"),
    ("events", "--limit=5"),
    ("webhook add", "URL=https://receiver.example/ --kind=tenant.created --tenant=acme --dry-run"),
    ("webhook list", ""),
    ("webhook log", "WEBHOOK={webhook}"),
    ("webhook pause", "WEBHOOK={webhook} --dry-run"),
    ("webhook resume", "WEBHOOK={paused} --dry-run"),
    ("webhook remove", "WEBHOOK={webhook} --dry-run"),
    ("history show", ""),
    ("history keep", "--operations=30d --events=30d --dry-run"),
    ("catalog check", ""),
    ("explain", "CODE=not_found"),
    ("config show", ""),
    ("version", ""),
];

/// Commands without a selection or filter, or with requirements that this test does not have.
const ELSEWHERE: &[(&str, &str)] = &[
    ("dev", "serves; its settings are those of `config`"),
    ("leaktest", "needs an application"),
    ("serve", "serves; its settings are refused where they are read"),
    ("init", "makes a fleet"),
    ("tenant adopt", "needs a Postgres server; the API's own test spoils it"),
    ("server prepare", "needs a Postgres server"),
    ("tenant domain verify", "needs a DNS server"),
    ("webhook test", "needs a receiver"),
    ("server set", "needs a Postgres server; the API's own test spoils it"),
    ("catalog copy", "needs a Postgres server"),
    ("catalog new-identity", "needs a copy of a data directory"),
    ("catalog take-over", "needs a copy of a data directory"),
    ("job retry", "needs a job, which only an application enqueues"),
    ("job drop", "needs a job, which only an application enqueues"),
    ("completions", "prints a script"),
    ("man", "prints the manual"),
];

/// A writer whose clones share their bytes.
#[derive(Clone, Default)]
struct SharedSink(Arc<Mutex<Vec<u8>>>);

impl Write for SharedSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl SharedSink {
    fn sink_text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Runs a command in `directory`; returns exit code, standard output and standard error.
fn run_in(directory: &Path, args: &[String]) -> (CommandExit, String, String) {
    let (stdout, stderr) = (SharedSink::default(), SharedSink::default());
    let io = ProcessIo {
        stdin: Box::new(std::io::empty()),
        stdout: Box::new(stdout.clone()),
        stderr: Box::new(stderr.clone()),
        stdin_is_terminal: false,
        stderr_is_terminal: false,
        stdout_columns: None,
        environment: ProcessEnvironment { variables: Default::default(), directory: directory.to_owned() },
    };
    let args = std::iter::once("fleetctl").chain(args.iter().map(String::as_str)).map(OsString::from);
    let exit = crate::run_command_line(args, io);
    (exit, stdout.sink_text(), stderr.sink_text())
}

fn split_words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn run_ok(directory: &Path, line: &str) -> String {
    let (exit, stdout, stderr) = run_in(directory, &split_words(line));
    assert_eq!(exit, CommandExit::Done, "{line}: {stdout}{stderr}");
    stdout
}

/// Creates a fleet with everything that the table names. Returns the table's placeholders and their values.
fn make_fleet(directory: &Path) -> Vec<(&'static str, String)> {
    std::fs::create_dir(directory.join("m")).unwrap();
    std::fs::write(directory.join("m/0001_a.sql"), "create table a (b integer);\n").unwrap();
    std::fs::write(directory.join("empty.txt"), "\n# nobody\n").unwrap();
    for name in ["spare", "new"] {
        std::fs::create_dir(directory.join(name)).unwrap();
    }
    let directory_text = |name: &str| directory.canonicalize().unwrap().join(name).to_str().unwrap().to_owned();
    run_ok(directory, "init");
    run_ok(directory, "migrate run m --all");
    run_ok(directory, "tenant create acme globex suspended archived deleted");
    run_ok(directory, "tenant suspend suspended");
    run_ok(directory, "tenant archive archived --yes");
    run_ok(directory, "tenant delete deleted --no-backup --yes");
    run_ok(directory, &format!("server add spare --base {}", directory_text("spare")));
    run_ok(directory, "plan add free --requests-per-second 50");
    run_ok(directory, "plan add unused");
    run_ok(directory, "tenant set globex --plan free");
    run_ok(directory, "member add acme user-2 --role reader");
    run_ok(directory, "tenant domain add acme old.example");
    run_ok(directory, "tenant account link acme crm 4711");
    for _ in 0..2 {
        run_ok(directory, "webhook add https://receiver.example/");
    }
    run_ok(directory, "backup run --all");
    run_ok(directory, "restore run globex --to latest --yes");
    let first = |line: &str| run_ok(directory, line).lines().next().unwrap_or_default().to_owned();
    let webhooks = run_ok(directory, "webhook list -o name");
    let mut webhooks = webhooks.lines().map(str::to_owned);
    let (webhook, paused) = (webhooks.next().unwrap(), webhooks.next().unwrap());
    run_ok(directory, &format!("webhook pause {paused}"));
    vec![
        ("{webhook}", webhook),
        ("{paused}", paused),
        ("{base}", directory_text("new")),
        ("{token}", first("token list -o name")),
        ("{release}", first("release list -o name")),
        ("{backup}", first("backup list -o name")),
        ("{operation}", first("op list -o name")),
        ("{migration}", first("op list --kind migrate -o name")),
    ]
}

/// The words of the command, each with the name of its argument.
fn good_words(line: &str, known: &[(&'static str, String)]) -> Vec<(String, String)> {
    let word = |word: &str| {
        let filled = known.iter().fold(word.to_owned(), |word, (name, id)| word.replace(name, id));
        // The last `=` of a positional argument; a flag keeps its own.
        match filled.rsplit_once('=').filter(|(name, _)| name.chars().all(|c| c.is_uppercase() || "|=-".contains(c))) {
            Some((name, value)) => (name.to_owned(), value.replace('_', if name == "SQL" { " " } else { "_" })),
            None => (String::new(), filled),
        }
    };
    line.split_whitespace().map(word).collect()
}

#[test]
fn every_spoilt_argument_of_every_command_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let known = make_fleet(directory.path());
    let (mut tried, mut wrong) = (0, Vec::new());
    for (path, command) in leaf_commands(&CommandLine::command(), String::new()) {
        if ELSEWHERE.iter().any(|(elsewhere, _)| *elsewhere == path) {
            continue;
        }
        let line = COMMANDS.iter().find(|(name, _)| *name == path).map(|(_, line)| line);
        let line = line.unwrap_or_else(|| panic!("`{path}` is new: say in COMMANDS how it is given"));
        let good = good_words(line, &known);
        let all: Vec<String> =
            split_words(&path).into_iter().chain(good.iter().map(|(_, word)| word.clone())).collect();
        let (exit, stdout, stderr) = run_in(directory.path(), &all);
        // A finding of a check is a valid answer.
        if !matches!(exit, CommandExit::Done | CommandExit::Found) {
            wrong.push(format!("{all:?} as it is meant: {exit:?} {stdout}{stderr}"));
        }
        for arg in command.get_arguments().filter(|arg| !arg.is_global_set()) {
            for args in spoilt_command_lines(&path, arg, &good) {
                let (exit, stdout, stderr) = run_in(directory.path(), &args);
                let helps = ["try:", "tip:", "'--help'"].iter().any(|word| stderr.contains(word));
                if matches!(exit, CommandExit::Done | CommandExit::Found) || !stderr.contains("error") || !helps {
                    wrong.push(format!("{args:?}: {exit:?} {stdout}{stderr}"));
                }
                tried += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(tried > 300, "only {tried} command lines were tried");
}

/// Every command without subcommands, with its words.
fn leaf_commands(command: &clap::Command, path: String) -> Vec<(String, clap::Command)> {
    let subcommands: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
    if subcommands.is_empty() {
        return vec![(path, command.clone())];
    }
    let deeper = |sub: &&clap::Command| leaf_commands(sub, format!("{path} {}", sub.get_name()).trim().to_owned());
    subcommands.iter().flat_map(deeper).collect()
}

/// Command lines in which this argument is wrong, in every way.
fn spoilt_command_lines(path: &str, arg: &Arg, good: &[(String, String)]) -> Vec<Vec<String>> {
    let name = arg.get_value_names().and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let values = if takes { bad_values(path, arg, &name) } else { Vec::new() };
    values.into_iter().map(|value| command_line_with(path, arg, &name, &value, good)).collect()
}

fn command_line_with(path: &str, arg: &Arg, name: &str, value: &str, good: &[(String, String)]) -> Vec<String> {
    let mut args = split_words(path);
    let flag = arg.get_long().map(|long| format!("--{long}="));
    let is_other = |word: &&(String, String)| flag.as_ref().is_none_or(|flag| !word.1.starts_with(flag.as_str()));
    let replaced = |(of, word): &(String, String)| if flag.is_none() && of == name { value } else { word }.to_owned();
    args.extend(good.iter().filter(is_other).map(replaced));
    match flag {
        Some(flag) => args.push(format!("{flag}{value}")),
        None if good.iter().any(|(of, _)| of == name) => {}
        None => args.push(value.to_owned()),
    }
    args
}

/// Values that are wrong for this kind of argument.
fn bad_values(path: &str, arg: &Arg, name: &str) -> Vec<String> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    if !arg.get_possible_values().is_empty() {
        return texts(&["mgirate", ""]);
    }
    let lists = path == "tenant list";
    match name {
        "SELECTOR" if lists => texts(&["plan!"]),
        "SELECTOR" => texts(&["plan=typo"]),
        "N" | "HOURS" | "VERSION" => texts(&["-1", "1.5", "NaN", "", "0", "99999999999999999999"]),
        "LIMIT" => texts(&["-1", "1.5", "NaN", "", "0", "None", "99999999999999999999"]),
        "PLAN" if path == "plan add" => texts(&["", "a b"]),
        "PLAN" => texts(&["nobody", "", "a b"]),
        "DURATION" => texts(&["-1s", "1.5s", "NaN", "5", "", "99999999d"]),
        "STATE" | "STATE,…" | "KIND" => texts(&["mgirate", "pending,"]),
        "TENANT" | "SERVER" | "TENANT|KEY=VALUE|KEY-" => texts(&["nobody"]),
        "URL" => {
            texts(&["", "receiver.example", "http://receiver.example/", "https://127.0.0.1/", "https://a@b.example/"])
        }
        "OPERATION" | "TOKEN" | "BACKUP" | "RELEASE" | "WEBHOOK" => texts(&["nobody", ""]),
        "BACKUP|TENANT" => texts(&["nobody", "bkp_1"]),
        "DIR|RELEASE" | "DIRECTORY" => texts(&["nowhere", "", "rel_1"]),
        "K=V,…" => texts(&["", "=x", "plan"]),
        "NAME" => texts(&["a b"]),
        "HOST" => texts(&["", "a b", "127.0.0.1", "shop", "*.shop.example"]),
        "PROVIDER" => texts(&["", "Stripe", "a/b"]),
        "ACCOUNT" => texts(&["", "a\nb"]),
        "PRINCIPAL" => texts(&["a\nb"]),
        "MEMBER" => texts(&["a\nb", "nobody", ""]),
        "latest|TIME|BACKUP" => texts(&["", "yesterday", "bkp_1"]),
        "TEXT" => texts(&["two\nlines"]),
        "CODE" => texts(&["mgirate", ""]),
        "SQL" => texts(&["", "selekt 1"]),
        "DIR" => texts(&["", "nowhere"]),
        "ENGINE" => texts(&["mgirate", ""]),
        "FILE" if arg.get_id() == "out" => texts(&["nowhere/report.json"]),
        "FILE" => texts(&["nowhere", "empty.txt", ""]),
        // Any value can be bound.
        "VALUE" => Vec::new(),
        "ACTOR" => texts(&["nobody", "tok_1", ""]),
        "TIME|AGO" => texts(&["", "yesterday", "-2h", "5"]),
        name => panic!("`{path}` has a new argument {name}: say in bad_values what it refuses"),
    }
}
