//! What surrounds a command and must not change what it does: variables of other programs, addresses of both families,
//! another fleet on the same server, and a store that refuses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener};
use std::process::{Command, Output, Stdio};

use fleet_tests::postgres::{PostgresFleet, SERVER, example_folders};
use fleet_tests::{Fleet, Served, fleetctl, workspace_root};
use postgres_fixture::{Cluster, ROLE, Settings};

const COUNT: &str = "select count(*) as tasks from tasks";

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Variables that PostgreSQL's drivers and programs read, with values that would break everything.
const POSTGRES_VARIABLES: [(&str, &str); 18] = [
    ("PGOPTIONS", "-c default_transaction_read_only=on -c search_path=nowhere"),
    ("PGCLIENTENCODING", "SQL_ASCII"),
    ("PGSSLMODE", "verify-full"),
    ("PGSSLROOTCERT", "/nowhere/root.crt"),
    ("PGSSLCERT", "/nowhere/client.crt"),
    ("PGSSLKEY", "/nowhere/client.key"),
    ("PGUSER", "nobody"),
    ("PGPASSWORD", "wrong"),
    ("PGPASSFILE", "/nowhere/pgpass"),
    ("PGDATABASE", "nowhere"),
    ("PGHOST", "/nowhere"),
    ("PGHOSTADDR", "127.0.0.9"),
    ("PGPORT", "1"),
    ("PGSERVICE", "nothing"),
    ("PGSERVICEFILE", "/nowhere/services"),
    ("PGTZ", "Asia/Tokyo"),
    ("PGDATESTYLE", "German"),
    ("PGAPPNAME", "other"),
];

#[test]
fn variables_of_postgres_change_nothing() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    let with = |variables: &[(&str, &str)], args: &[&str]| {
        let output = fleetctl(pg.fleet.dir()).args(args).envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{variables:?} {args:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let dates = ["query", "select timestamptz '2026-01-02 03:04:05+00' as at, 'ä' as text", "acme", "-o", "jsonl"];
    let expected = with(&[], &dates);
    for one in POSTGRES_VARIABLES {
        assert_eq!(with(&[one], &dates), expected, "{one:?}");
    }
    for args in [
        &["query", COUNT, "acme"][..],
        &["backup", "run", "acme"],
        &["backup", "verify", "acme"],
        &["restore", "run", "acme", "--to", "latest", "--yes"],
        &["tenant", "create", "new", "--server", SERVER],
        &["tenant", "clone", "acme", "copy"],
    ] {
        with(&POSTGRES_VARIABLES, args);
    }
}

#[test]
fn two_fleets_on_one_server_have_templates_of_their_own() {
    let one = PostgresFleet::with_tenants(&["acme"]);
    let role = "create role other login createdb createrole password 'other'";
    one.cluster.psql("postgres", role);
    // From version 16 on a role is administered by who made it, so the groups are shared by hand there.
    for group in ["fleet_owner", "fleet_read", "fleet_write"] {
        one.cluster.psql("postgres", &format!("grant {group} to other with admin option"));
    }
    let two = Fleet::init();
    let dsn = two.dir().join("pg.dsn");
    std::fs::write(&dsn, format!("postgres://other:other@127.0.0.1:{}/postgres", one.cluster.port())).unwrap();
    two.ok(&["server", "add", SERVER, "--engine", "postgres", "--dsn-file", dsn.to_str().unwrap()]);
    two.ok(&["migrate", "run", &example_folders(), "--all"]);
    two.ok(&["tenant", "create", "--server", SERVER, "globex"]);
    two.ok(&["query", COUNT, "globex"]);
    one.fleet.ok(&["tenant", "create", "--server", SERVER, "third"]);
    let owners = "select count(distinct datdba) from pg_database where datname like 'tmpl\\_%'";
    assert_eq!(one.cluster.psql("postgres", owners), "2");
}

/// The version before named templates without the fleet.
#[test]
fn a_template_of_the_version_before_is_used_on() {
    let pg = PostgresFleet::with_tenants(&["acme"]);
    let template = || {
        pg.cluster.psql(
            "postgres",
            "select oid || ' ' || datname from pg_database where datistemplate \
         and datname like 'tmpl\\_%'",
        )
    };
    let found = template();
    let (oid, name) = found.split_once(' ').unwrap();
    let digest = name.rsplit('_').next().unwrap();
    pg.cluster.psql("postgres", &format!("alter database {name} rename to tmpl_{digest}"));
    pg.fleet.ok(&["tenant", "create", "--server", SERVER, "globex"]);
    assert_eq!(template(), format!("{oid} {name}"));
}

#[tokio::test]
async fn addresses_of_the_sixth_version_connect_everywhere() {
    let settings = Settings { more: vec!["listen_addresses='127.0.0.1,::1'".to_owned()], ..Settings::default() };
    let cluster = Cluster::with(&settings);
    let at = |database: &str| cluster.dsn(database).replace("127.0.0.1", "[::1]");
    cluster.psql("postgres", &format!("create database catalog owner {ROLE}"));
    let fleet = Fleet::init();
    let dsn = fleet.dir().join("pg.dsn");
    std::fs::write(&dsn, at("postgres")).unwrap();
    fleet.ok(&["server", "add", SERVER, "--engine", "postgres", "--dsn-file", dsn.to_str().unwrap()]);
    fleet.ok(&["migrate", "run", &example_folders(), "--all"]);
    fleet.ok(&["tenant", "create", "--server", SERVER, "acme"]);
    fleet.ok(&["query", COUNT, "acme"]);

    let store = S3::start("::1");
    let created = reqwest::Client::new().put(format!("{}/fleet", store.endpoint)).send().await.unwrap();
    assert!(created.status().is_success(), "{}", created.status());
    std::fs::write(fleet.dir().join("fleet.toml"), store.settings()).unwrap();
    fleet.ok(&["backup", "run", "acme"]);
    fleet.ok(&["restore", "run", "acme", "--to", "latest", "--yes"]);

    let served = Served::start_at(fleet.dir(), "[::1]");
    assert!(served.admin_url.starts_with("http://[::1]:"), "{}", served.admin_url);
    fleet.ok(&["query", COUNT, "acme"]);
    let token = fleet.dir().join("fleet-data/operator.token");
    let elsewhere = Fleet::nowhere();
    let args = ["query", COUNT, "acme", "--url", &served.admin_url, "--token-file", token.to_str().unwrap()];
    elsewhere.ok(&args);
    drop(served);

    let shared = Fleet::init_on(&at("catalog"));
    shared.ok(&["tenant", "list"]);
}

/// An S3 server on a free port; ended by its process id when dropped.
struct S3 {
    child: std::process::Child,
    endpoint: String,
}

impl S3 {
    fn start(host: &str) -> Self {
        let server = workspace_root().join("target/tools/s3/bin/moto_server");
        let mut command = Command::new(server);
        command.args(["--host", host, "--port", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run tests/tools/install first");
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = log.find(|line| line.contains("Running on http://")).expect("the S3 server says where it listens");
        std::thread::spawn(move || log.for_each(drop));
        let endpoint = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Self { child, endpoint }
    }

    fn settings(&self) -> String {
        settings(&self.endpoint)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(endpoint: &str) -> String {
    format!(
        "backup_url = \"s3://fleet/backups\"\n\n[backup_options]\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
         access_key_id = \"test\"\nsecret_access_key = \"test\"\nallow_http = \"true\"\n"
    )
}

/// A store that answers every request so.
fn answering(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 65_536]);
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        }
    });
    endpoint
}

#[test]
fn a_store_that_refuses_is_quoted() {
    let fleet = Fleet::with_tenants(&["acme"]);
    let denied = "<Error><Code>AccessDenied</Code><Message>the bucket is another account's</Message></Error>";
    std::fs::write(fleet.dir().join("fleet.toml"), settings(&answering("403 Forbidden", denied))).unwrap();
    for args in [&["backup", "run", "acme"][..], &["doctor"]] {
        let output = fleet.run(args);
        let text = said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!output.status.success() && text.contains("AccessDenied"), "{args:?}: {text}");
    }
}
