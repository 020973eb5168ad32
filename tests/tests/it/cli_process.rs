//! Processes: servers beside commands, signals, locks, monitors.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fleet_tests::Served;
use serde_json::{Value, json};

use crate::cli_contract::databases;
use crate::shell::Shell;

/// What a migration does; for how long it is busy is decided by who holds the database.
const MIGRATION: &str = "create table more (id integer primary key);\n";

/// Sends a signal to a child of ours.
fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_second_server_exits_7_and_the_first_goes_on() {
    let shell = Shell::init();
    let mut served = Served::start(shell.path());
    for verb in ["serve", "dev"] {
        let said = shell.refused(&format!("{verb} --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0"), 7);
        assert!(said.contains("served already") && said.contains(&served.admin_url), "{verb}: {said}");
    }
    shell.ok("tenant create acme");
    served.kill();
    assert_eq!(shell.ok("tenant list -o name"), "acme\n", "without the server the directory is used by itself");
}

#[test]
fn a_port_that_is_taken_is_an_error_in_words() {
    let shell = Shell::init();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = shell.refused(&format!("serve --listen {address} --admin-listen 127.0.0.1:0"), 7);
    assert!(said.contains(&address.to_string()) && said.contains("try:"), "{said}");
    let said = shell.refused(&format!("dev --data-dir other --listen {address} --admin-listen 127.0.0.1:0"), 7);
    assert!(said.contains("--listen 127.0.0.1:0"), "{said}");
}

#[test]
fn no_wait_needs_a_server_and_then_prints_the_id() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    let said = shell.refused("backup run acme --no-wait", 2);
    assert!(said.contains("fleetctl serve"), "{said}");
    assert_eq!(shell.ok("op list --kind backup -o name"), "", "nothing was begun");
    let _served = Served::start(shell.path());
    let id = shell.ok("backup run acme --no-wait");
    assert!(id.starts_with("op_") && id.lines().count() == 1, "{id}");
    let operation = shell.json(&format!("op wait {}", id.trim()));
    assert_eq!(operation["state"], json!("succeeded"));
}

#[test]
fn ctrl_c_detaches_and_the_operation_can_be_resumed() {
    let shell = Shell::init();
    shell.ok("tenant create a b c d e f g h");
    shell.write("m/0001_more.sql", MIGRATION);
    let mut command = shell.command();
    command.args(["migrate", "run", "m", "--all", "--concurrency", "1"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let writing = in_the_middle_of_a_write(&shell);
    let child = command.spawn().unwrap();
    let id = running_migration(&shell);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    drop(writing);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains(&format!("try:   fleetctl op wait {id}")), "{said}");
    let operation = shell.json(&format!("op wait {id}"));
    assert_eq!((&operation["state"], &operation["progress"]["done"]), (&json!("succeeded"), &json!(8)), "{operation}");
}

/// An application: no migration of all tenants is done before it is gone.
fn in_the_middle_of_a_write(shell: &Shell) -> rusqlite::Connection {
    let file = databases(&shell.path().join("fleet-data/tenants")).remove(0);
    let application = rusqlite::Connection::open(file).unwrap();
    application.execute_batch("begin immediate").unwrap();
    application
}

/// Waits until the migration of another process has begun.
fn running_migration(shell: &Shell) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let ids = shell.ok("op list --kind migrate --state running -o name");
        if let Some(id) = ids.lines().next() {
            return id.to_owned();
        }
        assert!(Instant::now() < until, "the migration does not begin");
    }
}

#[test]
fn overlapping_runs_are_locked_and_can_wait() {
    let shell = Shell::init();
    shell.ok("tenant create a b c d");
    shell.write("m/0001_more.sql", MIGRATION);
    let mut command = shell.command();
    command.args(["migrate", "run", "m", "--all", "--concurrency", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
    let writing = in_the_middle_of_a_write(&shell);
    let mut first = command.spawn().unwrap();
    running_migration(&shell);
    let said = shell.refused("migrate run m --all", 7);
    drop(writing);
    assert!(said.contains("--lock-wait"), "{said}");
    let operation = shell.json("--lock-wait 10m migrate run m --all");
    assert_eq!(operation["state"], json!("succeeded"));
    assert!(first.wait().unwrap().success());
}

#[test]
fn what_a_killed_command_left_is_finished_by_the_next_one() {
    let shell = Shell::init();
    shell.ok("tenant create a b c d e f");
    shell.write("m/0001_more.sql", MIGRATION);
    let mut command = shell.command();
    command.args(["migrate", "run", "m", "--all", "--concurrency", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
    let writing = in_the_middle_of_a_write(&shell);
    let mut first = command.spawn().unwrap();
    let id = running_migration(&shell);
    first.kill().unwrap();
    first.wait().unwrap();
    drop(writing);
    let ran = shell.run("migrate run m --all");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains(&format!("finishing {id} first")), "{ran:?}");
    assert_eq!(shell.json(&format!("op get {id}"))["state"], json!("succeeded"));
    shell.ok("migrate status --check");
}

#[test]
fn what_a_killed_creation_reserved_is_made_before_it_is_skipped() {
    let shell = Shell::init();
    let names: String = (0..300).map(|n| format!("t{n}\n")).collect();
    shell.write("names", names);
    let mut child = shell.command().args(["tenant", "create", "--from-file", "names"]).spawn().unwrap();
    while shell.ok("op list -o name").is_empty() && child.try_wait().unwrap().is_none() {}
    child.kill().unwrap();
    child.wait().unwrap();
    shell.ok("tenant create --from-file names --if-exists skip");
    assert_eq!(shell.ok("tenant list --state active -o name").lines().count(), 300);
}

#[test]
fn a_killed_creation_goes_on_when_it_is_repeated_and_another_one_does_not_take_its_names() {
    let shell = Shell::init();
    let names: String = (0..1000).map(|n| format!("t{n}\n")).collect();
    shell.write("names", names);
    let mut child = shell.command().args(["tenant", "create", "--from-file", "names"]).spawn().unwrap();
    while shell.ok("op list -o name").is_empty() && child.try_wait().unwrap().is_none() {}
    child.kill().unwrap();
    child.wait().unwrap();
    let said = shell.refused("tenant create t7", 7);
    assert!(said.contains("already_exists") && said.contains("fleetctl op wait op_"), "{said}");
    shell.ok("tenant create --from-file names");
    assert_eq!(shell.ok("tenant list --state active -o name").lines().count(), 1_000);
    shell.refused("tenant create --from-file names", 7);
}

#[test]
fn waiting_ends_when_patience_does() {
    let shell = Shell::init();
    shell.ok("tenant create a b c d");
    shell.write("m/0001_more.sql", MIGRATION);
    let _served = Served::start(shell.path());
    let writing = in_the_middle_of_a_write(&shell);
    let ran = shell.run("migrate run m --all --concurrency 1 --timeout 1ms");
    assert_eq!(ran.code, Some(6), "{ran:?}");
    drop(writing);
    assert!(ran.stderr.contains("try:   fleetctl op wait op_"), "{ran:?}");
    let id = shell.ok("op list --kind migrate -o name").trim().to_owned();
    shell.ok(&format!("op wait {id}"));
}

/// A monitor that answers everything and remembers what was asked.
fn monitor(requests: usize, status: &'static str) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/abc", listener.local_addr().unwrap());
    let seen = std::thread::spawn(move || (0..requests).map(|_| answer(&listener, status)).collect());
    (url, seen)
}

fn answer(listener: &TcpListener, status: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut first = String::new();
    BufReader::new(&stream).read_line(&mut first).unwrap();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).unwrap();
    first.trim().to_owned()
}

#[test]
fn a_monitor_learns_of_start_and_end_and_changes_nothing() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    let (url, seen) = monitor(2, "200 OK");
    let ran = shell.run(&format!("backup run --all --quiet --ping-url {url}"));
    assert_eq!((ran.code, ran.stdout, ran.stderr), (Some(0), String::new(), String::new()));
    assert_eq!(seen.join().unwrap(), ["GET /abc/start HTTP/1.1", "GET /abc/0 HTTP/1.1"]);
    let (url, seen) = monitor(2, "500 No");
    shell.refused(&format!("backup run nobody --ping-url {url}"), 5);
    assert_eq!(seen.join().unwrap(), ["GET /abc/start HTTP/1.1", "GET /abc/5 HTTP/1.1"]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    shell.ok(&format!("backup run --all --ping-url http://{free}/abc"));
}

#[test]
fn a_revoked_operator_is_refused_and_a_viewer_only_looks() {
    let mut shell = Shell::init();
    let served = Served::start(shell.path());
    let viewer = shell.ok("token create --operator viewer -o name");
    shell.set("FLEET_URL", served.admin_url.clone());
    shell.set("FLEET_TOKEN", viewer.trim());
    shell.ok("tenant list");
    let said = shell.refused("tenant create acme", 12);
    assert!(said.contains("explain forbidden") && !said.contains(viewer.trim()), "{said}");
    let file = shell.write("token", "flt_wrong\n");
    let said = shell.refused(&format!("--token-file {} tenant list", file.display()), 12);
    assert!(said.contains("unauthenticated"), "{said}");
}

/// `fleetctl dev` until its lines are printed.
fn dev(shell: &Shell) -> (Child, Vec<String>) {
    let mut command = shell.command();
    command.args(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let last = line.contains("/v1/status");
        lines.push(line);
        if last {
            break;
        }
    }
    (child, lines)
}

/// Pastes a line into a shell.
fn paste(line: &str) -> String {
    let output = Command::new("bash").args(["-c", line]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn dev_prints_lines_that_work_and_serves_again_what_is_there() {
    let shell = Shell::new();
    let begun = Instant::now();
    let (mut child, lines) = dev(&shell);
    assert!(begun.elapsed() < Duration::from_secs(30), "a bound for a loaded machine; the promise is 3 s");
    let curls: Vec<_> = lines.iter().filter(|l| l.starts_with("curl ")).cloned().collect();
    assert_eq!(curls.len(), 4, "{lines:#?}");
    let tasks: Value = serde_json::from_str(&paste(&curls[0])).unwrap();
    assert_eq!(tasks["rows"].as_array().unwrap().len(), 2, "{tasks}");
    let added: Value = serde_json::from_str(&paste(&curls[1])).unwrap();
    assert_eq!(added["rows_affected"], json!(1));
    let foreign = paste(&curls[2]);
    assert!(foreign.starts_with("HTTP/1.1 404") && !foreign.contains("Welcome to globex"), "{foreign}");
    let status: Value = serde_json::from_str(&paste(&curls[3])).unwrap();
    assert_eq!(status["tenants"]["active"], json!(2), "{status}");
    assert_eq!(shell.ok("tenant list -o name"), "acme\nglobex\n");
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let (mut again, lines) = dev(&shell);
    let secret = |line: &str| line.split("Bearer ").nth(1).and_then(|t| t.split('\'').next()).map(str::to_owned);
    let curl = lines.iter().find(|l| l.starts_with("curl ")).unwrap();
    assert_eq!(secret(curl), secret(&curls[0]), "the same token");
    let tasks: Value = serde_json::from_str(&paste(curl)).unwrap();
    assert_eq!(tasks["rows"].as_array().unwrap().len(), 3, "what was added is there: {tasks}");
    signal(&again, "TERM");
    assert_eq!(again.wait().unwrap().code(), Some(0));
}

#[test]
fn dev_adds_nothing_to_somebodys_fleet() {
    let shell = Shell::init();
    shell.ok("tenant create customer");
    let (mut child, lines) = dev(&shell);
    assert!(!lines.iter().any(|l| l.contains("/t/acme")), "{lines:#?}");
    signal(&child, "INT");
    child.wait().unwrap();
    assert_eq!(shell.ok("tenant list -o name"), "customer\n");
}

#[test]
fn serve_prints_both_addresses_and_ends_in_order() {
    let shell = Shell::init();
    let mut command = shell.command();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "-o", "jsonl"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let endpoint: Value = serde_json::from_str(&line).unwrap();
    assert!(endpoint["data_url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{endpoint}");
    assert_eq!(endpoint["pid"], json!(child.id()));
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(!shell.path().join("fleet-data/endpoint.json").exists());
}
