//! Canaries: texts that only one tenant's data contains, and the search for them.
//!
//! A canary consists of lower-case letters and digits, so that JSON, CSV, URLs and logs carry it unchanged.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::world::Side;

/// Characters of a run's own part: canaries of an earlier run are not found by a later one.
const RUN_LENGTH: usize = 8;
/// Length of every canary in characters.
pub(crate) const CANARY_LENGTH: usize = 2 + RUN_LENGTH + 1 + 4;
/// The shortest text that is decoded as base64. Shorter ones hold no canary.
const ENCODED_LENGTH_MIN: usize = CANARY_LENGTH * 4 / 3;
/// Bytes of context on each side of a canary in a report.
const CONTEXT_BYTES: usize = 40;

/// Makes the canaries of one run and finds them.
#[derive(Debug)]
pub struct Canaries {
    run: String,
    planted: Mutex<BTreeMap<String, String>>,
}

/// A canary that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryHit {
    /// The canary.
    pub canary: String,
    /// The tenant whose data contains it.
    pub side: Side,
    /// Where it was planted, for instance `POST /tasks: title`.
    pub planted_by: String,
    /// The text around it.
    pub context: String,
}

impl Canaries {
    /// Canaries of a run. `seed` makes them different from those of other runs.
    #[must_use]
    pub fn new(seed: &[u8]) -> Self {
        let run = blake3::hash(seed).to_hex()[..RUN_LENGTH].to_owned();
        Self { run, planted: Mutex::default() }
    }

    /// A new canary for a text of this tenant. `place` says where it goes.
    pub fn issue(&self, side: Side, place: &str) -> String {
        let mut planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner);
        let canary = format!("{}{:04x}", self.prefix(side), planted.len());
        planted.insert(canary.clone(), place.to_owned());
        canary
    }

    /// A text that differs from run to run.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    fn prefix(&self, side: Side) -> String {
        format!("lk{}{}", self.run, side.letter())
    }

    /// How many canaries were issued so far.
    pub(crate) fn issued(&self) -> usize {
        self.planted.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The first canary of this tenant in the bytes that is newer than the given number of canaries.
    pub(crate) fn find_newer(&self, bytes: &[u8], side: Side, than: usize) -> Option<CanaryHit> {
        let number = |canary: &str| usize::from_str_radix(&canary[CANARY_LENGTH - 4..], 16).unwrap_or_default();
        self.all_in(bytes, side).into_iter().find(|hit| number(&hit.canary) >= than)
    }

    /// Whether the bytes contain a canary of this tenant that was written straight into a table.
    pub(crate) fn has_stored(&self, bytes: &[u8], side: Side) -> bool {
        self.all_in(bytes, side).iter().any(|hit| hit.planted_by.contains('.') && !hit.planted_by.contains(' '))
    }

    /// All canaries of this tenant in plain text.
    fn all_in(&self, bytes: &[u8], side: Side) -> Vec<CanaryHit> {
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let prefix = self.prefix(side);
        let canaries = text.match_indices(&prefix).filter_map(|(at, _)| text.get(at..at + CANARY_LENGTH));
        canaries.filter_map(|canary| self.find_plain(canary.as_bytes(), side)).collect()
    }

    /// The first canary of this tenant in the bytes: plain, in any case, percent-encoded or in base64.
    #[must_use]
    pub fn find(&self, bytes: &[u8], side: Side) -> Option<CanaryHit> {
        self.find_plain(bytes, side).or_else(|| {
            let decoded = percent_encoding::percent_decode(bytes).collect::<Vec<u8>>();
            self.find_plain(&decoded, side).or_else(|| {
                let mut parts = encoded_parts(&decoded).flat_map(decode_base64);
                parts.find_map(|part| self.find_plain(&part, side))
            })
        })
    }

    fn find_plain(&self, bytes: &[u8], side: Side) -> Option<CanaryHit> {
        let prefix = self.prefix(side);
        let lower = bytes.to_ascii_lowercase();
        let at = lower.windows(prefix.len()).position(|window| window == prefix.as_bytes())?;
        let end = (at + CANARY_LENGTH).min(bytes.len());
        let canary = String::from_utf8_lossy(&lower[at..end]).into_owned();
        let (from, to) = (at.saturating_sub(CONTEXT_BYTES), (end + CONTEXT_BYTES).min(bytes.len()));
        let planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner);
        let planted_by = planted.get(&canary).cloned().unwrap_or_default();
        let context = String::from_utf8_lossy(&bytes[from..to]).into_owned();
        Some(CanaryHit { canary, side, planted_by, context })
    }
}

/// Whether the whole text is a canary of some run.
pub(crate) fn is_canary(text: &str) -> bool {
    text.len() == CANARY_LENGTH && text.starts_with("lk") && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Parts that may be base64: long runs of its characters.
fn encoded_parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_other = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"+/-_".contains(byte));
    bytes.split(is_other).filter(|part| part.len() >= ENCODED_LENGTH_MIN)
}

/// The part decoded in both alphabets, without characters at its end that do not complete a group.
fn decode_base64(part: &[u8]) -> Vec<Vec<u8>> {
    let whole = &part[..part.len() - usize::from(part.len() % 4 == 1)];
    [STANDARD_NO_PAD.decode(whole), URL_SAFE_NO_PAD.decode(whole)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_in_every_encoding_and_only_for_its_tenant() {
        let canaries = Canaries::new(b"seed");
        let canary = canaries.issue(Side::Second, "tasks.title");
        let upper = canary.to_uppercase();
        let percent: String = canary.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let json = format!("{{\"title\":\"{canary}\"}}");
        let (standard, url_safe) = (STANDARD_NO_PAD.encode(&json), URL_SAFE_NO_PAD.encode(&json));
        for text in [canary.clone(), upper, percent, json, format!("v1.{standard}.sig"), format!("after={url_safe}&x")]
        {
            let hit = canaries.find(text.as_bytes(), Side::Second).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((hit.canary.as_str(), hit.planted_by.as_str()), (canary.as_str(), "tasks.title"));
            assert_eq!(canaries.find(text.as_bytes(), Side::First), None, "{text}");
        }
    }

    #[test]
    fn a_canary_of_another_run_is_not_found() {
        let (old, new) = (Canaries::new(b"old"), Canaries::new(b"new"));
        let canary = old.issue(Side::First, "x");
        assert_eq!(canary.len(), CANARY_LENGTH);
        assert!(old.find(canary.as_bytes(), Side::First).is_some());
        assert!(new.find(canary.as_bytes(), Side::First).is_none());
        assert!(new.find(b"", Side::First).is_none());
    }
}
