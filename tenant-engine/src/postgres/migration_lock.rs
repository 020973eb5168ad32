//! PURE: the key of the lock that excludes two migrations of one database.

/// The advisory lock that sqlx's migrator takes in a database of this name, so that both migrators exclude each other.
/// A stamp takes it, too, so that no migration runs under an identity that is being replaced.
pub(super) fn lock_key(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(compute_crc32(database.as_bytes()))
}

/// CRC-32 as zip and sqlx compute it.
fn compute_crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(compute_crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(lock_key("123456789"), 0x3d32_ad9e * 0xcbf4_3926);
    }
}
