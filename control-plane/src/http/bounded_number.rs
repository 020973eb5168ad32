//! Whole numbers in requests, each with its range. A number out of range is refused and never adjusted. A caller who
//! asks for 0 or 100,000 at once has made a mistake, and would take an adjusted result for the requested one.
//!
//! The document states the same ranges; a test compares them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::runner::STEPS_MAX;

/// The number of items per page. A page is one read of the catalog and one body in memory.
pub(crate) type PageLimit = BoundedNumber<1, 1_000>;
/// Steps of an operation at once.
pub(crate) type StepConcurrency = BoundedNumber<1, { STEPS_MAX as u64 }>;
/// The number of tenants that a plan must have. The maximum is the largest number that JSON holds exactly in every
/// language.
pub(crate) type TenantCount = BoundedNumber<0, 9_007_199_254_740_991>;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct BoundedNumber<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> BoundedNumber<MIN, MAX> {
    /// The number.
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// The number as a `u32`. A larger one becomes the largest `u32`.
    pub(crate) fn to_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number as the type of a catalog column.
    pub(crate) fn to_i64(self) -> i64 {
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
