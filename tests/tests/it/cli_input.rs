//! Bad input: a clear refusal with its exit code, and nothing half made.

use std::os::unix::fs::PermissionsExt;

use crate::shell::Shell;

#[test]
fn names_that_are_none_are_refused_one_by_one_and_together() {
    let shell = Shell::init();
    let long = "a".repeat(300);
    for name in ["..", "%2e", "a_b", "-a", "a-", "xn--bcher-kva", "a b", "a/b", "bücher", "", &long] {
        let ran = shell.args(&["tenant".into(), "create".into(), "--".into(), name.to_owned()], b"");
        assert_eq!(ran.code, Some(2), "{name:?}: {ran:?}");
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.len() < 1_000, "{name:?}: {ran:?}");
    }
    let list = format!("good\n..\n# a remark\nnul\0name\n{long}\nalso-good\n");
    let ran = shell.fed("tenant create --from-file -", list.as_bytes());
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for said in ["entry 2: '..'", "entry 3: 'nul", "entry 4: 'aaaa"] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    assert_eq!(shell.ok("tenant list -o name"), "", "nothing was made");
    assert_eq!(shell.ok("op list -o name"), "");
}

#[test]
fn upper_case_and_a_final_dot_are_the_same_name_or_refused() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    let ran = shell.run("tenant create ACME");
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert_ne!(shell.run("tenant create ACME.").code, Some(0));
    assert_eq!(shell.ok("tenant list -o name"), "acme\n");
}

#[test]
fn a_name_that_is_taken_conflicts_or_is_skipped() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    shell.refused("tenant create acme", 7);
    shell.refused("tenant create globex acme", 7);
    assert_eq!(shell.ok("tenant list -o name"), "acme\n", "all or nothing");
    shell.ok("tenant create globex acme --if-exists skip");
    assert_eq!(shell.ok("tenant list -o name"), "acme\nglobex\n");
}

#[test]
fn what_is_not_there_is_not_found() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    let none = "01900000-0000-7000-8000-000000000000";
    for line in [
        "tenant get globex".to_owned(),
        "tenant delete globex --yes".to_owned(),
        "tenant label globex a=b".to_owned(),
        "backup run globex".to_owned(),
        "query 'select 1' globex".to_owned(),
        "restore run globex --to latest --yes".to_owned(),
        "restore run acme --to latest --yes".to_owned(),
        "member list globex".to_owned(),
        "member remove acme nobody".to_owned(),
        "token create --tenant globex --role reader".to_owned(),
        format!("token revoke tok_{none}"),
        format!("op get op_{none}"),
        format!("op wait op_{none}"),
        format!("backup get bkp_{none}"),
        format!("release get rel_{none}"),
        format!("release activate rel_{none}"),
        "server get nowhere".to_owned(),
        "migrate retry".to_owned(),
    ] {
        let said = shell.refused(&line, 5);
        assert!(said.starts_with("error: "), "{line}: {said}");
    }
}

#[test]
fn ids_of_the_wrong_kind_are_refused() {
    let shell = Shell::init();
    for line in [
        "op get acme",
        "backup get latest",
        "release get 1",
        "token revoke flt_x",
        "tenant get ..",
        "tenant get a/../b",
    ] {
        let ran = shell.run(line);
        assert!(matches!(ran.code, Some(2 | 5)), "{line}: {ran:?}");
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_with_their_name() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    let refused = |line: &str, says: &str| {
        let said = shell.refused(line, 2);
        assert!(said.contains(says), "{line}: {said}");
    };
    refused("tenant create --from-file missing.txt", "cannot read 'missing.txt'");
    refused("tenant create --from-file .", "cannot read '.'");
    shell.write("bytes.txt", b"ok\n\xff\xfe\n");
    refused("tenant create --from-file bytes.txt", "line 2 of bytes.txt is not UTF-8");
    shell.write("empty.txt", "\n# nothing\n");
    refused("tenant create --from-file empty.txt", "names no tenant");
    refused("backup run --from-file empty.txt", "names no tenant");
    refused("migrate run missing --all", "cannot read 'missing'");
    std::fs::create_dir(shell.path().join("none")).unwrap();
    refused("migrate run none --all", "0 .sql files");
    shell.write("utf/0001_x.sql", b"select \xff");
    refused("migrate run utf --all", "is not UTF-8");
    shell.write("twice/0001_a.sql", "select 1;");
    shell.write("twice/0001_b.sql", "select 1;");
    let said = shell.refused("migrate run twice --all", 2);
    assert!(said.contains("migration_invalid"), "{said}");
    shell.write("words/first.sql", "select 1;");
    shell.refused("migrate run words --all", 2);
    let locked = shell.write("locked.txt", "globex\n");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&locked).is_err() {
        refused("tenant create --from-file locked.txt", "cannot read 'locked.txt'");
    }
    assert_eq!(shell.ok("tenant list -o name"), "acme\n");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    for line in [
        "tenant list -o yaml",
        "tenant list -l plan!",
        "tenant list -l plan>1",
        "backup run -l plan!",
        "op list --kind mgirate",
        "op list --state don",
        "backup run acme --all",
        "backup run --all --timeout soon",
        "backup run --all --no-wait --timeout 5s",
        "--lock-wait forever backup run --all",
        "--ping-url monitor backup run --all",
        "migrate run m --all --target x",
        "token create --operator viewer --role reader",
        "token create --tenant acme --service --role reader",
        "member add acme x --role owner",
        "server add x --base rel --engine oracle",
    ] {
        shell.refused(line, 2);
    }
}

#[test]
fn a_protected_tenant_is_not_deleted() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    shell.ok("tenant protect acme");
    let said = shell.refused("tenant delete acme --yes", 7);
    assert!(said.contains("explain protected"), "{said}");
    shell.ok("tenant protect acme --off");
    shell.ok("tenant delete acme --yes");
    assert_eq!(shell.ok("tenant list --state active -o name"), "");
    shell.refused("tenant create acme", 7);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_an_error_in_words() {
    let shell = Shell::new();
    shell.write("fleet-data", "a file where a directory should be");
    let ran = shell.run("init");
    assert!(matches!(ran.code, Some(1 | 2)) && ran.stderr.starts_with("error: "), "{ran:?}");
    let ran = shell.run("tenant list");
    assert!(matches!(ran.code, Some(1 | 2 | 5)) && ran.stderr.starts_with("error: "), "{ran:?}");
    let ran = shell.run("--data-dir /proc/fleet init");
    assert!(matches!(ran.code, Some(1 | 2)) && ran.stderr.starts_with("error: "), "{ran:?}");
}

#[test]
fn a_fleet_that_lost_its_catalog_is_not_replaced_by_a_new_one() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    let data = shell.path().join("fleet-data");
    for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(data.join(file));
    }
    for line in ["init --dry-run", "init", "tenant list"] {
        let said = shell.refused(line, 1);
        assert!(said.contains("catalog.db, is gone") && said.contains("explain catalog_missing"), "{line}: {said}");
    }
    assert!(!data.join("catalog.db").exists());
}

#[test]
fn a_read_only_data_directory_is_named_as_such() {
    use std::os::unix::fs::PermissionsExt as _;
    let shell = Shell::init();
    let data = shell.path().join("fleet-data");
    for side in ["catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(data.join(side));
    }
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write anyway; then the command must work as ever.
    let writable = std::fs::File::create(data.join("probe")).is_ok();
    let ran = shell.run("tenant list");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    match writable {
        true => assert_eq!(ran.code, Some(0), "{ran:?}"),
        false => {
            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(ran.stderr.contains("may not write to"), "{ran:?}");
        }
    }
}

#[test]
fn a_damaged_or_foreign_key_is_told() {
    let shell = Shell::init();
    let other = Shell::init();
    std::fs::copy(other.path().join("fleet-data/fleet.key"), shell.path().join("fleet-data/fleet.key")).unwrap();
    let ran = shell.run("tenant list");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("explain wrong_key"), "{ran:?}");
}
