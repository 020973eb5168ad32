//! Answers whose body has not been read yet: as JSON, as a type, or line by line.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Stream};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// Maximum size of an answer that is read whole. A page of 1,000 items is much smaller.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// An answer whose body has not been read yet.
pub struct ApiAnswer {
    status: u16,
    retry_after: Option<Duration>,
    body: BoxStream<'static, Result<Bytes>>,
}

impl std::fmt::Debug for ApiAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiAnswer").field("status", &self.status).finish_non_exhaustive()
    }
}

impl ApiAnswer {
    /// An answer with this HTTP status and body.
    pub fn from_stream(status: u16, body: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self { status, retry_after: None, body: body.boxed() }
    }

    /// Adds the time after which the server wants the request to be repeated.
    pub(crate) fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The answer itself if it is a success.
    ///
    /// # Errors
    /// The API's problem for any other status, and the errors of [`ApiAnswer::read_json`].
    pub async fn require_success(self) -> Result<Self> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let (status, retry_after) = (self.status, self.retry_after);
        let text = collect_body(self.body).await?;
        let problem = serde_json::from_slice(&text).unwrap_or(Value::Null);
        Err(Error::from_problem(status, &problem).with_retry_after(retry_after))
    }

    /// The whole body as JSON; null when it is empty.
    ///
    /// # Errors
    /// `unreachable` when the connection breaks; `unexpected_answer` when the body is too long or is not JSON.
    pub async fn read_json(self) -> Result<Value> {
        let bytes = collect_body(self.body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|e| Error::unexpected_answer("the answer is not JSON").with_cause(e))
    }

    /// The whole body as this type.
    ///
    /// # Errors
    /// As [`ApiAnswer::read_json`], and `unexpected_answer` when the type lacks a field.
    pub async fn read_as<A: DeserializeOwned>(self) -> Result<A> {
        let bytes = collect_body(self.body).await?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::unexpected_answer("the answer is not what this request returns").with_cause(e))
    }

    /// The body line by line (NDJSON), as it arrives.
    #[must_use]
    pub fn into_lines(self) -> AnswerLines {
        AnswerLines { body: self.body, buffer: Vec::new() }
    }
}

/// Lines of an answer; see [`ApiAnswer::into_lines`].
pub struct AnswerLines {
    body: BoxStream<'static, Result<Bytes>>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for AnswerLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerLines").finish_non_exhaustive()
    }
}

impl AnswerLines {
    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// `unreachable` when the connection breaks; `unexpected_answer` when a line is too long.
    pub async fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let rest = self.buffer.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > ANSWER_BYTES_MAX {
                return Err(Error::unexpected_answer("a line of the answer is too long"));
            }
            match self.body.next().await {
                Some(chunk) => self.buffer.extend_from_slice(&chunk?),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer))),
            }
        }
    }
}

async fn collect_body(mut body: BoxStream<'static, Result<Bytes>>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(chunk) = body.next().await {
        out.extend_from_slice(&chunk?);
        if out.len() > ANSWER_BYTES_MAX {
            return Err(Error::unexpected_answer("the answer is too long"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[tokio::test]
    async fn lines_arrive_whole_however_the_body_is_cut() {
        let chunks = ["{\"a\"", ":1}\n{}", "\n", "last"].map(|c| Ok(Bytes::from(c)));
        let mut lines = ApiAnswer::from_stream(200, stream::iter(chunks)).into_lines();
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            seen.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(seen, ["{\"a\":1}", "{}", "last"]);
    }
}
