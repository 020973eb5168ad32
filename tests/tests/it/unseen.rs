//! Checks that cannot look say so: with the cause, a code and another exit than success, and no advice that loses data.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::shell::{Ran, Shell, words};

/// A fleet of two tenants with a backup of each.
fn fleet() -> Shell {
    let shell = Shell::init();
    shell.write("m/0001_a.sql", "create table a (b integer);\n");
    shell.ok("migrate run m --all");
    shell.ok("tenant create acme globex");
    shell.ok("backup run --all");
    shell
}

/// Even an administrator's process obeys permissions without these two rights.
fn restricted(shell: &Shell, line: &str) -> Ran {
    let program = shell.command();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search"]).arg(program.get_program());
    command.args(words(line)).current_dir(shell.path()).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn could_not_look(line: &str, ran: &Ran, words: &[&str]) {
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_ne!(ran.code, Some(0), "{line}: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{line}: {said}");
    assert!(!said.contains("restore run") && !said.contains("damaged"), "{line}: {said}");
}

#[test]
fn databases_behind_a_closed_directory_are_unknown() {
    let shell = fleet();
    let tenants = shell.path().join("fleet-data/tenants");
    std::fs::set_permissions(&tenants, std::fs::Permissions::from_mode(0o000)).unwrap();
    let lines = [
        ("server list", ["could not be checked", "try:   fleetctl doctor"]),
        ("server get local", ["could not be checked", "try:   fleetctl doctor"]),
        ("migrate status --check", ["could not look at 2 databases", "try:   fleetctl scrub"]),
        ("scrub", ["server_unreachable", "Permission denied"]),
        ("doctor", ["could not look", "could not be read"]),
    ];
    let ran = lines.map(|(line, words)| (line, restricted(&shell, line), words));
    std::fs::set_permissions(&tenants, std::fs::Permissions::from_mode(0o700)).unwrap();
    for (line, ran, words) in ran {
        could_not_look(line, &ran, &words);
    }
    shell.ok("server list");
}

/// A store that was lost, exchanged or not mounted says nothing about the backups in it.
#[test]
fn backups_in_a_store_that_is_gone_are_not_called_damaged() {
    let shell = fleet();
    let store = shell.path().join("fleet-data/backups");
    std::fs::rename(&store, shell.path().join("elsewhere")).unwrap();
    could_not_look(
        "backup verify",
        &shell.run("backup verify acme"),
        &["backup_store_unavailable", "no backup at all"],
    );
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(shell.path().join("elsewhere"), &store).unwrap();
    shell.ok("backup verify acme");
    // One that is missing from a store with others is.
    let manifest = shell.json("backup list acme")["items"][0]["object_key"].as_str().unwrap().to_owned();
    let folder = store.join(&manifest).parent().unwrap().to_owned();
    std::fs::remove_dir_all(folder).unwrap();
    let said = shell.refused("backup verify acme", 1);
    assert!(said.contains("backup_damaged") && said.contains("missing"), "{said}");
    assert!(shell.ok("backup list acme").contains("missing"), "the list says what was wrong");
}
