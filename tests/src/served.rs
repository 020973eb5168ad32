//! A real `fleetctl serve` process on free ports.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::Api;
use crate::program::fleetctl;

/// A generous bound on start-up: the machine may be busy compiling.
const START_MAX: Duration = Duration::from_secs(60);

/// The command and its free ports.
const LISTEN: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// A serving process; killed with SIGKILL when dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    data_dir: PathBuf,
    /// `http://127.0.0.1:<port>` of the admin API.
    pub admin_url: String,
    /// `http://127.0.0.1:<port>` of the data API.
    pub data_url: String,
}

impl Served {
    /// Starts `fleetctl serve` on `<dir>/fleet-data` (which `init` made) and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// The same with more flags.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(dir: &Path, flags: &[&str]) -> Self {
        let mut command = fleetctl(dir);
        command.args(LISTEN).args(flags);
        Self::run(dir, command)
    }

    /// The same on free ports of another address, for instance `[::1]`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_at(dir: &Path, address: &str) -> Self {
        let free = format!("{address}:0");
        let mut command = fleetctl(dir);
        command.args(["serve", "--listen", &free, "--admin-listen", &free]);
        Self::run(dir, command)
    }

    /// The same with at most so many open files.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_under(dir: &Path, open_files_max: u32) -> Self {
        let program = fleetctl(dir);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("ulimit -n {open_files_max}; exec \"$0\" \"$@\"")]);
        command.arg(program.get_program()).args(LISTEN).current_dir(dir).env_clear();
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self::run(dir, command)
    }

    #[expect(clippy::print_stderr, reason = "a test shows the server's log when it fails")]
    fn run(dir: &Path, mut command: std::process::Command) -> Self {
        let data_dir = dir.join("fleet-data");
        let endpoint = data_dir.join("endpoint.json");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("fleetctl starts");
        let log = child.stderr.take().expect("stderr is piped");
        // Drained for ever, so that the process never blocks on a full pipe.
        std::thread::spawn(move || {
            BufReader::new(log).lines().map_while(Result::ok).for_each(|line| eprintln!("{line}"))
        });
        let found = wait_for(&endpoint, &mut child);
        let url =
            |key: &str| found[key].as_str().expect("endpoint.json names both URLs").trim_end_matches('/').to_owned();
        Self { admin_url: url("admin_url"), data_url: url("data_url"), child, data_dir }
    }

    /// The operator token that `init` wrote.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn operator_token(&self) -> String {
        std::fs::read_to_string(self.data_dir.join("operator.token")).expect("init wrote it").trim().to_owned()
    }

    /// The admin API, as an operator.
    ///
    /// # Panics
    /// When the token cannot be read.
    #[must_use]
    pub fn admin(&self) -> Api {
        Api::new(&self.admin_url, &self.operator_token())
    }

    /// Ends the process as a power cut would, and waits until it is gone.
    ///
    /// # Panics
    /// When the process cannot be signalled.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
    }

    /// Asks the process to end (SIGTERM), and waits until it has; its exit code.
    ///
    /// # Panics
    /// When the process cannot be signalled.
    pub fn terminate(&mut self) -> Option<i32> {
        let sent = std::process::Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(sent.expect("kill starts").success(), "our own child can be signalled");
        self.wait()
    }

    /// Sends SIGHUP.
    ///
    /// # Panics
    /// When the process cannot be signalled.
    pub fn hang_up(&self) {
        let sent = std::process::Command::new("kill").args(["-HUP", &self.pid().to_string()]).status();
        assert!(sent.expect("kill starts").success(), "our own child can be signalled");
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the process to end by itself and returns its exit code.
    ///
    /// # Panics
    /// When the process cannot be waited for.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("our own child can be waited for").code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The endpoint file appears by a rename once both listeners are bound; a killed process leaves one behind.
fn wait_for(endpoint: &Path, child: &mut Child) -> Value {
    let until = Instant::now() + START_MAX;
    while Instant::now() < until {
        if let Ok(text) = std::fs::read_to_string(endpoint)
            && let Ok(found) = serde_json::from_str::<Value>(&text)
            && found["pid"] == child.id()
        {
            return found;
        }
        if let Some(status) = child.try_wait().expect("our own child can be asked") {
            panic!("fleetctl serve ended: {status}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("fleetctl serve did not write {} within {START_MAX:?}", endpoint.display());
}
