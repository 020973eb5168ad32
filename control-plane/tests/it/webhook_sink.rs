//! A receiver of webhooks on loopback: passes on what it gets, and answers as a test says.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

/// Far beyond what any delivery takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests that may wait for a test to read them: more than any test sends.
const RECEIVED_MAX: usize = 1_000;

/// How the receiver answers a request.
#[derive(Debug, Clone)]
pub(crate) enum SinkReply {
    /// With this status.
    Status(u16),
    /// With this status and the header `Retry-After`.
    Busy(u16, &'static str),
    /// With a redirect to this path of the same receiver.
    Redirect(&'static str),
    /// Never; the connection stays open.
    Never,
    /// With 200 and a body without an end.
    Endless,
    /// With 204, once the test says so.
    Held(Arc<Notify>),
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) text: String,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name}: {self:?}"))
    }

    pub(crate) fn message_id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The number of the event.
    pub(crate) fn seq(&self) -> i64 {
        self.json()["data"]["seq"].as_i64().unwrap()
    }
}

/// The receiver. It stops with the test's runtime.
pub(crate) struct WebhookSink {
    pub(crate) address: SocketAddr,
    replies: Arc<Mutex<VecDeque<SinkReply>>>,
    received: mpsc::Receiver<Received>,
}

impl WebhookSink {
    /// Answers each request with the next of these, and then always with 204.
    pub(crate) async fn start(replies: &[SinkReply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replies = Arc::new(Mutex::new(replies.iter().cloned().collect::<VecDeque<_>>()));
        let (tell, received) = mpsc::channel(RECEIVED_MAX);
        let answers = Arc::clone(&replies);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&answers), tell.clone()));
            }
        });
        Self { address, replies, received }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Adds replies for the next requests.
    pub(crate) fn reply(&self, replies: &[SinkReply]) {
        self.replies.lock().unwrap().extend(replies.iter().cloned());
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.received.recv()).await.expect("nothing arrives").unwrap()
    }

    /// The requests that have arrived and were not read.
    pub(crate) fn rest(&mut self) -> Vec<Received> {
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

async fn answer(mut stream: TcpStream, replies: Arc<Mutex<VecDeque<SinkReply>>>, tell: mpsc::Sender<Received>) {
    let Some(request) = read_request(&mut stream).await else { return };
    let reply = replies.lock().unwrap().pop_front().unwrap_or(SinkReply::Status(204));
    let _ = tell.send(request).await;
    let head = |status: u16, more: &str| format!("HTTP/1.1 {status} X\r\n{more}connection: close\r\n\r\n");
    let text = match reply {
        SinkReply::Status(status) => head(status, "content-length: 0\r\n"),
        SinkReply::Busy(status, time) => head(status, &format!("retry-after: {time}\r\ncontent-length: 0\r\n")),
        SinkReply::Redirect(path) => head(302, &format!("location: {path}\r\ncontent-length: 0\r\n")),
        SinkReply::Never => std::future::pending().await,
        SinkReply::Held(go) => {
            go.notified().await;
            head(204, "")
        }
        SinkReply::Endless => {
            let _ = stream.write_all(head(200, "").as_bytes()).await;
            while stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
            return;
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn read_request(stream: &mut TcpStream) -> Option<Received> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4_096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut lines = head.split("\r\n");
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
            let headers: HashMap<String, String> = lines.filter_map(pair).collect();
            let length: usize = headers["content-length"].parse().unwrap();
            if bytes.len() >= end + 4 + length {
                let text = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).unwrap();
                return Some(Received { path, headers, text });
            }
        }
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => bytes.extend_from_slice(&piece[..read]),
            _ => return None,
        }
    }
}
