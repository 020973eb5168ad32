//! Reads the bytes of `pg_dump --format=custom` into memory or a file, and computes their length and the hash of their
//! content.
//!
//! Two dumps of equal content differ only in the time in the header, so the hash counts those bytes as zero. The layout
//! is that of `WriteHead` in PostgreSQL's `pg_backup_archiver.c`.

use std::path::Path;

use bytes::Bytes;
use tempfile::TempPath;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::SnapshotImage;

/// An archive up to this size is kept in memory. If every slot of a server holds one, that is 64 MiB.
const MEMORY_BYTES_MAX: usize = 8 << 20;
/// Bytes read at once: a pipe holds no more.
const CHUNK_BYTES: usize = 64 << 10;
/// "PGDMP", three bytes of version, the sizes of a number and an offset, the format.
const FIXED_BYTES: usize = 11;
/// Second, minute, hour, day, month, year, summer time.
const TIME_NUMBERS: usize = 7;
/// No header is longer than this, up to and including its time.
const HEADER_BYTES_MAX: usize = 128;

/// A finished archive.
#[derive(Debug)]
pub(in crate::postgres) struct DumpArchive {
    pub(in crate::postgres) image: SnapshotImage,
    /// blake3 hash of the content, in hex.
    pub(in crate::postgres) content_hash: String,
    pub(in crate::postgres) size_bytes: u64,
}

/// Reads an archive to its end.
///
/// # Errors
/// [`ErrorKind::DiskFull`] or [`ErrorKind::Io`] when it cannot be stored.
pub(in crate::postgres) async fn read_archive(mut from: impl AsyncRead + Unpin, scratch: &Path) -> Result<DumpArchive> {
    let mut sink = ArchiveSink::Memory(Vec::new());
    let (mut hasher, mut header, mut size_bytes) = (blake3::Hasher::new(), Vec::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk).await.map_err(|error| io_fault("cannot read the output of pg_dump", error))?;
        let bytes = &chunk[..read];
        size_bytes += read as u64;
        sink.write_chunk(bytes, scratch).await?;
        let begun = header.len() >= HEADER_BYTES_MAX;
        if !begun {
            header.extend_from_slice(bytes);
        }
        match (begun, read) {
            (true, 0) => break,
            (true, _) => drop(hasher.update(bytes)),
            // Collects the first chunks until the whole header is there or the input ends.
            (false, 0) => {
                hasher.update(&without_time(header));
                break;
            }
            (false, _) if header.len() >= HEADER_BYTES_MAX => drop(hasher.update(&without_time(header.clone()))),
            (false, _) => {}
        }
    }
    Ok(DumpArchive {
        image: sink.finish_image().await?,
        content_hash: hasher.finalize().to_hex().to_string(),
        size_bytes,
    })
}

/// [`DumpArchive::content_hash`] of an existing archive.
///
/// # Errors
/// [`std::io::Error`] of the reader.
pub(crate) fn content_hash(mut from: impl std::io::Read) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut head = Vec::with_capacity(HEADER_BYTES_MAX);
    from.by_ref().take(HEADER_BYTES_MAX as u64).read_to_end(&mut head)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&without_time(head)).update_reader(from)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The first bytes of an archive with the time as zeros; other bytes unchanged.
fn without_time(mut head: Vec<u8>) -> Vec<u8> {
    if let Some(time) = time_in(&head).filter(|time| time.end <= head.len()) {
        head[time].fill(0);
    }
    head
}

/// Position of the time in the header. It follows the compression, which is a number up to version 1.14 and one byte
/// from 1.15 on.
fn time_in(head: &[u8]) -> Option<std::ops::Range<usize>> {
    let (&major, &minor) = (head.get(5)?, head.get(6)?);
    if !head.starts_with(b"PGDMP") || major != 1 || minor < 12 {
        return None;
    }
    // A number is one byte for its sign, followed by its bytes.
    let number = 1 + usize::from(*head.get(8)?);
    let start = FIXED_BYTES + if minor <= 14 { number } else { 1 };
    Some(start..start + TIME_NUMBERS * number)
}

enum ArchiveSink {
    Memory(Vec<u8>),
    File(tokio::fs::File, TempPath),
}

impl ArchiveSink {
    async fn write_chunk(&mut self, bytes: &[u8], scratch: &Path) -> Result<()> {
        if let Self::Memory(kept) = self
            && kept.len() + bytes.len() > MEMORY_BYTES_MAX
        {
            let (mut file, path) = create_scratch_file(scratch)?;
            file.write_all(kept).await.map_err(scratch_unwritable)?;
            *self = Self::File(file, path);
        }
        match self {
            Self::Memory(kept) => kept.extend_from_slice(bytes),
            Self::File(file, _) => file.write_all(bytes).await.map_err(scratch_unwritable)?,
        }
        Ok(())
    }

    async fn finish_image(self) -> Result<SnapshotImage> {
        match self {
            Self::Memory(kept) => Ok(SnapshotImage::Memory(Bytes::from(kept))),
            Self::File(mut file, path) => {
                file.flush().await.map_err(scratch_unwritable)?;
                Ok(SnapshotImage::File(path))
            }
        }
    }
}

/// A new file in the scratch directory. No other user can read it, and it is deleted when its path is dropped.
pub(super) fn create_scratch_file(scratch: &Path) -> Result<(tokio::fs::File, TempPath)> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(scratch).map_err(scratch_unwritable)?;
    let file = tempfile::Builder::new().prefix("archive-").tempfile_in(scratch).map_err(scratch_unwritable)?;
    let (file, path) = file.into_parts();
    Ok((tokio::fs::File::from_std(file), path))
}

/// Writes all the bytes to the file.
pub(super) async fn write_scratch_file(file: &mut tokio::fs::File, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes).await.map_err(scratch_unwritable)?;
    file.flush().await.map_err(scratch_unwritable)
}

/// The file of an image. An image in memory is written to a file, because the PostgreSQL programs read files.
pub(in crate::postgres) async fn on_disk(image: SnapshotImage, scratch: &Path) -> Result<TempPath> {
    match image {
        SnapshotImage::File(path) => Ok(path),
        SnapshotImage::Memory(bytes) => {
            let (mut file, path) = create_scratch_file(scratch)?;
            write_scratch_file(&mut file, &bytes).await?;
            Ok(path)
        }
    }
}

/// The statement with which a dump empties the search path of the session that restores it. Since 2018 `dumpSearchPath`
/// of PostgreSQL's `pg_dump.c` writes it in an entry at the start of the archive.
const EMPTY_PATH: &[u8] = b"SELECT pg_catalog.set_config('search_path', '', false);\n";
/// The search path of the sessions that write. Names of the server's own objects still come first, and every other name
/// in a dump is qualified. So functions find the same objects as when they ran in the source.
const WRITERS_PATH: &[u8] = b"SET search_path = \"$user\", public;";
/// Three entries come before the statement, each with some tens of bytes.
const PATH_WITHIN_BYTES: u64 = 64 << 10;

/// Overwrites the empty search path with that of the writers. The new text is shorter and padded, so every offset in
/// the archive stays valid.
pub(in crate::postgres) async fn give_search_path(archive: &Path) -> Result<()> {
    let mut file = tokio::fs::File::options().read(true).write(true).open(archive).await.map_err(scratch_unwritable)?;
    let mut head = Vec::new();
    (&mut file).take(PATH_WITHIN_BYTES).read_to_end(&mut head).await.map_err(scratch_unwritable)?;
    let Some(at) = head.windows(EMPTY_PATH.len()).position(|bytes| bytes == EMPTY_PATH) else { return Ok(()) };
    let mut path = WRITERS_PATH.to_vec();
    path.resize(EMPTY_PATH.len() - 1, b' ');
    path.push(b'\n');
    file.seek(std::io::SeekFrom::Start(at as u64)).await.map_err(scratch_unwritable)?;
    write_scratch_file(&mut file, &path).await
}

fn scratch_unwritable(error: std::io::Error) -> Error {
    io_fault("cannot write to the scratch directory", error)
}

fn io_fault(what: &str, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what}: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of this version, with every byte of the time set to `t`, followed by the content.
    fn archive(minor: u8, t: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = b"PGDMP".to_vec();
        bytes.extend([1, minor, 0, 4, 8, 1]);
        bytes.extend(vec![0; if minor <= 14 { 5 } else { 1 }]);
        bytes.extend([[0, t, 0, 0, 0]; TIME_NUMBERS].concat());
        bytes.extend(content);
        bytes
    }

    async fn hash(bytes: &[u8]) -> String {
        let taken = read_archive(bytes, Path::new("/nowhere")).await.unwrap();
        assert_eq!(taken.size_bytes, bytes.len() as u64);
        assert_eq!(content_hash(bytes).unwrap(), taken.content_hash);
        taken.content_hash
    }

    #[tokio::test]
    async fn only_the_time_does_not_count() {
        for minor in [12, 14, 15, 16] {
            for content in [&b"short"[..], &[7; 200_000]] {
                let one = hash(&archive(minor, 1, content)).await;
                assert_eq!(one, hash(&archive(minor, 9, content)).await, "1.{minor}");
                let mut other = archive(minor, 1, content);
                *other.last_mut().unwrap() ^= 1;
                assert_ne!(one, hash(&other).await);
            }
            let (a, b) = (archive(minor, 0, b"x"), archive(minor, 0, b"y"));
            assert_ne!(hash(&a).await, hash(&b).await, "the first byte after the time counts");
        }
        assert_ne!(hash(b"PGDMP").await, hash(b"PGDM").await);
    }

    #[tokio::test]
    async fn a_large_one_goes_to_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = archive(14, 1, &vec![5; MEMORY_BYTES_MAX]);
        let taken = read_archive(&bytes[..], directory.path()).await.unwrap();
        let SnapshotImage::File(path) = &taken.image else { panic!("in memory") };
        assert!(std::fs::read(path).unwrap() == bytes);
        drop(taken);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
