//! A backup store that gives back something else than it was given.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use catalog::backups::BackupRecord;
use control_plane::operations::restore::{self, RestorePoint};
use control_plane::operations::{OperationParams, archive, unarchive, verify};
use control_plane::plan::TenantSelection;
use serde_json::Value;

use crate::invariants;
use crate::world::{TASKS, World, restoring};

fn acme() -> TenantSelection {
    TenantSelection::one_tenant("acme")
}

/// Two tenants with a row of the same length each, and of the first one two backups.
struct Store {
    world: World,
    old: BackupRecord,
    mine: BackupRecord,
    theirs: BackupRecord,
}

async fn store() -> Store {
    let world = World::new().await;
    world.migrate(&[TASKS]).await;
    world.create(&["acme", "fizz"]).await;
    world.sql("fizz", "insert into tasks (id, title) values (1, 'row of fizz')").await;
    world.sql("acme", "insert into tasks (id, title) values (1, 'row of old!')").await;
    let old = world.backup("acme").await;
    world.sql("acme", "update tasks set title = 'row of acme'").await;
    let (mine, theirs) = (world.backup("acme").await, world.backup("fizz").await);
    Store { world, old, mine, theirs }
}

impl Store {
    fn manifest(&self, of: &BackupRecord) -> PathBuf {
        self.world.object(&of.object_key)
    }

    fn object(&self, of: &BackupRecord) -> PathBuf {
        self.world.object(&of.object_key.replace(".manifest.json", ".db.zst"))
    }

    fn json(&self, of: &BackupRecord) -> Value {
        serde_json::from_slice(&std::fs::read(self.manifest(of)).unwrap()).unwrap()
    }

    /// Changes the newest backup's manifest.
    fn forge(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.json(&self.mine);
        change(&mut manifest);
        std::fs::write(self.manifest(&self.mine), manifest.to_string()).unwrap();
    }

    /// The newest backup announces what is in another one, under its own names.
    fn relabel(&self, other: &BackupRecord) {
        let theirs = self.json(other);
        std::fs::copy(self.object(other), self.object(&self.mine)).unwrap();
        self.forge(|mine| {
            mine["image"] = theirs["image"].clone();
            mine["content_hash"] = theirs["content_hash"].clone();
            for field in ["size_bytes", "sha256"] {
                mine["object"][field] = theirs["object"][field].clone();
            }
        });
    }

    /// A stored object that unpacks to 3 GiB, as long as the real one where that is possible.
    fn bomb(&self) {
        let object = self.object(&self.mine);
        let length = std::fs::metadata(&object).unwrap().len();
        let mut bytes = bomb(3 << 30);
        bytes.resize(bytes.len().max(usize::try_from(length).unwrap()), 0);
        std::fs::write(&object, bytes).unwrap();
    }

    fn pipe(&self, at: &Path) {
        std::fs::remove_file(at).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at).status().unwrap();
        assert!(made.success());
    }

    fn link(&self, at: &Path, to: &Path) {
        std::fs::remove_file(at).unwrap();
        symlink(to, at).unwrap();
    }
}

/// A zstd frame of blocks that repeat one byte: `size` bytes from a few thousand.
fn bomb(size: u64) -> Vec<u8> {
    const BLOCK_BYTES: u32 = 128 << 10;
    // Magic; a window of 128 KiB, no checksum, no content size.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    let blocks = size / u64::from(BLOCK_BYTES);
    for block in 1..=blocks {
        let header = (BLOCK_BYTES << 3) | (1 << 1) | u32::from(block == blocks);
        bytes.extend_from_slice(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

/// Puts one file of the store in another one's place.
fn put(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
}

type Attack = (&'static str, fn(&Store));

const ATTACKS: &[Attack] = &[
    ("another tenant's object", |s| put(&s.object(&s.theirs), &s.object(&s.mine))),
    ("another tenant's manifest", |s| put(&s.manifest(&s.theirs), &s.manifest(&s.mine))),
    ("another tenant's data relabelled", |s| s.relabel(&s.theirs)),
    ("the same without a signature, as an older program wrote it", |s| {
        s.relabel(&s.theirs);
        s.forge(|m| {
            m["format"] = 1.into();
            m.as_object_mut().unwrap().remove("authentication");
        });
    }),
    ("another tenant's backup whole, with the ids changed", |s| {
        let mut theirs = s.json(&s.theirs);
        let mine = s.json(&s.mine);
        for field in ["backup", "tenant", "op", "taken_at_ms"] {
            theirs[field] = mine[field].clone();
        }
        theirs["object"]["key"] = mine["object"]["key"].clone();
        std::fs::write(s.manifest(&s.mine), theirs.to_string()).unwrap();
        std::fs::copy(s.object(&s.theirs), s.object(&s.mine)).unwrap();
    }),
    ("an older database under a newer manifest", |s| put(&s.object(&s.old), &s.object(&s.mine))),
    ("an older backup relabelled as the newer one", |s| s.relabel(&s.old)),
    ("an older manifest in the newer one's place", |s| put(&s.manifest(&s.old), &s.manifest(&s.mine))),
    ("a huge size announced", |s| {
        s.bomb();
        s.forge(|m| m["image"]["size_bytes"] = (3_u64 << 30).into());
    }),
    ("a bomb behind an honest manifest", Store::bomb),
    ("a bomb, its own length announced", |s| {
        s.bomb();
        let length = std::fs::metadata(s.object(&s.mine)).unwrap().len();
        s.forge(|m| m["object"]["size_bytes"] = length.into());
    }),
    ("an object that is cut off", |s| {
        let file = std::fs::OpenOptions::new().write(true).open(s.object(&s.mine)).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    }),
    ("an empty object", |s| std::fs::write(s.object(&s.mine), "").unwrap()),
    ("an object with something behind it", |s| {
        let mut bytes = std::fs::read(s.object(&s.mine)).unwrap();
        bytes.push(0);
        std::fs::write(s.object(&s.mine), bytes).unwrap();
    }),
    ("violations hidden", |s| s.forge(|m| m["foreign_key_violations"] = 7.into())),
    ("another key's signature", |s| s.forge(|m| m["authentication"] = "v1:00000000:AAAA".into())),
    ("an unknown field", |s| s.forge(|m| m["later"] = true.into())),
    ("white space behind the manifest", |s| {
        let text = std::fs::read_to_string(s.manifest(&s.mine)).unwrap();
        std::fs::write(s.manifest(&s.mine), text + "\n").unwrap();
    }),
    ("a field twice", |s| {
        let text = std::fs::read_to_string(s.manifest(&s.mine)).unwrap();
        std::fs::write(s.manifest(&s.mine), text.replacen('{', "{\"reason\": \"manual\",", 1)).unwrap();
    }),
    ("a manifest without end", |s| {
        let text = std::fs::read_to_string(s.manifest(&s.mine)).unwrap();
        std::fs::write(s.manifest(&s.mine), text + &" ".repeat(100_000)).unwrap();
    }),
    ("an object that is a link to the right one", |s| {
        let aside = s.object(&s.mine).with_extension("aside");
        std::fs::rename(s.object(&s.mine), &aside).unwrap();
        symlink(aside, s.object(&s.mine)).unwrap();
    }),
    ("an object that is a link to another tenant's", |s| s.link(&s.object(&s.mine), &s.object(&s.theirs))),
    ("an object without end", |s| s.link(&s.object(&s.mine), Path::new("/dev/zero"))),
    ("a manifest that is a link", |s| s.link(&s.manifest(&s.mine), &s.manifest(&s.theirs))),
    ("an object that is a pipe", |s| s.pipe(&s.object(&s.mine))),
    ("a manifest that is a pipe", |s| s.pipe(&s.manifest(&s.mine))),
];

#[tokio::test]
async fn what_this_fleet_did_not_write_is_never_restored_nor_taken_for_proved() {
    let store = store().await;
    let world = &store.world;
    let files = [store.manifest(&store.mine), store.object(&store.mine)];
    let whole = files.each_ref().map(|file| std::fs::read(file).unwrap());
    let before = world.tenant("acme").await;
    let refusals = ["backup_damaged", "backup_not_authentic", "wrong_tenant_backup"];
    let named = || OperationParams::Verify(verify::VerifyParams { backups: vec![store.mine.id] });
    for (attack, act) in ATTACKS {
        act(&store);
        for (params, whom) in [(restoring(RestorePoint::Latest), acme()), (named(), TenantSelection::default())] {
            let ended = world.run(params, whom).await.unwrap();
            let code = world.failure(&ended).await;
            assert!(refusals.contains(&code.as_str()), "{attack}: {code}");
        }
        for (file, bytes) in files.iter().zip(&whole) {
            let _ = std::fs::remove_file(file);
            std::fs::write(file, bytes).unwrap();
        }
    }
    let now = world.tenant("acme").await;
    assert_eq!((now.generation, &now.placement), (before.generation, &before.placement));
    invariants::check(world).await;
    world.succeed(named(), TenantSelection::default()).await;
    world.succeed(restoring(RestorePoint::Latest), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks where title = 'row of acme'").await, 1);
}

#[tokio::test]
async fn nothing_is_fetched_for_a_manifest_that_is_not_believed() {
    let store = store().await;
    // Were the object looked at, the answer would be that it is missing.
    std::fs::remove_file(store.object(&store.mine)).unwrap();
    store.forge(|m| m["image"]["size_bytes"] = (3_u64 << 30).into());
    let ended = store.world.run(restoring(RestorePoint::Latest), acme()).await.unwrap();
    let failed = store.world.steps(ended.id, &[]).await.remove(0).0.error.unwrap();
    assert!(failed.contains("differ in the size"), "{failed}");
    let shown = store.world.app.backup_manifest(&store.mine).await.unwrap_err();
    assert_eq!(shown.code(), "backup_damaged", "and it is not shown either");
}

#[tokio::test]
async fn every_way_back_from_a_backup_asks_for_proof() {
    let store = store().await;
    let world = &store.world;
    let as_new = OperationParams::Restore(restore::RestoreParams {
        to: RestorePoint::Latest,
        as_name: Some("copy".to_owned()),
        schema: restore::RestoredSchema::Backup,
        resolved: None,
    });
    store.relabel(&store.theirs);
    let ended = world.run(as_new, acme()).await.unwrap();
    assert_ne!(world.failure(&ended).await, "");
    world.succeed(OperationParams::Archive(archive::ArchiveParams {}), acme()).await;
    let archived = world.newest("acme").await.unwrap();
    let (manifest, theirs) = (world.object(&archived.object_key), store.manifest(&store.theirs));
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::copy(theirs, &manifest).unwrap();
    let ended = world.run(OperationParams::Unarchive(unarchive::UnarchiveParams {}), acme()).await.unwrap();
    assert_eq!(world.failure(&ended).await, "backup_damaged");
    std::fs::write(&manifest, whole).unwrap();
    world.succeed(OperationParams::Unarchive(unarchive::UnarchiveParams {}), acme()).await;
    assert_eq!(world.int("acme", "select count(*) from tasks where title = 'row of acme'").await, 1);
}

#[tokio::test]
async fn a_manifest_of_a_later_format_is_refused_as_such() {
    let store = store().await;
    store.forge(|m| {
        m["format"] = 3.into();
        m["later"] = serde_json::json!({"anything": []});
    });
    let ended = store.world.run(restoring(RestorePoint::Latest), acme()).await.unwrap();
    assert_eq!(store.world.failure(&ended).await, "backup_newer");
}

/// The fleet in `fixtures/format_1`, as the version before signed manifests left it.
async fn older_fleet() -> World {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format_1");
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("tenants")).unwrap();
    std::fs::copy(fixture.join("fleet.key"), root.join("fleet.key")).unwrap();
    copy_all(&fixture.join("backups"), &root.join("backups"));
    let catalog = rusqlite::Connection::open(root.join("catalog.db")).unwrap();
    // The tables come in the order of their names.
    catalog.pragma_update(None, "foreign_keys", false).unwrap();
    catalog.execute_batch(&std::fs::read_to_string(fixture.join("catalog.sql")).unwrap()).unwrap();
    catalog.execute("update servers set base = ?1", [root.join("tenants").to_str().unwrap()]).unwrap();
    drop(catalog);
    World::opened(dir).await
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn backups_of_the_format_without_signature_stay_readable() {
    let world = older_fleet().await;
    for name in ["acme", "globex"] {
        // Its database is gone: the backup is all there is.
        world.succeed(restoring(RestorePoint::Latest), TenantSelection::one_tenant(name)).await;
        let sql = format!("select count(*) from tasks where title = 'canary of {name}'");
        assert_eq!(world.int(name, &sql).await, 1);
    }
    invariants::check(&world).await;
    let (old, new) = (world.newest("acme").await.unwrap(), world.backup("acme").await);
    assert!(old.manifest_sha256.is_none() && new.manifest_sha256.is_some());
    assert_eq!(world.newest("acme").await.unwrap().id, new.id);
}

#[tokio::test]
async fn backups_without_signature_are_held_against_the_content_that_the_catalog_knows() {
    let world = older_fleet().await;
    let (mine, theirs) = (world.newest("acme").await.unwrap(), world.newest("globex").await.unwrap());
    let read = |of: &BackupRecord| -> Value {
        serde_json::from_slice(&std::fs::read(world.object(&of.object_key)).unwrap()).unwrap()
    };
    let object = |of: &BackupRecord| world.object(&of.object_key.replace(".manifest.json", ".db.zst"));
    // All that the catalog's row knows stays as it is; only the hashes fit another database.
    let (mut forged, real) = (read(&mine), read(&theirs));
    forged["image"] = real["image"].clone();
    forged["object"]["sha256"] = real["object"]["sha256"].clone();
    forged["object"]["size_bytes"] = mine.stored_bytes.into();
    std::fs::write(world.object(&mine.object_key), forged.to_string()).unwrap();
    std::fs::copy(object(&theirs), object(&mine)).unwrap();
    // As if both objects were equally long.
    let catalog = rusqlite::Connection::open(world.data().join("catalog.db")).unwrap();
    catalog.execute("update backups set stored_bytes = ?1", [theirs.stored_bytes]).unwrap();
    forged["object"]["size_bytes"] = theirs.stored_bytes.into();
    std::fs::write(world.object(&mine.object_key), forged.to_string()).unwrap();
    let ended = world.run(restoring(RestorePoint::Latest), acme()).await.unwrap();
    let failed = world.steps(ended.id, &[]).await.remove(0).0.error.unwrap();
    assert!(failed.contains("its content is not the one that the catalog knows"), "{failed}");
}
