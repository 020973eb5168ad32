//! Compresses and hashes a database on its way into the store and back, a chunk at a time. Memory does not grow with
//! its size.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_compression::Level;
use async_compression::tokio::bufread::{ZstdDecoder, ZstdEncoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, ReadBuf};

use super::manifest;

/// The compression level. Small databases shrink 13-fold at the fastest level. The next levels cost more time than the
/// saved space is worth.
const LEVEL: Level = Level::Precise(1);
/// Bytes read at once: large enough to feed zstd's window, small compared with a worker's time slice.
const CHUNK_BYTES: usize = 128 << 10;

/// The largest window that a stored object may request, as a power of two: 8 MiB, which no level up to 19 exceeds. The
/// format allows gigabytes, and each unpacked object allocates a window.
const WINDOW_LOG_MAX: u32 = 23;

pub(super) type BackupReader = Box<dyn AsyncRead + Send + Unpin>;

/// Counts and hashes what is read through it.
struct HashingReader {
    inner: BackupReader,
    size_bytes: u64,
    blake3: blake3::Hasher,
    sha256: aws_lc_rs::digest::Context,
}

impl HashingReader {
    fn new(inner: BackupReader) -> Self {
        let sha256 = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        Self { inner, size_bytes: 0, blake3: blake3::Hasher::new(), sha256 }
    }

    fn hashed_image(&self) -> manifest::DatabaseImage {
        manifest::DatabaseImage {
            size_bytes: self.size_bytes,
            blake3: self.blake3.finalize().to_hex().to_string(),
            sha256: encode_hex(self.sha256.clone().finish().as_ref()),
        }
    }
}

impl AsyncRead for HashingReader {
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

/// A database that is being compressed.
pub(super) struct BackupPacker {
    encoder: ZstdEncoder<BufReader<HashingReader>>,
    size_bytes: u64,
    sha256: aws_lc_rs::digest::Context,
}

impl BackupPacker {
    pub(super) fn new(raw: BackupReader) -> Self {
        let buffered = BufReader::with_capacity(CHUNK_BYTES, HashingReader::new(raw));
        let sha256 = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        Self { encoder: ZstdEncoder::with_quality(buffered, LEVEL), size_bytes: 0, sha256 }
    }

    /// The next compressed bytes: exactly `len`, or fewer at the end.
    pub(super) async fn next_packed(&mut self, len: usize) -> io::Result<Bytes> {
        let mut out = BytesMut::with_capacity(len.min(CHUNK_BYTES));
        while out.len() < len {
            let room = (len - out.len()).min(CHUNK_BYTES);
            let read = (&mut self.encoder).take(room as u64).read_buf(&mut out).await?;
            if read == 0 {
                break;
            }
            // Compression of an image in memory never waits, so the task must yield by itself.
            tokio::task::consume_budget().await;
        }
        self.size_bytes += out.len() as u64;
        self.sha256.update(&out);
        Ok(out.freeze())
    }

    /// Lengths and hashes of the database and of the compressed object.
    pub(super) fn finish_packing(self, key: String) -> (manifest::DatabaseImage, manifest::StoredObject) {
        let image = self.encoder.into_inner().into_inner().hashed_image();
        let sha256 = encode_hex(self.sha256.finish().as_ref());
        (image, manifest::StoredObject { key, size_bytes: self.size_bytes, sha256, compression: "zstd".to_owned() })
    }
}

/// A stored object that is being decompressed.
pub(super) struct BackupUnpacker {
    decoder: ZstdDecoder<BufReader<HashingReader>>,
    size_bytes: u64,
    blake3: blake3::Hasher,
}

impl BackupUnpacker {
    pub(super) fn new(stored: BackupReader) -> Self {
        let buffered = BufReader::with_capacity(CHUNK_BYTES, HashingReader::new(stored));
        let window = DParameter::window_log_max(WINDOW_LOG_MAX);
        Self { decoder: ZstdDecoder::with_params(buffered, &[window]), size_bytes: 0, blake3: blake3::Hasher::new() }
    }

    /// The next chunk; empty at the end.
    pub(super) async fn next_unpacked(&mut self) -> io::Result<Bytes> {
        let mut out = BytesMut::with_capacity(CHUNK_BYTES);
        self.decoder.read_buf(&mut out).await?;
        tokio::task::consume_budget().await;
        self.size_bytes += out.len() as u64;
        self.blake3.update(&out);
        Ok(out.freeze())
    }

    /// The bytes that were unpacked so far.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether lengths and hashes are those of the manifest.
    pub(super) fn matches_manifest(self, image: &manifest::DatabaseImage, object: &manifest::StoredObject) -> bool {
        let stored = self.decoder.into_inner().into_inner().hashed_image();
        stored.size_bytes == object.size_bytes
            && stored.sha256 == object.sha256
            && self.size_bytes == image.size_bytes
            && self.blake3.finalize().to_hex().as_str() == image.blake3
    }
}

/// SHA-256 of some bytes, hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    encode_hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

fn encode_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
