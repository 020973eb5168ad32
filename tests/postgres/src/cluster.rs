//! One running server.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::tools::{PASSWORD, ROLE, as_server_user, bin, own_directory, run, template};

/// Longer than a loaded machine needs; a server that is not up by then is broken.
const START_MAX: Duration = Duration::from_secs(60);
/// Another test may take the free port between looking and listening.
const PORT_ATTEMPTS: u32 = 5;

/// What differs from the defaults of a cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `max_connections`.
    pub connections_max: u32,
    /// More lines of `postgresql.conf`, as `name=value`.
    pub more: Vec<String>,
    /// Whole lines of `pg_hba.conf` that come before the usual ones.
    pub hba: Vec<String>,
    /// With another system identifier than most: what a server made elsewhere has.
    pub other: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { connections_max: 60, more: Vec::new(), hba: Vec::new(), other: false }
    }
}

/// A running server; stopped at once when dropped.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    port: u16,
    server: Mutex<Option<Running>>,
}

/// A server process and the thread that must outlive it: the kernel ends the server with the thread that started it.
#[derive(Debug)]
struct Running {
    child: Child,
    _parent: Sender<()>,
}

impl Cluster {
    /// Starts one with the default settings.
    ///
    /// # Panics
    /// When it does not start; the message holds its log.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&Settings::default())
    }

    /// Starts one.
    ///
    /// # Panics
    /// When it does not start; the message holds its log.
    #[must_use]
    pub fn with(settings: &Settings) -> Self {
        let mut cluster = Self { dir: own_directory("fleet-pg-"), port: 0, server: Mutex::default() };
        run(
            as_server_user(Path::new("cp")).arg("-a").arg(template(settings.other)).arg(cluster.data()),
            "copying a data directory",
        );
        configure(&cluster.data(), settings);
        for _ in 0..PORT_ATTEMPTS {
            cluster.port = free_port();
            if cluster.try_start() {
                return cluster;
            }
            assert!(cluster.log().contains("Address already in use"), "the server did not start:\n{}", cluster.log());
        }
        panic!("no free port was found");
    }

    /// `postgres://…` of the role [`ROLE`] and this database, over TCP.
    #[must_use]
    pub fn dsn(&self, database: &str) -> String {
        format!("postgres://{ROLE}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL as the superuser in a database and returns what it printed, unaligned, without headers.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(bin("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql]);
        psql.arg("-h").arg(self.dir.path()).arg("-p").arg(self.port.to_string());
        let output = run(&mut psql, sql);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Runs a script of psql as the superuser, as a pipe into psql would.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn psql_script(&self, script: &str) {
        let file = self.dir.path().join("script.sql");
        fs::write(&file, script).expect("writable");
        let mut psql = Command::new(bin("psql"));
        psql.args(["-X", "-q", "-U", "postgres", "-d", "postgres", "-f"]).arg(file);
        run(psql.arg("-h").arg(self.dir.path()).arg("-p").arg(self.port.to_string()), script);
    }

    /// What the server has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends it at once, as an operator in a hurry would: sessions are cut off, nothing that was committed is lost.
    pub fn stop(&self) {
        self.end(Signal::QUIT);
    }

    /// Ends it by SIGKILL.
    pub fn kill(&self) {
        self.end(Signal::KILL);
        // Its children notice by themselves; until then they hold the shared memory that a new server wants.
        let pid = self.data().join("postmaster.pid");
        let _ = fs::remove_file(pid);
    }

    /// Lets it answer no more, without closing anything: what a cut network looks like.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Undoes [`Cluster::freeze`].
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        let deadline = Instant::now() + START_MAX;
        while !self.try_start() {
            assert!(Instant::now() < deadline, "the server did not start again:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Keeps a copy of every database, role and setting of this server, for [`Cluster::load_state`]. Connections are cut.
    ///
    /// # Panics
    /// When it does not start again.
    pub fn save_state(&self) {
        self.end(Signal::INT);
        self.copy_directory(&self.data(), &self.saved());
        self.start_again();
    }

    /// Returns to the state of the last [`Cluster::save_state`], on the same port. Connections are cut.
    ///
    /// # Panics
    /// When no state was saved, or it does not start again.
    pub fn load_state(&self) {
        self.end(Signal::QUIT);
        self.copy_directory(&self.saved(), &self.data());
        self.start_again();
    }

    fn copy_directory(&self, from: &Path, to: &Path) {
        assert!(from.exists(), "there is no {}", from.display());
        let _ = fs::remove_dir_all(to);
        run(as_server_user(Path::new("cp")).arg("-a").arg(from).arg(to), "copying a data directory");
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn saved(&self) -> std::path::PathBuf {
        self.dir.path().join("saved")
    }

    fn end(&self, signal: Signal) {
        let running = self.server.lock().expect("no test panics in here").take();
        if let Some(mut running) = running {
            let _ = kill_process(pid(&running.child), signal);
            let _ = running.child.wait();
        }
    }

    /// To the server and every process it started.
    fn signal_all(&self, signal: Signal) {
        let server = self.server.lock().expect("no test panics in here");
        let Some(running) = server.as_ref() else { return };
        let parent = running.child.id();
        let _ = kill_process(pid(&running.child), signal);
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|id| id.parse().ok()).filter_map(Pid::from_raw) {
            let _ = kill_process(child, signal);
        }
    }

    fn try_start(&self) -> bool {
        let mut server = self.server.lock().expect("no test panics in here");
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).expect("writable");
        let mut command = as_server_user(&bin("postgres"));
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string()).arg("-k").arg(self.dir.path());
        command.stdout(Stdio::null()).stderr(log);
        let mut running = spawn(command);
        let up = wait_until_ready(&self.data(), &mut running.child);
        *server = up.then_some(running);
        up
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

/// Starts it from a thread that lives as long as the server shall.
fn spawn(mut command: Command) -> Running {
    let (parent, dropped) = channel::<()>();
    let (started, child) = channel();
    std::thread::spawn(move || {
        let _ = started.send(command.spawn());
        let _ = dropped.recv();
    });
    let child = child.recv().expect("the thread sends first").expect("setpriv is part of every Linux");
    Running { child, _parent: parent }
}

fn wait_until_ready(data: &Path, child: &mut Child) -> bool {
    let deadline = Instant::now() + START_MAX;
    let id = child.id().to_string();
    while Instant::now() < deadline {
        let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if state.lines().next() == Some(&id) && state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
            return true;
        }
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn configure(data: &Path, settings: &Settings) {
    let mut lines = vec![
        "listen_addresses='127.0.0.1'".to_owned(),
        "fsync=off".to_owned(),
        "shared_buffers=16MB".to_owned(),
        "jit=off".to_owned(),
        "log_min_messages=warning".to_owned(),
        format!("max_connections={}", settings.connections_max),
    ];
    lines.extend(settings.more.iter().cloned());
    let mut conf = fs::read_to_string(data.join("postgresql.conf")).expect("initdb wrote it");
    conf.push_str(&lines.join("\n"));
    fs::write(data.join("postgresql.conf"), conf + "\n").expect("writable");
    let hba = fs::read_to_string(data.join("pg_hba.conf")).expect("initdb wrote it");
    fs::write(data.join("pg_hba.conf"), settings.hba.join("\n") + "\n" + &hba).expect("writable");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of loopback is free");
    listener.local_addr().expect("it listens").port()
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_keeps_what_was_committed_and_is_gone_when_dropped() {
        let started = Instant::now();
        let cluster = Cluster::start();
        println!("started in {:?}", started.elapsed());
        cluster.psql("postgres", "create table kept(a integer); insert into kept values (7)");
        let role = format!("select rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolname = '{ROLE}'");
        assert_eq!(cluster.psql("postgres", &role), "f|t|t");
        cluster.stop();
        cluster.start_again();
        assert_eq!(cluster.psql("postgres", "select a from kept"), "7");
        cluster.kill();
        cluster.start_again();
        assert_eq!(cluster.psql("postgres", "select a from kept"), "7");
        let (port, dir) = (cluster.port(), cluster.dir.path().to_owned());
        drop(cluster);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(!dir.exists());
    }

    #[test]
    fn it_returns_to_a_saved_state() {
        let cluster = Cluster::start();
        cluster.psql("postgres", "create table kept(a integer); insert into kept values (7)");
        cluster.save_state();
        for _ in 0..2 {
            assert_eq!(cluster.psql("postgres", "select a from kept"), "7");
            cluster.psql("postgres", "update kept set a = 8");
            cluster.psql("postgres", "create database more");
            cluster.load_state();
        }
        assert_eq!(cluster.psql("postgres", "select count(*) from pg_database where datname = 'more'"), "0");
    }

    #[test]
    fn several_run_side_by_side() {
        let (one, two) = (Cluster::start(), Cluster::start());
        one.psql("postgres", "create table only_here(a integer)");
        assert_eq!(two.psql("postgres", "select count(*) from pg_class where relname = 'only_here'"), "0");
    }
}
