//! A proxy that delivers every request, and closes the connection instead of returning some answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Whether the answer to the request with this number, from 0, is cut, and when.
type CutChoice = dyn Fn(usize) -> Cut + Send + Sync;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The answer arrives.
    No,
    /// The control plane has answered; the answer is lost.
    AfterAnswer,
    /// The control plane may still be working on the request.
    AfterRequest,
}

pub(crate) struct CuttingProxy {
    pub(crate) url: String,
    accepting: JoinHandle<()>,
}

impl CuttingProxy {
    pub(crate) async fn start(upstream: &str, choose: impl Fn(usize) -> Cut + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let (choose, count): (Arc<CutChoice>, _) = (Arc::new(choose), Arc::new(AtomicUsize::new(0)));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, choose, count) = (upstream.clone(), Arc::clone(&choose), Arc::clone(&count));
                tokio::spawn(async move { carry_one(client, &upstream, choose.as_ref(), &count).await });
            }
        });
        Self { url, accepting }
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one request and perhaps its answer. The header `connection: close` makes the answer end with the connection.
async fn carry_one(mut client: TcpStream, upstream: &str, choose: &CutChoice, count: &AtomicUsize) {
    let Some(request) = read_request(&mut client).await else { return };
    let cut = choose(count.fetch_add(1, Ordering::SeqCst));
    let (first, rest) = request.split_once("\r\n").unwrap();
    let mut server = TcpStream::connect(upstream).await.unwrap();
    server.write_all(format!("{first}\r\nconnection: close\r\n{rest}").as_bytes()).await.unwrap();
    if cut == Cut::AfterRequest {
        // The client's connection closes at once. The one to the control plane stays open until the request is done.
        tokio::spawn(async move { server.read_to_end(&mut Vec::new()).await });
        return;
    }
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.unwrap();
    if cut == Cut::No {
        client.write_all(&answer).await.unwrap();
    }
}

/// The whole request as text; `None` when the client closed the connection.
async fn read_request(client: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
