//! The bytes of a SQLite file as far as this program reads them itself: its header, and a hash that two pictures of
//! the same content share.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::error::{Error, ErrorKind, Result};

/// What every SQLite file starts with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The file format's header.
const HEADER_BYTES: usize = 100;
/// Offset of the two bytes that say which journal readers and writers need.
const JOURNAL_OFFSET: usize = 18;
/// Change counter, schema cookie and version-valid-for: they differ between two pictures of the same content.
const VOLATILE: [std::ops::Range<usize>; 3] = [24..28, 40..44, 92..96];
/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// Which journal a file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Journal {
    /// A rollback journal: such a file can be opened without making companions.
    Rollback,
    /// A write-ahead log.
    Wal,
}

impl Journal {
    fn bytes(self) -> [u8; 2] {
        match self {
            Self::Rollback => [1, 1],
            Self::Wal => [2, 2],
        }
    }
}

/// Sets the journal an image in memory asks for.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it is no SQLite image.
pub(super) fn set_journal(image: &mut [u8], journal: Journal) -> Result<()> {
    if !image.starts_with(MAGIC) || image.len() < HEADER_BYTES {
        return Err(not_sqlite());
    }
    image[JOURNAL_OFFSET..JOURNAL_OFFSET + 2].copy_from_slice(&journal.bytes());
    Ok(())
}

/// The same in a private file that nobody has open as a database.
///
/// # Errors
/// [`io::Error`] as it is.
pub(super) fn set_journal_in(file: &mut std::fs::File, journal: Journal) -> io::Result<()> {
    file.seek(SeekFrom::Start(JOURNAL_OFFSET as u64))?;
    file.write_all(&journal.bytes())
}

/// Refuses what is no SQLite image, or shorter than its header says.
///
/// # Errors
/// [`ErrorKind::Corrupt`].
pub(super) fn check(header: &[u8], length: u64) -> Result<()> {
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
            format!("the image is damaged: {pages} pages of {page} bytes are announced, {length} bytes are there"),
        ));
    }
    Ok(())
}

/// blake3 (hex) of an image with the volatile bytes zeroed, and its length.
///
/// # Errors
/// [`io::Error`] of the reader.
pub(crate) fn content_hash(mut image: impl Read) -> io::Result<(String, u64)> {
    let (mut hasher, mut length) = (blake3::Hasher::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let filled = fill(&mut image, &mut chunk)?;
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
fn fill(image: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
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
