//! Whole numbers in requests, each with its range. A number out of range is refused and never adjusted. A caller who
//! asks for 0 or 100,000 at once has made a mistake, and would take an adjusted result for the requested one.
//!
//! The document states the same ranges; a test compares them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// The number of items per page. A page is one read of the catalog and one body in memory.
pub type PageLimit = BoundedNumber<1, 1_000>;
/// The largest number of steps of one operation that run at once.
pub const STEPS_MAX: u32 = 128;
/// Steps of an operation at once.
pub type StepConcurrency = BoundedNumber<1, { STEPS_MAX as u64 }>;
/// The number of tenants that a plan must have. The maximum is the largest number that JSON holds exactly in every
/// language.
pub type TenantCount = BoundedNumber<0, 9_007_199_254_740_991>;

/// The age of a backup from which the doctor warns, in hours.
pub type AgeHours = BoundedNumber<1, 87_600>;
/// How long ended operations and events are kept: a week to a hundred years, in seconds.
pub type KeptSeconds = BoundedNumber<604_800, 3_162_240_000>;
/// The version of a migration.
pub type MigrationVersion = BoundedNumber<0, { i64::MAX as u64 }>;
/// How long a request waits for the end of an operation, in seconds.
pub type WaitSeconds = BoundedNumber<0, 60>;
/// The maximum number of tenants of a server. The upper limit is far above what one server holds well.
pub type TenantCapacity = BoundedNumber<1, 1_000_000>;
/// Tenants that are queried at once. Each open database costs memory and a few descriptors.
pub type AtOnce = BoundedNumber<1, 64>;
/// The largest number of rows of one tenant that a query returns: the engine's own limit for a session.
pub const ROWS_MAX: u32 = 10_000;
/// Rows of each tenant that a query returns at most.
pub type RowsMax = BoundedNumber<1, { ROWS_MAX as u64 }>;

/// Requests per second of a tenant. The largest number is far above what a database answers.
pub type RequestRate = BoundedNumber<1, 1_000_000>;
/// Requests of a tenant that may come at once: ten seconds of the largest rate.
pub type RequestBurst = BoundedNumber<1, 10_000_000>;
/// Open requests of a tenant at once.
pub type OpenRequests = BoundedNumber<1, 100_000>;
/// The longest time of a statement in milliseconds: an hour at most.
pub type StatementMilliseconds = BoundedNumber<1, 3_600_000>;
/// The largest size of an answer in bytes: one row of text at least, a gibibyte at most.
pub type AnswerBytes = BoundedNumber<1_024, 1_073_741_824>;
/// The largest size of a database in bytes. A smaller one than a mebibyte may not hold the tables.
pub type StorageBytes = BoundedNumber<1_048_576, 9_007_199_254_740_991>;
/// Connections of one process to one database.
pub type ConnectionLimit = BoundedNumber<1, 1_000>;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BoundedNumber<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> BoundedNumber<MIN, MAX> {
    /// `None` for a number that is out of range.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number as a `u32`. A larger one becomes the largest `u32`.
    pub fn to_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number as the type of a catalog column.
    pub fn to_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for BoundedNumber<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Read as a signed number, so that a negative one gets the error with the range, too.
        deserializer.deserialize_i64(InRange)
    }
}

struct InRange<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> de::Visitor<'_> for InRange<MIN, MAX> {
    type Value = BoundedNumber<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        match number {
            number if (MIN..=MAX).contains(&number) => Ok(BoundedNumber(number)),
            number => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        let refused = |_| E::invalid_value(de::Unexpected::Signed(number), &self);
        u64::try_from(number).map_err(refused).and_then(|number| self.visit_u64(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_within_its_range_or_refused() {
        let read = |text: &str| serde_json::from_str::<BoundedNumber<1, 128>>(text);
        assert_eq!(read("1").unwrap().get(), 1);
        assert_eq!(read("128").unwrap().to_u32(), 128);
        for bad in ["0", "-1", "129", "1.5", "1e2", "NaN", "\"8\"", "null", "true", "1e30", "99999999999999999999"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let said = read("0").unwrap_err().to_string();
        assert!(said.contains("integer `0`, expected a whole number from 1 to 128"), "{said}");
    }
}
