//! An issuer of tokens: keys and tokens of PyJWT, and a server of its key set. Tests of the whole system use it, too.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Keys and tokens of the script beside this file.
pub(crate) fn made_by_pyjwt() -> Value {
    // Each package with such tests is a folder of the workspace's root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/tools/s3/bin/python");
    let output = Command::new(&python).arg(root.join("tenant-router/tests/it/jwt_tokens.py")).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}: run tests/tools/install", python.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A server of a key set, which counts how often it is asked.
pub(crate) struct KeyServer {
    pub(crate) url: String,
    body: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    pub(crate) fn start(set: &Value) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (body, asked) = (Arc::new(Mutex::new(set.to_string())), Arc::new(AtomicUsize::new(0)));
        let (answer, count) = (Arc::clone(&body), Arc::clone(&asked));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4_096]);
                let body = answer.lock().unwrap().clone();
                let status = if body.is_empty() { "503 Service Unavailable" } else { "200 OK" };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { url, body, asked }
    }

    pub(crate) fn serve(&self, set: &Value) {
        *self.body.lock().unwrap() = if set.is_null() { String::new() } else { set.to_string() };
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
