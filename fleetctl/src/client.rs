//! Sends requests to the control plane, in process or over HTTP, with the same interface for every command.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use control_plane::auth::operator::InProcess;
use control_plane::serve::AdminSocket;
use fleet_client::{ACCEPTED_TYPES, ApiAnswer, ApiRequest, HttpTransport};
use futures_util::TryStreamExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tower::ServiceExt;

use crate::error::{CommandFailure, Result};

/// The way to a control plane.
#[derive(Clone)]
pub(crate) enum ClientTransport {
    /// The control plane inside this process.
    InProcess { router: axum::Router, credential: ClientCredential },
    /// A control plane in another process. The socket stays open while this value lives.
    Http { transport: HttpTransport, _socket: Option<Arc<AdminSocket>> },
}

/// The caller's identity inside this process.
#[derive(Clone)]
pub(crate) enum ClientCredential {
    /// The user who started the process: for the admin API.
    Operator(InProcess),
    /// A token: for the data API.
    Bearer(SecretString),
}

/// Sends requests to one control plane; cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiClient {
    transport: ClientTransport,
}

impl ApiClient {
    pub(crate) fn new(transport: ClientTransport) -> Self {
        Self { transport }
    }

    /// A client for a control plane at this address.
    pub(crate) fn over_address(base: &str, token: SecretString, ca: Option<&[u8]>) -> Result<Self> {
        let transport = HttpTransport::over_address(base, token, ca, None)?;
        Ok(Self::new(ClientTransport::Http { transport, _socket: None }))
    }

    /// A client for the server on this data directory, through its socket. Its address and certificate are not needed.
    pub(crate) fn over_socket(data_dir: &Path, socket: AdminSocket, token: SecretString) -> Result<Self> {
        let shown = format!("the socket in {}", data_dir.display());
        let transport = HttpTransport::over_socket(socket.socket_path(), &shown, token)?;
        Ok(Self::new(ClientTransport::Http { transport, _socket: Some(Arc::new(socket)) }))
    }

    /// True when the control plane runs in this process and ends with it.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.transport, ClientTransport::InProcess { .. })
    }

    /// Sends the request and reads a JSON answer.
    pub(crate) async fn send_for_json(&self, request: &ApiRequest) -> Result<Value> {
        Ok(self.send_request(request).await?.read_json().await?)
    }

    /// Sends the request. An unsuccessful answer becomes a failure with the problem's text.
    pub(crate) async fn send_request(&self, request: &ApiRequest) -> Result<ApiAnswer> {
        let answer = match &self.transport {
            ClientTransport::InProcess { router, credential } => {
                send_in_process(router.clone(), credential.clone(), request).await?
            }
            ClientTransport::Http { transport, .. } => transport.send_request(request).await?,
        };
        Ok(answer.require_success().await?)
    }
}

async fn send_in_process(
    router: axum::Router,
    credential: ClientCredential,
    request: &ApiRequest,
) -> Result<ApiAnswer> {
    let builder = axum::http::Request::builder().method(request.verb().as_str()).uri(request.target());
    let mut builder = builder.header(header::ACCEPT, ACCEPTED_TYPES);
    builder = match credential {
        ClientCredential::Operator(principal) => builder.extension(principal),
        ClientCredential::Bearer(token) => {
            builder.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
        }
    };
    if let Some(key) = request.idempotency_key() {
        builder = builder.header("idempotency-key", key);
    }
    let body = match request.body() {
        Some(json) => {
            builder = builder.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Body::from(json.to_string())
        }
        None => Body::empty(),
    };
    let ask = builder.body(body).map_err(|e| CommandFailure::usage_error("the request is not valid").with_cause(e))?;
    let answer = router.oneshot(ask).await.unwrap_or_else(|never| match never {});
    let status = answer.status().as_u16();
    let body = answer.into_body().into_data_stream().map_err(fleet_client::Error::answer_cut);
    Ok(ApiAnswer::from_stream(status, body))
}
