//! A subscription over a WebSocket. Each message is one JSON object:
//!
//! | `type` | when | fields |
//! |---|---|---|
//! | `ready` | first | `seq`: everything after this number comes |
//! | `message` | a message of the topic | `seq`, `data` |
//! | `reload` | messages may be missing: read the data again | `seq` |
//! | `position` | regularly | `seq`: a newer number for `?after=` |

use std::time::Duration;

use ::axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use ::axum::response::Response;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::realtime::{Subscription, SubscriptionEnd, SubscriptionEvent};

/// Time between two pings. Proxies often close a connection that is silent for a minute.
pub(super) const PING_EVERY: Duration = Duration::from_secs(20);

/// A peer that has not answered for two pings is gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The longest time for one message: a peer that takes longer is gone, or reads too slowly.
const SEND_MAX: Duration = Duration::from_secs(10);

/// The longest time for the close handshake.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Maximum size of a message from the client, which sends only answers to pings.
const INBOUND_BYTES_MAX: usize = 1_024;

/// The buffer for reading: the default of 128 KiB would be most of a socket's memory.
const READ_BUFFER_BYTES: usize = 1_024;

/// Room in the buffer for writing beside one message: its frame, a ping and a close frame.
const WRITE_BUFFER_EXTRA_BYTES: usize = 4 * 1_024;

/// Why a socket is closed from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketEnd {
    /// The subscription ended.
    Subscription(SubscriptionEnd),
    /// The client sent data.
    DataRefused,
    /// The client is not there any more: there is nobody to tell.
    PeerGone,
}

impl SocketEnd {
    /// The code of RFC 6455 and the reason. A client connects again after 1001 and 1013, and not after 1008 and 1003.
    fn close_frame(self) -> Option<(u16, &'static str)> {
        let (code, reason) = match self {
            Self::PeerGone => return None,
            Self::DataRefused => (close_code::UNSUPPORTED, "data_refused"),
            Self::Subscription(end) => {
                let code = match end {
                    SubscriptionEnd::GoingAway => close_code::AWAY,
                    SubscriptionEnd::SlowConsumer | SubscriptionEnd::Unconfirmed => close_code::AGAIN,
                    _ => close_code::POLICY,
                };
                (code, end.code())
            }
        };
        Some((code, reason))
    }
}

pub(super) fn answer_upgrade(upgrade: WebSocketUpgrade, subscription: Subscription) -> Response {
    let upgrade = upgrade.max_message_size(INBOUND_BYTES_MAX).max_frame_size(INBOUND_BYTES_MAX);
    let upgrade = upgrade.read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
    // A message that does not fit would close the socket.
    let write_buffer_max = 2 * subscription.message_bytes_max() + WRITE_BUFFER_EXTRA_BYTES;
    upgrade.max_write_buffer_size(write_buffer_max).on_upgrade(|socket| serve_socket(socket, subscription))
}

async fn serve_socket(mut socket: WebSocket, mut subscription: Subscription) {
    let end = forward_events(&mut socket, &mut subscription).await;
    if let Some((code, reason)) = end.close_frame() {
        let frame = CloseFrame { code, reason: reason.into() };
        let closing = async {
            if socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        };
        // A client that does not answer loses its connection.
        let _ = timeout(CLOSE_MAX, closing).await;
    }
}

/// Sends events until one side ends.
async fn forward_events(socket: &mut WebSocket, subscription: &mut Subscription) -> SocketEnd {
    let ready = format!(r#"{{"type":"ready","seq":{}}}"#, subscription.start());
    if let Err(end) = send_text(socket, subscription, ready).await {
        return end;
    }
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_at = Instant::now();
    loop {
        let sent = tokio::select! {
            event = subscription.next_event() => match event {
                Ok(event) => send_text(socket, subscription, event_text(&event)).await,
                Err(end) => return SocketEnd::Subscription(end),
            },
            inbound = socket.recv() => match inbound {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                    heard_at = Instant::now();
                    Ok(())
                }
                Some(Ok(Message::Text(_) | Message::Binary(_))) => return SocketEnd::DataRefused,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return SocketEnd::PeerGone,
            },
            _ = ping.tick() => match heard_at.elapsed() > SILENCE_MAX {
                true => return SocketEnd::PeerGone,
                false => send_ping(socket, subscription).await,
            },
        };
        if let Err(end) = sent {
            return end;
        }
    }
}

async fn send_ping(socket: &mut WebSocket, subscription: &Subscription) -> Result<(), SocketEnd> {
    if let Some(seq) = subscription.position() {
        send_text(socket, subscription, format!(r#"{{"type":"position","seq":{seq}}}"#)).await?;
    }
    send_message(socket, subscription, Message::Ping(Vec::new().into())).await
}

async fn send_text(socket: &mut WebSocket, subscription: &Subscription, text: String) -> Result<(), SocketEnd> {
    send_message(socket, subscription, Message::Text(text.into())).await
}

/// Sends a message, unless the subscription is revoked meanwhile.
async fn send_message(socket: &mut WebSocket, subscription: &Subscription, message: Message) -> Result<(), SocketEnd> {
    tokio::select! {
        biased;
        end = subscription.revoked() => Err(SocketEnd::Subscription(end)),
        sent = timeout(SEND_MAX, socket.send(message)) => match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(SocketEnd::PeerGone),
        },
    }
}

fn event_text(event: &SubscriptionEvent) -> String {
    match event {
        SubscriptionEvent::Message(message) => {
            format!(r#"{{"type":"message","seq":{},"data":{}}}"#, message.seq(), message.payload())
        }
        SubscriptionEvent::Reload { seq } => format!(r#"{{"type":"reload","seq":{seq}}}"#),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_code_says_whether_to_connect_again() {
        for end in SubscriptionEnd::ALL {
            let expected = match end {
                SubscriptionEnd::GoingAway => 1001,
                SubscriptionEnd::SlowConsumer | SubscriptionEnd::Unconfirmed => 1013,
                _ => 1008,
            };
            assert_eq!(SocketEnd::Subscription(end).close_frame(), Some((expected, end.code())));
        }
        assert_eq!(SocketEnd::DataRefused.close_frame(), Some((1003, "data_refused")));
        assert_eq!(SocketEnd::PeerGone.close_frame(), None);
    }
}
