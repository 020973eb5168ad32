//! Long connections of the application: server-sent events, or a WebSocket.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http::header::{ACCEPT, CONTENT_TYPE};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::error::{KitError, Result};
use crate::session::{Call, Session};

/// A connection on which messages arrive.
pub(crate) struct LiveConnection {
    pub(crate) messages: Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>,
}

impl LiveConnection {
    /// Opens the connection as an event stream, or as a WebSocket if the route has no event stream. `None` if the
    /// application refuses both.
    pub(crate) async fn open(session: &Session, call: &Call<'_>) -> Result<Option<Self>> {
        let response = session.open(&call.clone().header(ACCEPT.as_str(), "text/event-stream")).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if response.status().is_success() && kind.starts_with("text/event-stream") {
            let parts = response.into_body().filter_map(|part| async { part.ok().map(|part| part.to_vec()) });
            return Ok(Some(Self { messages: Box::pin(parts) }));
        }
        match session.application().websocket_address() {
            Some(address) => Self::open_socket(session, call, &address).await,
            None => Ok(None),
        }
    }

    async fn open_socket(session: &Session, call: &Call<'_>, address: &str) -> Result<Option<Self>> {
        let url = format!("{address}{}", session.path_of(call));
        let invalid =
            |error: tokio_tungstenite::tungstenite::Error| KitError::new("request_invalid", error.to_string());
        let mut request = url.into_client_request().map_err(invalid)?;
        let headers =
            [session.world.address_headers(&call.address), session.world.caller_headers(call.caller)].concat();
        headers.into_iter().for_each(|(name, value)| drop(request.headers_mut().insert(name, value)));
        let Ok((socket, _)) = connect_async(request).await else { return Ok(None) };
        let messages = socket.filter_map(|message| async {
            match message {
                Ok(Message::Text(text)) => Some(text.as_bytes().to_vec()),
                Ok(Message::Binary(bytes)) => Some(bytes.to_vec()),
                _ => None,
            }
        });
        Ok(Some(Self { messages: Box::pin(messages) }))
    }

    /// All messages until none has come for this long.
    pub(crate) async fn read_until_quiet(&mut self, quiet: Duration) -> Vec<Vec<u8>> {
        let mut read = Vec::new();
        while let Ok(Some(message)) = tokio::time::timeout(quiet, self.messages.next()).await {
            read.push(message);
        }
        read
    }
}
