//! Compresses and hashes a database on its way into the store and back, a chunk at a time: memory does not grow with it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_compression::Level;
use async_compression::tokio::bufread::{ZstdDecoder, ZstdEncoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, ReadBuf};

use super::manifest;

/// Small databases compress 13-fold at the fastest level; the next levels cost more time than they save room.
const LEVEL: Level = Level::Precise(1);
/// What is read at once: large enough for zstd's window to be fed, small beside a worker's time slice.
const CHUNK_BYTES: usize = 128 << 10;

/// The window that a stored object may ask for, as a power of two: 8 MiB, which no level up to 19 exceeds. The format
/// allows gigabytes, and one is allocated for each object that is unpacked.
const WINDOW_LOG_MAX: u32 = 23;

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Counts and hashes what is read through it.
struct Hashing {
    inner: Reader,
    size_bytes: u64,
    blake3: blake3::Hasher,
    sha256: aws_lc_rs::digest::Context,
}

impl Hashing {
    fn new(inner: Reader) -> Self {
        let sha256 = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        Self { inner, size_bytes: 0, blake3: blake3::Hasher::new(), sha256 }
    }

    fn image(&self) -> manifest::Image {
        manifest::Image {
            size_bytes: self.size_bytes,
            blake3: self.blake3.finalize().to_hex().to_string(),
            sha256: hex(self.sha256.clone().finish().as_ref()),
        }
    }
}

impl AsyncRead for Hashing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let fresh = &buf.filled()[before..];
        self.size_bytes += fresh.len() as u64;
        self.blake3.update(fresh);
        self.sha256.update(fresh);
        polled
    }
}

/// A database being compressed.
pub(super) struct Packer {
    encoder: ZstdEncoder<BufReader<Hashing>>,
    size_bytes: u64,
    sha256: aws_lc_rs::digest::Context,
}

impl Packer {
    pub(super) fn new(raw: Reader) -> Self {
        let buffered = BufReader::with_capacity(CHUNK_BYTES, Hashing::new(raw));
        let sha256 = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        Self { encoder: ZstdEncoder::with_quality(buffered, LEVEL), size_bytes: 0, sha256 }
    }

    /// The next compressed bytes: exactly `len`, or fewer at the end.
    pub(super) async fn next(&mut self, len: usize) -> io::Result<Bytes> {
        let mut out = BytesMut::with_capacity(len.min(CHUNK_BYTES));
        while out.len() < len {
            let room = (len - out.len()).min(CHUNK_BYTES);
            let read = (&mut self.encoder).take(room as u64).read_buf(&mut out).await?;
            if read == 0 {
                break;
            }
            // Compression never waits by itself when the image is in memory.
            tokio::task::consume_budget().await;
        }
        self.size_bytes += out.len() as u64;
        self.sha256.update(&out);
        Ok(out.freeze())
    }

    /// What went in and what came out.
    pub(super) fn finish(self, key: String) -> (manifest::Image, manifest::Object) {
        let image = self.encoder.into_inner().into_inner().image();
        let sha256 = hex(self.sha256.finish().as_ref());
        (image, manifest::Object { key, size_bytes: self.size_bytes, sha256, compression: "zstd".to_owned() })
    }
}

/// A stored object being decompressed.
pub(super) struct Unpacker {
    decoder: ZstdDecoder<BufReader<Hashing>>,
    size_bytes: u64,
    blake3: blake3::Hasher,
}

impl Unpacker {
    pub(super) fn new(stored: Reader) -> Self {
        let buffered = BufReader::with_capacity(CHUNK_BYTES, Hashing::new(stored));
        let window = DParameter::window_log_max(WINDOW_LOG_MAX);
        Self { decoder: ZstdDecoder::with_params(buffered, &[window]), size_bytes: 0, blake3: blake3::Hasher::new() }
    }

    /// The next chunk; empty at the end.
    pub(super) async fn next(&mut self) -> io::Result<Bytes> {
        let mut out = BytesMut::with_capacity(CHUNK_BYTES);
        self.decoder.read_buf(&mut out).await?;
        tokio::task::consume_budget().await;
        self.size_bytes += out.len() as u64;
        self.blake3.update(&out);
        Ok(out.freeze())
    }

    /// Bytes that came out so far.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether what was read is what the manifest promises.
    pub(super) fn matches(self, image: &manifest::Image, object: &manifest::Object) -> bool {
        let stored = self.decoder.into_inner().into_inner().image();
        stored.size_bytes == object.size_bytes
            && stored.sha256 == object.sha256
            && self.size_bytes == image.size_bytes
            && self.blake3.finalize().to_hex().as_str() == image.blake3
    }
}

/// Hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
