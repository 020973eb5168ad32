//! What the command line does without a fleet: help, settings, explanations, refusals.

use std::fs;
use std::path::Path;

use crate::shell::Shell;
use fleet_tests::workspace_root;

#[test]
fn usage_is_refused_in_words() {
    let binary = fleet_tests::fleetctl(Path::new("/")).get_program().to_owned();
    trycmd::TestCases::new().register_bin("fleetctl", Path::new(&binary)).case("tests/cmd/*.trycmd");
}

#[test]
fn every_command_has_help_and_no_later_verb_exists() {
    let shell = Shell::new();
    let help = shell.ok("--help");
    for noun in [
        "dev", "init", "serve", "status", "doctor", "audit", "scrub", "leaktest", "tenant", "server", "member",
        "token", "release", "migrate",
    ] {
        assert!(help.contains(&format!("\n  {noun} ")), "{noun}");
        assert!(shell.ok(&format!("{noun} --help")).contains("Usage: fleetctl"), "{noun}");
    }
    for later in ["drift", "export", "catalog", "tenant clone", "migrate lint", "backup prune"] {
        shell.refused(later, 2);
    }
}

#[test]
fn without_a_fleet_commands_exit_5_and_make_nothing() {
    let shell = Shell::new();
    for line in ["status", "doctor", "scrub", "tenant list", "tenant create acme", "serve", "query 'select 1' --all"] {
        let said = shell.refused(line, 5);
        assert!(
            said.contains("error: there is no fleet in ") && said.contains("try:   fleetctl init"),
            "{line}: {said}"
        );
    }
    assert_eq!(fs::read_dir(shell.path()).unwrap().count(), 0);
}

#[test]
fn an_address_needs_a_token_and_somebody_who_answers() {
    let mut shell = Shell::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    assert!(shell.refused(&format!("--url {url} status"), 12).contains("FLEET_TOKEN"));
    shell.set("FLEET_TOKEN", "flt_secret");
    let said = shell.refused(&format!("--url {url} status"), 15);
    assert!(said.contains("cannot reach the control plane") && !said.contains("flt_secret"), "{said}");
    shell.refused("--url ftp://x status", 2);
    shell.refused("--url http://user:pass@x status", 2);
    shell.refused(&format!("--url {url} --token-file missing status"), 2);
    shell.refused(&format!("--url {url} init"), 2);
    shell.refused(&format!("--url {url} serve"), 2);
}

#[test]
fn settings_say_where_they_come_from() {
    let mut shell = Shell::new();
    shell.write("fleet.toml", "domain = 'file.example'\nlisten = '127.0.0.1:9'\n[tls]\ncertificate = 'c.pem'\n");
    shell.write(".config/fleetctl/config.toml", "domain = 'user.example'\noutput = 'csv'\n");
    shell.set("FLEET_LISTEN", "127.0.0.1:7");
    shell.set("FLEET_KEY", "hunter2");
    let shown = shell.ok("config show --origin -o table");
    let line = |key: &str| shown.lines().find(|l| l.starts_with(&format!("{key} "))).unwrap().to_owned();
    assert!(line("domain").contains("file.example") && line("domain").ends_with("/fleet.toml"), "{shown}");
    assert!(line("listen").contains("127.0.0.1:7") && line("listen").ends_with("FLEET_LISTEN"));
    assert!(line("output").contains("table") && line("output").ends_with("flag"));
    assert!(line("tls_certificate").contains("c.pem"));
    assert!(line("data_dir").ends_with("default"));
    assert!(!shown.contains("hunter2") && line("key").contains("(set, not shown)"));
    assert!(shell.ok("config show").starts_with("key,value\n"), "the user's file chose csv");
}

#[test]
fn an_unknown_setting_is_an_error() {
    let shell = Shell::new();
    shell.write("fleet.toml", "colour = 'red'\n");
    let said = shell.refused("tenant list", 2);
    assert!(said.contains("there is no setting \"colour\"") && said.contains("fleet.toml"), "{said}");
    shell.write("fleet.toml", "token = 'flt_x'\n");
    let said = shell.refused("tenant list", 2);
    assert!(said.contains("FLEET_TOKEN") && !said.contains("flt_x"), "{said}");
    shell.write("fleet.toml", "output = 'yaml'\n");
    assert!(shell.refused("tenant list", 2).contains("output cannot be \"yaml\""));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let shell = Shell::new();
    for name in ["bash", "zsh", "fish"] {
        assert!(shell.ok(&format!("completions {name}")).contains("fleetctl"), "{name}");
    }
    assert!(shell.ok("man").contains(".TH fleetctl 1"));
    fs::create_dir(shell.path().join("man1")).unwrap();
    shell.ok("man man1");
    assert!(shell.path().join("man1/fleetctl-tenant-create.1").exists());
    shell.refused("man no/such/place", 1);
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is() {
    let shell = Shell::new();
    let piped = |to: &str| {
        let script = format!("set -o pipefail; \"$0\" explain {to}");
        let program = shell.command().get_program().to_owned();
        let output = std::process::Command::new("bash").args(["-c", &script]).arg(program).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(piped("-o json | head -c 1 >/dev/null"), (Some(0), String::new()));
    let (code, said) = piped("> /dev/full");
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot write to standard output"), "{said}");
}

/// Every code that a crate can answer with, found in its source, is explained.
#[test]
fn every_error_code_is_explained() {
    let shell = Shell::new();
    let known = shell.ok("explain -o name");
    let known: Vec<_> = known.lines().collect();
    let mut codes = Vec::new();
    for (krate, makers) in [
        ("tenant-engine/src/error.rs", &["=> \""][..]),
        ("catalog/src/error.rs", &["=> \""]),
        ("tenant-router/src/error.rs", &["=> \""]),
        ("control-plane/src/error/kind.rs", &["=> \""]),
        ("fleetctl/src", &[".code(\""]),
        ("leak-kit/src", &["KitError::new("]),
    ] {
        let found = codes_in(&workspace_root().join(krate), makers);
        assert!(!found.is_empty(), "{krate}: the search finds nothing any more");
        codes.extend(found);
    }
    let sources: String = CRATES.iter().map(|krate| quoted_in(&workspace_root().join(krate).join("src"))).collect();
    let unmade: Vec<_> = known.iter().filter(|c| !sources.contains(&format!("\"{c}\""))).collect();
    assert!(unmade.is_empty(), "explained, but nobody answers with them: {unmade:?}");
    let missing: Vec<_> = codes.iter().filter(|c| !known.contains(&c.as_str())).collect();
    assert!(missing.is_empty(), "not explained: {missing:?}");
}

const CRATES: [&str; 8] =
    ["tenant-engine", "catalog", "tenant-router", "fleet-api", "control-plane", "fleet-client", "leak-kit", "fleetctl"];

/// Every source below a folder but the explanations themselves.
fn quoted_in(path: &Path) -> String {
    if path.ends_with("explanations") {
        return String::new();
    }
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|e| quoted_in(&e.unwrap().path())).collect();
    }
    fs::read_to_string(path).unwrap()
}

/// The first text in quotes after each maker, where it looks like a code.
fn codes_in(path: &Path, makers: &[&str]) -> Vec<String> {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().flat_map(|e| codes_in(&e.unwrap().path(), makers)).collect();
    }
    let source = fs::read_to_string(path).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut out = Vec::new();
    for maker in makers {
        for after in source.split(maker).skip(1) {
            let quoted = if maker.ends_with('"') { Some(after) } else { first_argument_texts(after) };
            let code = quoted.and_then(|q| q.split('"').next()).unwrap_or_default();
            if !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                out.push(code.to_owned());
            }
        }
    }
    out
}

/// What follows the first quote, if it comes before the call can be over.
fn first_argument_texts(after: &str) -> Option<&str> {
    let quote = after.find('"')?;
    let end = after.find(';').unwrap_or(after.len());
    (quote < end).then(|| &after[quote + 1..])
}
