//! Reads the bytes of a SQLite file: its header, and a hash that is equal for two snapshots of equal content.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::error::{Error, ErrorKind, Result};

/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of the file format's header.
const HEADER_BYTES: usize = 100;
/// Offset of the two bytes that name the journal for readers and writers.
const JOURNAL_OFFSET: usize = 18;
/// Change counter, schema cookie and version-valid-for: they differ between two snapshots of equal content.
const VOLATILE: [std::ops::Range<usize>; 3] = [24..28, 40..44, 92..96];
/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// The kind of journal that a file requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sqlite) enum JournalMode {
    /// A rollback journal: such a file can be opened without making other files.
    Rollback,
    /// A write-ahead log.
    Wal,
}

impl JournalMode {
    fn header_bytes(self) -> [u8; 2] {
        match self {
            Self::Rollback => [1, 1],
            Self::Wal => [2, 2],
        }
    }
}

/// Sets the journal in the header of an image in memory.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it is not a SQLite image.
pub(in crate::sqlite) fn set_journal(image: &mut [u8], journal: JournalMode) -> Result<()> {
    if !image.starts_with(MAGIC) || image.len() < HEADER_BYTES {
        return Err(not_sqlite());
    }
    image[JOURNAL_OFFSET..JOURNAL_OFFSET + 2].copy_from_slice(&journal.header_bytes());
    Ok(())
}

/// Sets the journal in the header of a private file, which must not be open as a database.
///
/// # Errors
/// The [`io::Error`] unchanged.
pub(in crate::sqlite) fn set_journal_in(file: &mut std::fs::File, journal: JournalMode) -> io::Result<()> {
    file.seek(SeekFrom::Start(JOURNAL_OFFSET as u64))?;
    file.write_all(&journal.header_bytes())
}

/// Refuses bytes that are not a SQLite image, or that are shorter than the header says.
///
/// # Errors
/// [`ErrorKind::Corrupt`].
pub(in crate::sqlite) fn check_header(header: &[u8], length: u64) -> Result<()> {
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) {
        return Err(not_sqlite());
    }
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    if !page.is_power_of_two() || page < 512 || page * pages != length {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("the image is damaged: its header announces {pages} pages of {page} bytes, it has {length} bytes"),
        ));
    }
    Ok(())
}

/// blake3 (hex) of an image with the volatile bytes as zeros, and its length.
///
/// # Errors
/// [`io::Error`] of the reader.
pub(crate) fn content_hash(mut image: impl Read) -> io::Result<(String, u64)> {
    let (mut hasher, mut length) = (blake3::Hasher::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let filled = fill_chunk(&mut image, &mut chunk)?;
        if length == 0 {
            VOLATILE.iter().filter(|range| range.end <= filled).for_each(|range| chunk[range.clone()].fill(0));
        }
        hasher.update(&chunk[..filled]);
        length += filled as u64;
        if filled < chunk.len() {
            return Ok((hasher.finalize().to_hex().to_string(), length));
        }
    }
}

/// Reads until the chunk is full or the image ends.
fn fill_chunk(image: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match image.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn not_sqlite() -> Error {
    Error::new(ErrorKind::Corrupt, "the image is damaged: it does not start like a SQLite database")
}
