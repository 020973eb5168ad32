//! A DNS server on loopback that answers questions for TXT records as a test says. Other tests share this file.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// How the server answers for a name. A name without an entry does not exist (NXDOMAIN).
#[derive(Debug, Clone)]
pub(crate) enum DnsReply {
    /// TXT records with these values; with none, the name exists and has no TXT record.
    Txt(Vec<String>),
    /// The server cannot say (SERVFAIL).
    Fail,
    /// Ask another server.
    Refer,
    /// No answer at all.
    Silence,
}

pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    replies: Arc<Mutex<HashMap<String, DnsReply>>>,
    task: JoinHandle<()>,
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, replies) = (socket.local_addr().unwrap(), Arc::new(Mutex::new(HashMap::new())));
        let known: Arc<Mutex<HashMap<String, DnsReply>>> = Arc::clone(&replies);
        let task = tokio::spawn(async move {
            let mut packet = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let (name, question_end) = question(&packet[..length]);
                let reply = known.lock().unwrap().get(&name).cloned();
                if let Some(answer) = answer(&packet[..question_end], reply) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        Self { address, replies, task }
    }

    pub(crate) fn set(&self, name: &str, reply: DnsReply) {
        self.replies.lock().unwrap().insert(name.to_owned(), reply);
    }

    pub(crate) fn set_txt(&self, name: &str, value: &str) {
        self.set(name, DnsReply::Txt(vec!["v=spf1 -all".to_owned(), value.to_owned()]));
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The name in the only question of a packet, and where the question ends.
fn question(packet: &[u8]) -> (String, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..end].to_ascii_lowercase()).unwrap());
        at = end;
    }
    (labels.join("."), at + 5)
}

/// The answer to a question, which begins with the question itself.
fn answer(question: &[u8], reply: Option<DnsReply>) -> Option<Vec<u8>> {
    let (code, values, referrals) = match reply {
        Some(DnsReply::Silence) => return None,
        Some(DnsReply::Txt(values)) => (0, values, 0),
        Some(DnsReply::Fail) => (2, Vec::new(), 0),
        Some(DnsReply::Refer) => (0, Vec::new(), 1),
        None => (3, Vec::new(), 0),
    };
    let mut packet = question.to_vec();
    packet[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    packet[4..12].copy_from_slice(&[0, 1, 0, u8::try_from(values.len()).unwrap(), 0, referrals, 0, 0]);
    for value in values {
        // Long values are stored in parts; these are short, and come in two parts all the same.
        let (first, second) = value.as_bytes().split_at(value.len() / 2);
        let data = [&[u8::try_from(first.len()).unwrap()], first, &[u8::try_from(second.len()).unwrap()], second];
        record(&mut packet, 16, &data.concat());
    }
    if referrals > 0 {
        record(&mut packet, 2, b"\x02ns\x07example\x00");
    }
    Some(packet)
}

/// Appends a record of the name in the question, with a time to live of 0.
fn record(packet: &mut Vec<u8>, kind: u8, data: &[u8]) {
    packet.extend([0xC0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, u8::try_from(data.len()).unwrap()]);
    packet.extend(data);
}
