use super::*;
use proptest::prelude::*;

fn file(name: &str, sql: &str) -> MigrationFile {
    MigrationFile { name: name.to_owned(), sql: sql.to_owned() }
}

fn set(versions: &[i64]) -> MigrationSet {
    let files: Vec<MigrationFile> =
        versions.iter().map(|v| file(&format!("{v}_v.sql"), &format!("create table t{v}(a);"))).collect();
    MigrationSet::from_files(&files).unwrap()
}

fn applied(set: &MigrationSet, versions: &[i64]) -> Vec<AppliedMigration> {
    let row = |v: &i64| AppliedMigration {
        version: *v,
        checksum: set.get(*v).map_or(vec![0], |m| m.checksum.clone()),
        success: true,
    };
    versions.iter().map(row).collect()
}

fn versions(found: &[&Migration]) -> Vec<i64> {
    found.iter().map(|m| m.version).collect()
}

fn kind_of(files: &[MigrationFile]) -> (ErrorKind, String) {
    let error = MigrationSet::from_files(files).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn a_directory_is_read_as_sqlx_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(directory.path().join(name), text).unwrap();
    write("0002_b_c.up.sql", b"create table b(x);");
    write("0002_b_c.down.sql", b"drop table b;");
    write("1_a.sql", b"create table a(x);\r\n");
    write("20251123_no_tx.sql", b"-- no-transaction\nvacuum;");
    write("README.md", b"not a migration");
    write("notes.sql", b"no underscore");
    write("3_c.sql.bak", b"no .sql at the end");
    std::fs::create_dir(directory.path().join("4_d.sql")).unwrap();

    let (set, files) = MigrationSet::read_directory(directory.path()).unwrap();
    let seen: Vec<_> = set
        .all_migrations()
        .iter()
        .map(|m| (m.version, m.description.as_str(), m.transactional, m.down.is_some()))
        .collect();
    assert_eq!(seen, [(1, "a", true, false), (2, "b c", true, true), (20_251_123, "no tx", false, false)]);
    assert_eq!(files.len(), 4);
    assert_eq!(MigrationSet::from_files(&files).unwrap(), set);
    assert_eq!(set.head_version(), Some(20_251_123));
}

#[tokio::test]
async fn sqlx_resolves_the_same_versions_descriptions_and_checksums() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("0001_first_one.sql", "create table a(x);\r\n"),
        ("+7_plus.sql", "select 1"),
        ("0010_rev.up.sql", "select 2"),
        ("0010_rev.down.sql", "select 3"),
        ("11_.sql", ""),
        ("12_x.sql.sql", "-- no-transaction"),
        ("13_ümlaut.sql", " -- no-transaction"),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let ours = MigrationSet::read_directory(directory.path()).unwrap().0;
    let theirs = sqlx::migrate::Migrator::new(directory.path()).await.unwrap();
    let theirs: Vec<_> = theirs
        .iter()
        .filter(|m| m.migration_type.is_up_migration())
        .map(|m| (m.version, m.description.to_string(), m.checksum.to_vec(), !m.no_tx))
        .collect();
    let ours: Vec<_> = ours
        .all_migrations()
        .iter()
        .map(|m| (m.version, m.description.clone(), m.checksum.clone(), m.transactional))
        .collect();
    assert_eq!(ours, theirs);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let cases: [(&[MigrationFile], &str); 5] = [
        (&[file("x_a.sql", "")], "must start with a number"),
        (&[file("99999999999999999999_a.sql", "")], "must start with a number"),
        (&[file("1_a.sql", ""), file("001_b.sql", "")], "both are version 1"),
        (&[file("1_a.up.sql", ""), file("1_a.sql", "")], "both are version 1"),
        (&[file("1_a.sql", "select '\0'")], "NUL"),
    ];
    for (files, text) in cases {
        let (kind, message) = kind_of(files);
        assert_eq!(kind, ErrorKind::MigrationInvalid, "{message}");
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = MigrationSet::read_directory(&directory.path().join("none")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::MigrationInvalid);

    std::fs::write(directory.path().join("1_a.sql"), b"select '\xff'").unwrap();
    assert!(
        MigrationSet::read_directory(directory.path())
            .unwrap_err()
            .message()
            .contains("'1_a.sql' is not UTF-8 (byte 8)")
    );

    std::fs::write(directory.path().join("1_a.sql"), vec![b' '; FILE_BYTES_MAX as usize + 1]).unwrap();
    assert!(MigrationSet::read_directory(directory.path()).unwrap_err().message().contains("larger than 16 MiB"));

    std::fs::remove_file(directory.path().join("1_a.sql")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("1_a.sql")).unwrap();
    assert!(MigrationSet::read_directory(directory.path()).unwrap_err().message().contains("cannot read"));
}

#[test]
fn a_down_file_without_its_up_file_is_passed_over() {
    let lone = [file("1_a.sql", "x"), file("2_b.down.sql", "y")];
    assert_eq!(MigrationSet::from_files(&lone).unwrap(), MigrationSet::from_files(&lone[..1]).unwrap());
}

#[tokio::test]
async fn settings_of_sqlx_give_the_checksums_of_sqlx() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("1_a.sql", "\u{feff}create table a(\r\n\tx);\r\n");
    write("2_b.sql", "create table b(x);\u{e4}");
    for ignored in [&[][..], &['\r'], &['\r', '\n', '\t', ' ', '\u{feff}', '\u{e4}']] {
        let list = ignored.iter().map(|c| format!("\"\\u{:04x}\"", u32::from(*c))).collect::<Vec<_>>().join(", ");
        write("sqlx.toml", &format!("[migrate]\nignored-chars = [{list}]"));
        let (ours, files) = MigrationSet::read_directory(directory.path()).unwrap();
        let mut config = sqlx::migrate::ResolveConfig::new();
        config.ignore_chars(ignored.iter().copied());
        let path = directory.path().to_path_buf();
        let theirs = sqlx::migrate::Migrator::new(sqlx::migrate::ResolveWith(path, config)).await.unwrap();
        let theirs: Vec<_> = theirs.iter().map(|migration| migration.checksum.to_vec()).collect();
        assert_eq!(ours.all_migrations().iter().map(|m| m.checksum.clone()).collect::<Vec<_>>(), theirs, "{list}");
        assert_eq!(MigrationSet::from_files(&files).unwrap(), ours, "the settings are among the files");
    }
    write("sqlx.toml", "[migrate]\ntable-name = 'ops.ledger'");
    assert!(MigrationSet::read_directory(directory.path()).unwrap_err().message().contains("table-name"));
}

#[test]
fn each_disagreement_with_the_ledger_is_its_own_error() {
    let set = set(&[1, 2, 4]);
    let kind = |rows: &[AppliedMigration]| pending_migrations(&set, rows).unwrap_err();
    let mut changed = applied(&set, &[1, 2]);
    changed[1].checksum = vec![1, 2, 3];
    assert_eq!(kind(&changed).kind(), ErrorKind::MigrationChanged);
    assert!(kind(&changed).message().contains("version 2"));
    assert_eq!(kind(&applied(&set, &[1, 3])).kind(), ErrorKind::MigrationMissing);
    assert_eq!(kind(&applied(&set, &[1, 2, 4, 9])).kind(), ErrorKind::MigrationAhead);
    let mut dirty = applied(&set, &[1, 9]);
    dirty[0].success = false;
    assert_eq!(kind(&dirty).kind(), ErrorKind::MigrationDirty);
    assert_eq!(
        pending_migrations(&MigrationSet::empty_set(), &applied(&set, &[1])).unwrap_err().kind(),
        ErrorKind::MigrationAhead
    );
    assert_eq!(versions(&pending_migrations(&set, &applied(&set, &[2])).unwrap()), [1, 4], "late versions are applied");
    assert_eq!(versions(&pending_to(&set, &[], Some(2)).unwrap()), [1, 2]);
    assert_eq!(pending_to(&set, &[], Some(3)).unwrap_err().kind(), ErrorKind::MigrationInvalid);
}

#[test]
fn the_digest_names_versions_and_texts() {
    let one = MigrationSet::from_files(&[file("1_a.sql", "x")]).unwrap();
    assert_eq!(one.set_digest(), MigrationSet::from_files(&[file("01_other.sql", "x")]).unwrap().set_digest());
    assert_ne!(one.set_digest(), MigrationSet::from_files(&[file("2_a.sql", "x")]).unwrap().set_digest());
    assert_ne!(one.set_digest(), MigrationSet::from_files(&[file("1_a.sql", "y")]).unwrap().set_digest());
    assert_ne!(one.set_digest(), MigrationSet::empty_set().set_digest());
}

proptest! {
    #[test]
    fn pending_is_exactly_what_the_ledger_lacks(
        all in prop::collection::btree_set(-50i64..50, 0..30),
        pick in prop::collection::vec(any::<bool>(), 30),
    ) {
        let all: Vec<i64> = all.into_iter().collect();
        let set = set(&all);
        let (done, todo): (Vec<_>, Vec<_>) = all.iter().zip(pick).partition(|(_, done)| *done);
        let done: Vec<i64> = done.into_iter().map(|(v, _)| *v).collect();
        let todo: Vec<i64> = todo.into_iter().map(|(v, _)| *v).collect();
        prop_assert_eq!(versions(&pending_migrations(&set, &applied(&set, &done)).unwrap()), todo);
    }

    #[test]
    fn a_row_the_set_does_not_hold_is_never_accepted(
        all in prop::collection::btree_set(0i64..50, 0..20),
        stranger in 0i64..60,
    ) {
        let all: Vec<i64> = all.into_iter().filter(|v| *v != stranger).collect();
        let set = set(&all);
        let error = pending_migrations(&set, &applied(&set, &[stranger])).unwrap_err();
        let ahead = all.iter().all(|v| *v < stranger);
        prop_assert_eq!(error.kind() == ErrorKind::MigrationAhead, ahead);
        prop_assert!(error.message().contains(&stranger.to_string()));
    }

    #[test]
    fn no_name_panics_and_what_is_accepted_is_a_number_and_sql(name in "[0-9+_a-z.-]{0,12}(_[a-z_]{0,6})?(\\.up|\\.down)?(\\.sql)?") {
        if let Ok(Some(parsed)) = MigrationFileName::parse(&name) {
            prop_assert!(name.ends_with(".sql"));
            prop_assert_eq!(name.split('_').next().unwrap().parse::<i64>().unwrap(), parsed.version);
            prop_assert!(!parsed.description.contains('_'));
        }
    }

    #[test]
    fn order_of_files_does_not_matter(mut files in Just(vec![file("1_a.sql", "a"), file("2_b.up.sql", "b"), file("2_b.down.sql", "c"), file("9_z.sql", "z")]).prop_shuffle()) {
        let shuffled = MigrationSet::from_files(&files).unwrap();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        prop_assert_eq!(shuffled, MigrationSet::from_files(&files).unwrap());
    }
}
