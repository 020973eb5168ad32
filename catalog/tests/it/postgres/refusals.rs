//! What a server can refuse: each says what is wrong and what to do, within a bounded time, and never the password.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::db::{CatalogDsn, CatalogLocation};
use catalog::seal::FleetKey;
use catalog::{Catalog, ErrorKind};
use postgres_fixture::{Cluster, PASSWORD, ROLE, Settings};

use super::suite::{Fixture, clock, create, seed};
use super::world::World;

/// More than the longest of them takes.
const BOUND: Duration = Duration::from_secs(15);

async fn refused(dsn: &str) -> catalog::Error {
    let location = CatalogLocation::Postgres(CatalogDsn::from_text(dsn).unwrap());
    let started = Instant::now();
    let error = Catalog::open(&location, FleetKey::generate(), clock()).await.unwrap_err();
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    assert!(!format!("{error:?} {error}").contains(PASSWORD), "{error:?}");
    error
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let world = World::new();
    let good = world.cluster.dsn(&world.database);
    let at = format!("@127.0.0.1:{}/", world.cluster.port());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (dsn, kind, says) in [
        (good.replace(PASSWORD, "wrong"), ErrorKind::Refused, "rejected the password"),
        (good.replace(&world.database, "nowhere"), ErrorKind::Refused, "does not exist"),
        (format!("{good}?sslmode=require"), ErrorKind::Refused, "sslmode"),
        (good.replace(&at, &format!("@127.0.0.1:{closed}/")), ErrorKind::Unavailable, "cannot be reached"),
        (good.replace(&at, "@nowhere.invalid:5432/"), ErrorKind::Unavailable, "cannot be reached"),
        (good.clone(), ErrorKind::NotInitialised, "fleetctl init"),
    ] {
        let error = refused(&dsn).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = refused(&format!("postgres://fleet:{PASSWORD}@127.0.0.1:{port}/catalog")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no answer"), "{error}");
}

#[tokio::test]
async fn a_role_without_rights_and_a_database_that_only_reads_are_named() {
    let world = World::new();
    world.psql("create role visitor login password 'visitor-pw'; revoke create on schema public from public");
    let visitor = world.cluster.dsn(&world.database).replace(&format!("{ROLE}:{PASSWORD}"), "visitor:visitor-pw");
    let location = CatalogLocation::Postgres(CatalogDsn::from_text(&visitor).unwrap());
    let error = Catalog::create(&location, FleetKey::generate(), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("owner"), "{error}");
    world.psql(&format!("alter database {} set default_transaction_read_only = on", world.database));
    let error = create(&world, &FleetKey::generate()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyStorage, "{error}");
}

#[tokio::test]
async fn a_full_server_is_waited_for_a_moment_and_then_named() {
    let settings = Settings { connections_max: 6, ..Settings::default() };
    let world = World::alone(&settings);
    let fixture = Fixture::in_world(world).await;
    fixture.catalog.close().await;
    let options = fixture.world.cluster.dsn(&fixture.world.database);
    let mut held = Vec::new();
    sqlx::any::install_default_drivers();
    while let Ok(connection) = <sqlx::AnyConnection as sqlx::Connection>::connect(&options).await {
        held.push(connection);
    }
    let error = refused(&options).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("max_connections"), "{error}");
    drop(held);
    let again = fixture.other_process().await;
    seed(&again, 1).await;
}

#[tokio::test]
async fn a_server_that_demands_tls_gets_it() {
    let certificate = tempfile::tempdir().unwrap();
    make_certificate(certificate.path());
    let file = |name: &str| certificate.path().join(name).display().to_string();
    let settings = Settings {
        more: vec![
            "ssl=on".to_owned(),
            format!("ssl_cert_file='{}'", file("server.crt")),
            format!("ssl_key_file='{}'", file("server.key")),
        ],
        hba: vec!["hostnossl all all 127.0.0.1/32 reject".to_owned()],
        ..Settings::default()
    };
    let world = World::on(Arc::new(Cluster::with(&settings)));
    let dsn = world.cluster.dsn(&world.database);
    let error = refused(&format!("{dsn}?sslmode=disable")).await;
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("sslmode=require"), "{error}");
    for mode in ["prefer", "require"] {
        let location = CatalogLocation::Postgres(CatalogDsn::from_text(&format!("{dsn}?sslmode={mode}")).unwrap());
        let key = FleetKey::from_text(&base64_key()).unwrap();
        let catalog = Catalog::create(&location, key, clock()).await.unwrap();
        drop(catalog.write().await.unwrap());
        drop(catalog.write().await.unwrap());
        catalog.close().await;
    }
    let trusted = format!("{dsn}?sslmode=verify-full&sslrootcert={}", file("server.crt"));
    let error = refused(&trusted).await;
    assert_eq!(error.kind(), ErrorKind::Refused, "the certificate is another name's: {error}");
}

fn base64_key() -> String {
    use secrecy::ExposeSecret as _;
    static KEY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    KEY.get_or_init(|| FleetKey::generate().secret_text().expose_secret().to_owned()).clone()
}

fn make_certificate(directory: &Path) {
    let run = |command: &mut Command| {
        let output = command.current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("openssl").args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]).args([
        "-subj",
        "/CN=db.example.org",
        "-addext",
        "subjectAltName=DNS:db.example.org",
        "-keyout",
        "server.key",
        "-out",
        "server.crt",
    ]));
    run(Command::new("chmod").args(["600", "server.key"]));
    run(Command::new("chmod").args(["755", "."]));
    if Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
        run(Command::new("chown").args(["postgres:postgres", "server.key"]));
    }
}
