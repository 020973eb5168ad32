//! The application under test: behind an address, or as a service inside the process.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Service, ServiceExt as _};

use crate::error::{KitError, Result};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Maximum size of an answer in bytes. A larger one is an error, because it could not be searched.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The parts of a body as they arrive.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// An application that answers requests.
#[async_trait]
pub trait TestedApplication: Send + Sync {
    /// Sends a request and reads the whole answer. The request's URI is a path with a query.
    ///
    /// # Errors
    /// `application_unreachable` when no answer comes.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>>;

    /// Sends a request and returns the answer while its body is still coming.
    ///
    /// # Errors
    /// As [`TestedApplication::send`].
    async fn open(&self, request: Request<Bytes>) -> Result<Response<BodyStream>>;

    /// The address for a WebSocket; `None` when the application is inside the process.
    fn websocket_address(&self) -> Option<String> {
        None
    }
}

/// An application at an HTTP address.
#[derive(Debug, Clone)]
pub struct HttpApplication {
    url: String,
    client: reqwest::Client,
}

impl HttpApplication {
    /// The application at this address, for instance `http://127.0.0.1:3000`. Redirects are not followed.
    ///
    /// # Errors
    /// `address_invalid` when the text is not an HTTP address.
    pub fn new(url: &str) -> Result<Self> {
        let invalid =
            |cause: String| KitError::new("address_invalid", format!("{url:?} is not an HTTP address: {cause}"));
        let parsed = url::Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(invalid("it does not begin with http:// or https://".to_owned()));
        }
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // A proxy of the environment would see the credentials.
            .no_proxy()
            .build()
            .map_err(|error| KitError::new("address_invalid", error.to_string()))?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), client })
    }

    /// The OpenAPI document at a path of the application.
    ///
    /// # Errors
    /// `document_invalid` when the application has none there; `application_unreachable`.
    pub async fn fetch_document(&self, path: &str) -> Result<String> {
        let missing = |cause: String| {
            let text = format!("the application has no OpenAPI document at {path}: {cause}; name one with --openapi");
            KitError::new("document_invalid", text)
        };
        let request = Request::builder().uri(path).body(Bytes::new()).map_err(|error| missing(error.to_string()))?;
        let answer = self.send(request).await?;
        match answer.status().is_success() {
            true => Ok(String::from_utf8_lossy(answer.body()).into_owned()),
            false => Err(missing(format!("it answers {}", answer.status()))),
        }
    }

    async fn start(&self, request: Request<Bytes>) -> Result<reqwest::Response> {
        let (parts, body) = request.into_parts();
        let url = format!("{}{}", self.url, parts.uri);
        let sent = self.client.request(parts.method, &url).headers(parts.headers).body(body);
        let unreachable = |error: reqwest::Error| unreachable_error(&url, &error.without_url().to_string());
        sent.timeout(ANSWER_MAX).send().await.map_err(unreachable)
    }
}

fn unreachable_error(url: &str, cause: &str) -> KitError {
    KitError::new("application_unreachable", format!("no answer from {url}: {cause}"))
}

#[async_trait]
impl TestedApplication for HttpApplication {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let response = self.open(request).await?;
        let (parts, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(part) = stream.next().await {
            body.extend_from_slice(&part?);
            require_size(body.len())?;
        }
        Ok(Response::from_parts(parts, body.into()))
    }

    async fn open(&self, request: Request<Bytes>) -> Result<Response<BodyStream>> {
        let response = self.start(request).await?;
        let (parts, body) = Response::from(response).into_parts();
        let url = self.url.clone();
        let broken = move |error: reqwest::Error| unreachable_error(&url, &error.without_url().to_string());
        let stream = body.into_data_stream().map(move |part| part.map_err(&broken));
        Ok(Response::from_parts(parts, Box::pin(stream)))
    }

    fn websocket_address(&self) -> Option<String> {
        self.url.strip_prefix("http").map(|rest| format!("ws{rest}"))
    }
}

fn require_size(size: usize) -> Result<()> {
    match size <= ANSWER_BYTES_MAX {
        true => Ok(()),
        false => Err(KitError::new("answer_too_large", format!("an answer has more than {ANSWER_BYTES_MAX} bytes"))),
    }
}

/// An application inside the process: an `axum::Router`, or another tower service.
#[derive(Debug, Clone)]
pub struct ServiceApplication<S> {
    service: S,
}

impl<S> ServiceApplication<S> {
    /// The application of this service.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self { service }
    }
}

#[async_trait]
impl<S, B> TestedApplication for ServiceApplication<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync,
    S::Future: Send,
    B: http_body_util::BodyExt<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error,
{
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let (parts, body) = self.answer(request).await?.into_parts();
        let body = body.collect().await.map_err(|error| unreachable_error("the service", &error.to_string()))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    async fn open(&self, request: Request<Bytes>) -> Result<Response<BodyStream>> {
        let (parts, body) = self.answer(request).await?.into_parts();
        let broken = |error: B::Error| unreachable_error("the service", &error.to_string());
        let stream = body.into_data_stream().map(move |part| part.map_err(broken));
        Ok(Response::from_parts(parts, Box::pin(stream)))
    }
}

impl<S, B> ServiceApplication<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync,
    S::Future: Send,
{
    async fn answer(&self, request: Request<Bytes>) -> Result<Response<B>> {
        let answer = self.service.clone().oneshot(request.map(Full::new));
        let late = |_| unreachable_error("the service", "the answer takes too long");
        let Ok(answer) = tokio::time::timeout(ANSWER_MAX, answer).await.map_err(late)?;
        Ok(answer)
    }
}
