//! A subscription as server-sent events. Each event's id is the number after which an `EventSource` goes on:
//!
//! | event | when | data |
//! |---|---|---|
//! | `ready` | first | `{}` |
//! | `message` | a message of the topic | the message |
//! | `reload` | messages may be missing: read the data again | `{}` |
//! | `end` | last | `{"reason":"…"}` |
//!
//! Regularly an id comes alone. The browser takes it as the newest one, and tells the page nothing.

use std::convert::Infallible;

use ::axum::response::sse::{Event, Sse};
use ::axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderName, HeaderValue};

use super::websocket::PING_EVERY;
use crate::realtime::{Subscription, SubscriptionEnd, SubscriptionEvent};

/// Tells a proxy not to collect the answer before it passes it on.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// What comes next in the stream.
enum StreamStage {
    First,
    Events,
    Over,
}

pub(super) fn answer_stream(subscription: Subscription) -> Response {
    let events = stream::unfold((StreamStage::First, subscription), |(stage, mut subscription)| async move {
        let (event, stage) = match stage {
            StreamStage::First => (numbered_event("ready", subscription.start()).data("{}"), StreamStage::Events),
            StreamStage::Events => next_sent(&mut subscription).await,
            StreamStage::Over => return None,
        };
        Some((Ok::<_, Infallible>(event), (stage, subscription)))
    });
    ([UNBUFFERED], Sse::new(events)).into_response()
}

/// The next event of the subscription. After some time without one, a new id or a comment.
async fn next_sent(subscription: &mut Subscription) -> (Event, StreamStage) {
    let next = tokio::time::timeout(PING_EVERY, subscription.next_event()).await;
    let event = match next {
        Ok(Ok(SubscriptionEvent::Message(message))) => numbered_event("message", message.seq()).data(message.payload()),
        Ok(Ok(SubscriptionEvent::Reload { seq })) => numbered_event("reload", seq).data("{}"),
        Ok(Err(end)) => return (end_event(end), StreamStage::Over),
        Err(_elapsed) => match subscription.position() {
            Some(seq) => Event::default().id(seq.to_string()),
            None => Event::default().comment(""),
        },
    };
    (event, StreamStage::Events)
}

fn numbered_event(name: &str, seq: i64) -> Event {
    Event::default().event(name).id(seq.to_string())
}

fn end_event(end: SubscriptionEnd) -> Event {
    Event::default().event("end").data(format!(r#"{{"reason":"{}"}}"#, end.code()))
}
